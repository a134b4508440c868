"""SimMIM on SwinV2-B, 192 pixels, window 12, against timm and the reference, for both targets; and the target alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss, pixel_shuffle
from unveil_backbones import create
from unveil_backbones.flops import encoder_cost
from unveil_backbones.swin import SwinConfig
from unveil_masking import Grid
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.simmim import SimMIM, SimMIMConfig
from unveil_pretrain.targets import normalise_by_window

from benchmarks._compare import Absent, Candidate, Comparison
from benchmarks._reference import SWIN_URL, load_swin_simmim, missing
from benchmarks._steps import Work, candidate, difference, scramble

__all__ = [
    "our_simmim",
    "pooled_target",
    "reference_simmim",
    "simmim_difference",
    "simmim_flops",
    "simmim_rows",
    "target_row",
]

_WINDOW = 47
_BARS = {("cpu", 0): 1.1, ("cuda", 0): 1.5, ("cpu", _WINDOW): 2.2, ("cuda", _WINDOW): 3.0}
_TOLERANCE = 1e-4  # gradients of 24 blocks in float32, relative to the largest


def simmim_rows(work: Work, swin: Path | None) -> Iterator[Comparison]:
    """Yield the step with raw pixels as target, and with pixels normalised by a window of 47."""
    for window in (0, _WINDOW):
        yield _step_row(work, window, swin)


def target_row(work: Work) -> Comparison:
    """Return the target statistics alone, ours against three average pools."""
    side = 64 if work.quick else 192
    images, few = work.images(side), work.images(side, work.check_batch)
    return Comparison(
        title=f"target normalised by {_WINDOW} x {_WINDOW} pixels, alone; {work.batch} images of {side} pixels",
        ours=Candidate(name="ours", run=lambda: normalise_by_window(images, _WINDOW)),
        peers=[Candidate(name="three average pools", run=lambda: pooled_target(images, _WINDOW))],
        differences=lambda: {
            "three average pools": (normalise_by_window(few, _WINDOW) - pooled_target(few, _WINDOW)).abs().max().item()
        },
        tolerance=1e-4,
        bars={"three average pools": 100.0} if work.device.torch.type == "cpu" else {},
    )


def pooled_target(images: Tensor, window: int) -> Tensor:
    """Normalise pixels by their window as the reference does: mean, mean square and count, each by an average pool."""
    half = window // 2

    def pool(values: Tensor, padding_counts: bool) -> Tensor:
        return avg_pool2d(values, window, stride=1, padding=half, count_include_pad=padding_counts)

    mean, square = pool(images, False), pool(images.square(), False)
    count = pool(torch.ones_like(images), True) * window**2
    variance = ((square - mean.square()) * (count / (count - 1))).clamp(min=0.0)
    return (images - mean) / (variance + 1e-6).sqrt()


class OurSimMIM(nn.Module):
    """Our objective on fixed sample ids, masks drawn in every step."""

    def __init__(self, objective: SimMIM, ids: Tensor) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("ids", ids, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        ids = cast(Tensor, self.ids)[: len(images)]
        return self.objective(Inputs(images, ids, torch.zeros_like(ids), None), seed=0).per_sample.mean()


class _Timm(nn.Module):
    """A SimMIM step around timm's SwinV2 as one would write it: the decoder and the loss see every pixel.

    ``mask`` [b, n] is True where hidden; it comes ready, as from the reference's data loader.
    """

    def __init__(self, encoder: nn.Module, mask: Tensor, *, width: int, stride: int, window: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.head = nn.Conv2d(width * 8, stride**2 * 3, 1)
        self.stride, self.window = stride, window
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder.patch_embed(images)
        rows, cols = tokens.shape[1:3]
        hidden = cast(Tensor, self.mask)[: len(images)].unflatten(1, (rows, cols))
        weight = hidden[..., None].to(tokens.dtype)
        tokens = tokens * (1 - weight) + self.mask_token.to(tokens.dtype) * weight
        maps = self.encoder.norm(self.encoder.layers(tokens)).permute(0, 3, 1, 2)
        prediction = pixel_shuffle(self.head(maps), self.stride)
        target = pooled_target(images, self.window) if self.window else images
        pixels = hidden.repeat_interleave(self.stride // 8, 1).repeat_interleave(self.stride // 8, 2)[:, None]
        error = l1_loss(prediction.float(), target, reduction="none") * pixels
        return error.sum() / (pixels.sum() + 1e-5) / 3


class ReferenceSimMIM(nn.Module):
    """The reference's own SimMIM on ready masks."""

    def __init__(self, model: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, cast(Tensor, self.mask)[: len(images)])


def _step_row(work: Work, window: int, swin: Path | None) -> Comparison:
    ours, config, mask = our_simmim(work, window)
    timm = _timm(ours, config, mask, window).to(work.device.torch)
    peers: dict[str, nn.Module] = {"timm": timm}
    absent = missing("reference", "--swin", SWIN_URL, swin, "models/simmim.py")
    if absent is None and swin is not None:
        peers["reference"] = reference_simmim(ours, config, mask, window, swin).to(work.device.torch)
    images = work.images(config.image_size[0])
    few = work.images(config.image_size[0], work.check_batch)
    flops = work.batch * simmim_flops(config)
    bar = _BARS[work.device.torch.type, window]
    target = f"target normalised by {window} pixels" if window else "raw pixels"
    name = ours.objective.encoder.spec.name
    return Comparison(
        title=f"SimMIM step, {name} at {config.image_size[0]}, {target}, batch {work.batch}",
        ours=candidate("ours", ours, images, work, flops=flops),
        peers=[
            *(candidate(name, peer, images, work, flops=flops) for name, peer in peers.items()),
            *([absent] if isinstance(absent, Absent) else []),
        ],
        differences=lambda: {name: difference(ours, peer, few, _pairs(name)) for name, peer in peers.items()},
        tolerance=_TOLERANCE,
        bars=dict.fromkeys(peers, bar),
    )


