"""Swin Transformer V2 files of its authors: SimMIM pre-training, data-scaling and classification ``.pth``.

Pre-training files have an ``encoder.`` before every name and a one-layer decoder, which is kept. Windows are not
stored, but buffers that follow from them are: the table of relative coordinates is ``[1, 2w - 1, 2w - 1, 2]`` for a
window of ``w``, its largest entry tells the window it was pre-trained with, and the shift mask has one entry per window
of the grid.
"""

import math
import re
from dataclasses import replace

from unveil_backbones._json import JSON
from unveil_backbones.conversion.configs import Configs
from unveil_backbones.conversion.decoders import simmim_decoder
from unveil_backbones.conversion.details import Details, Found, check_swin_room, make_encoder
from unveil_backbones.conversion.ledger import Ledger, Link, same
from unveil_backbones.errors import ConvertError, NotExpressibleError
from unveil_backbones.specs import Preprocessing
from unveil_backbones.swin_config import SwinConfig, clamped_windows
from unveil_backbones.swin_presets import SWIN_PRESETS

__all__ = ["infer_swin", "read", "swin_links"]

_STAGES = 4
_BUFFERS = r".*\.(relative_coords_table|relative_position_index|attn_mask)"


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a file of SimMIM or Swin Transformer V2; there are no configuration files of this format.

    Raises:
        ConvertError: A detail has to be given, or the file has another layout.
        NotExpressibleError: It is a Swin Transformer of version 1.
    """
    prefix = ledger.prefix("patch_embed.proj.weight")
    config, assumed = infer_swin(ledger, prefix, details)
    pretrained = f"{prefix}mask_token" in ledger
    _drop(ledger, prefix)
    encoder = make_encoder(config, details.arch)
    decoder = simmim_decoder(
        ledger, prefix, embed_width=encoder.embed_width, width=encoder.width, stride=encoder.stride
    )
    return Found(
        model=encoder,
        links=swin_links(list(encoder.state_dict()), prefix, merge_shift=1),
        objective="simmim" if pretrained else "unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=config.image_size)),
        assumed={**assumed, **decoder.assumed},
        heads=decoder.links,
        settings=decoder.settings,
    )


def infer_swin(ledger: Ledger, prefix: str, details: Details) -> tuple[SwinConfig, dict[str, JSON]]:
    """Return the configuration that shapes and buffers tell, and what had to be given.

    Raises:
        ConvertError: Windows or image size are not in the file and were not given.
        NotExpressibleError: It is a Swin Transformer of version 1.
    """
    if any(name.endswith("relative_position_bias_table") for name in ledger.tensors):
        raise NotExpressibleError(
            f"{ledger.where} is a Swin Transformer of version 1 (it has relative_position_bias_table); this package "
            "has version 2; take a SwinV2 file"
        )
    patch = ledger.look(f"{prefix}patch_embed.proj.weight", 4)
    width, side = patch.shape[0], patch.shape[2]
    depths = tuple(ledger.depth(f"{prefix}layers.{stage}.blocks.") for stage in range(_STAGES))
    if 0 in depths or ledger.depth(f"{prefix}layers.") != _STAGES:
        raise ConvertError(
            f"{ledger.where}: blocks per stage {depths}; a Swin Transformer here has four stages; give its real format"
        )
    stems = [f"{prefix}layers.{stage}.blocks.0." for stage in range(_STAGES)]
    heads = tuple(ledger.look(f"{stem}attn.logit_scale", 3).shape[0] for stem in stems)
    hidden = ledger.look(f"{stems[0]}mlp.fc1.weight", 2).shape[0]
    check_swin_room(ledger, width, hidden, depths)
    windows, trained, image_size, assumed = _windows(ledger, prefix, side, details)
    return SwinConfig(
        image_size=image_size,
        width=width,
        depths=depths,
        num_heads=heads,
        window_sizes=windows,
        pretrained_window_sizes=trained,
        patch_size=side,
        mlp_ratio=hidden / width,
    ), assumed


def swin_links(names: list[str], prefix: str, *, merge_shift: int) -> list[Link]:
    """Link our tensors to those of the same names; mergings stand ``merge_shift`` stages earlier there than here."""

    def theirs(name: str) -> str:
        moved = re.sub(
            r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) - merge_shift}.downsample", name
        )
        return prefix + moved

    return [same(name, theirs(name)) for name in names]


def _drop(ledger: Ledger, prefix: str) -> None:
    buffers = [name for name in ledger.tensors if re.fullmatch(_BUFFERS, name)]
    ledger.drop(buffers, "buffers, which are computed from windows and image size")
    ledger.drop([f"{prefix}head.weight", f"{prefix}head.bias"], "the classifier")


def _windows(
    ledger: Ledger, prefix: str, side: int, details: Details
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, int], dict[str, JSON]]:
    """Wanted windows, windows of pre-training, image size, and which of them were given and not read."""
    tables = [f"{prefix}layers.{stage}.blocks.0.attn.relative_coords_table" for stage in range(_STAGES)]
    if all(name in ledger for name in tables):
        coordinates = [ledger.look(name, 4) for name in tables]
        if any(table.shape[1] != table.shape[2] for table in coordinates):
            raise NotExpressibleError(f"{ledger.where} has windows that are no squares; take a file with square ones")
        real = tuple((table.shape[1] + 1) // 2 for table in coordinates)
        details = replace(details, window=max(real))  # checks that it is one
        trained = tuple(_pretrained(float(table.max()), side) for table, side in zip(coordinates, real, strict=True))
        image_size = details.image_size or _image_size(ledger, prefix, side, real)
        clamped = clamped_windows(image_size, side, (real[0],) * _STAGES)
        same_wish = all(rows == cols == window for (rows, cols), window in zip(clamped, real, strict=True))
        return (real[0],) * _STAGES if same_wish else real, tuple((t, t) for t in trained), image_size, {}
    preset = SWIN_PRESETS.get(details.arch) if details.arch else None
    image_size = details.image_size or (preset.image_size if preset else None)
    window = details.window or (preset.window_sizes[0] if preset else None)
    if image_size is None or window is None:
        raise ConvertError(
            f"{ledger.where} stores neither windows nor image size; give --window and --image-size, or --arch with one "
            f"of {', '.join(SWIN_PRESETS)}"
        )
    wanted = (window,) * _STAGES
    assumed: dict[str, JSON] = {"window": window, "image_size": list(image_size)}
    own = clamped_windows(image_size, side, wanted)
    given = details.pretrained_windows or own
    trained = tuple((rows or real[0], cols or real[1]) for (rows, cols), real in zip(given, own, strict=True))
    return wanted, trained, image_size, assumed


def _pretrained(largest: float, window: int) -> int:
    """Undo ``log2(1 + 8 (w - 1) / (p - 1)) / 3``, the last coordinate, for the window ``p`` of pre-training."""
    if window == 1 or not math.isfinite(largest) or largest <= 0:
        return window
    return round(8 * (window - 1) / (2 ** (3 * largest) - 1)) + 1


def _image_size(ledger: Ledger, prefix: str, side: int, windows: tuple[int, ...]) -> tuple[int, int]:
    """The finest stage with a shift mask counts its windows; without any, each grid is one window."""
    for stage, window in enumerate(windows):
        mask = f"{prefix}layers.{stage}.blocks.1.attn_mask"
        if mask in ledger:
            num_windows = ledger.look(mask, 3).shape[0]
            root = math.isqrt(num_windows)
            if root * root == num_windows:
                image_side = root * window * side * 2**stage
                return image_side, image_side
    if len({window * 2**stage for stage, window in enumerate(windows)}) == 1:
        return windows[0] * side, windows[0] * side
    raise ConvertError(f"{ledger.where} does not tell its image size; give it (--image-size HEIGHT WIDTH)")