def our_simmim(work: Work, window: int) -> tuple[OurSimMIM, SwinConfig, Tensor]:
    """Our step with scrambled weights, and the mask that it will draw."""
    torch.manual_seed(0)
    encoder = create("swinv2_tiny" if work.quick else "swinv2_b")
    if work.attention != "usual":
        more = {"triton_attention"} if work.attention == "triton" else set[str]()
        encoder.set_optimisations((encoder.optimisations - {"sdpa_attention"}) | more)
    config = cast(SwinConfig, encoder.config)
    context = BuildContext(encoder, config.image_size, lambda _: [], None)
    objective = SimMIMConfig(target_window=window).build(context)
    scramble(objective)
    ids = torch.arange(max(work.batch, work.check_batch), device=work.device.torch)
    grid = Grid(*encoder.grid(*config.image_size))
    mask = objective.strategy.sample(grid, ids, seed=0, epoch=0).mask
    return OurSimMIM(objective, ids).to(work.device.torch), config, mask


def _timm(ours: OurSimMIM, config: SwinConfig, mask: Tensor, window: int) -> _Timm:
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    encoder = SwinTransformerV2(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=0,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_sizes[0],
        drop_path_rate=0.0,  # not its default
    )
    encoder.load_state_dict(ours.objective.encoder.state_dict())
    timm = _Timm(encoder, mask, width=config.width, stride=config.patch_size * 8, window=window)
    _copy_heads(ours, timm.mask_token, timm.head)
    return timm


def reference_simmim(ours: "OurSimMIM", config: SwinConfig, mask: Tensor, window: int, path: Path) -> "ReferenceSimMIM":
    """Return the clone's model with our weights, on ready masks."""
    model, _ = load_swin_simmim(
        path,
        target_window=window,
        img_size=config.image_size[0],
        patch_size=config.patch_size,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_sizes[0],
        drop_path_rate=0.0,
    )
    encoder = cast(nn.Module, model.encoder)
    renamed = {_reference_name(name): value for name, value in ours.objective.encoder.state_dict().items()}
    unloaded = encoder.load_state_dict(renamed, strict=False)
    lacking = [name for name in unloaded.missing_keys if name in dict(encoder.named_parameters())]
    if unloaded.unexpected_keys or lacking != ["mask_token"]:
        raise ValueError(
            f"the clone's weights have other names: {unloaded.unexpected_keys}, {lacking}; adapt the names"
        )
    _copy_heads(ours, cast(nn.Parameter, encoder.mask_token), cast(nn.Sequential, model.decoder)[0])
    rows, cols = (side // config.patch_size for side in config.image_size)
    return ReferenceSimMIM(model, mask.unflatten(1, (rows, cols)).float())


def _reference_name(name: str) -> str:
    """Our (timm's) name of a weight as the reference calls it: it keeps the merging in the stage before."""
    if ".downsample." not in name:
        return name
    _, stage, rest = name.split(".", 2)
    return f"layers.{int(stage) - 1}.{rest}"


def _copy_heads(ours: OurSimMIM, token: nn.Parameter, head: nn.Module) -> None:
    with torch.no_grad():
        token.copy_(ours.objective.mask_token.view_as(token))
        for name, parameter in head.named_parameters():
            parameter.copy_(ours.objective.head.get_parameter(name).view_as(parameter))


def _pairs(peer: str) -> dict[str, str]:
    """Parameters at both ends and in the middle, and how the peer calls them."""
    names = ("patch_embed.proj.weight", "layers.0.blocks.1.attn.qkv.weight", "layers.1.downsample.reduction.weight")
    names += ("layers.2.blocks.1.attn.cpb_mlp.0.weight", "layers.3.blocks.1.attn.logit_scale", "norm.weight")
    if peer == "timm":
        return {
            **{f"objective.encoder.{name}": f"encoder.{name}" for name in names},
            "objective.mask_token": "mask_token",
            "objective.head.weight": "head.weight",
        }
    return {
        **{f"objective.encoder.{name}": f"model.encoder.{_reference_name(name)}" for name in names},
        "objective.mask_token": "model.encoder.mask_token",
        "objective.head.weight": "model.decoder.0.weight",
    }


def simmim_difference(ours: OurSimMIM, theirs: nn.Module, images: Tensor) -> float:
    """Return how far losses and gradients of ours and the clone's are apart."""
    return difference(ours, theirs, images, _pairs("reference"))


def simmim_flops(config: SwinConfig) -> int:
    """Return the operations of a training step for one image."""
    return encoder_cost(config).training_flops + _head_flops(config)


def _head_flops(config: SwinConfig) -> int:
    """Forward and backward of the linear decoder on every final token, for one image."""
    stride = config.patch_size * 8
    cells = config.image_size[0] // stride * (config.image_size[1] // stride)
    return 6 * cells * config.width * 8 * stride**2 * 3
