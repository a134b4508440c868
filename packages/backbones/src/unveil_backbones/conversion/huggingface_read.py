"""Read ``ViTModel`` and ``Swinv2Model`` of transformers, whose ``config.json`` says what shapes do not."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from unveil_backbones._json import JSON, choice_of, read_float, read_int, sequence_of
from unveil_backbones.conversion.details import Details, Found, check_swin_room, infer_vit, make_encoder, vit_positions
from unveil_backbones.conversion.huggingface_names import swin_links, vit_links
from unveil_backbones.conversion.ledger import Ledger
from unveil_backbones.errors import ConvertError
from unveil_backbones.specs import Preprocessing
from unveil_backbones.swin_config import SwinConfig, clamped_windows
from unveil_backbones.vit_config import ACTIVATIONS, Activation

__all__ = ["activation", "image_sides", "member", "read_swin", "read_vit"]

_read_activation: Callable[[JSON, str], Activation] = choice_of(ACTIVATIONS)


def read_vit(ledger: Ledger, details: Details, config: Mapping[str, JSON]) -> Found:
    """Read ``ViTModel``, also inside a model for classification or of MAE."""
    table = _ending(ledger, "embeddings.position_embeddings")
    prefix = table.removesuffix("embeddings.position_embeddings")
    cells = ledger.look(table, 3).shape[1] - 1
    patch = f"{prefix}embeddings.patch_embeddings.projection.weight"
    depth = ledger.depth(f"{prefix}encoder.layer.")
    fc1 = f"{prefix}encoder.layer.0.intermediate.dense.weight"
    known = replace(
        details,
        num_heads=details.num_heads or read_int(member(config, "num_attention_heads"), "config.json"),
        image_size=details.image_size or image_sides(config),
    )
    vit = replace(
        infer_vit(ledger, patch, fc1, depth, cells, known),
        qkv_bias=f"{prefix}encoder.layer.0.attention.attention.query.bias" in ledger,
        activation=activation(config),
        norm_epsilon=details.norm_epsilon or read_float(member(config, "layer_norm_eps"), "config.json"),
        pooling=details.pooling or "cls",
    )
    ledger.drop([f"{prefix}pooler.dense.weight", f"{prefix}pooler.dense.bias"], "the pooler, which no encoder here has")
    outer = prefix.removesuffix("vit.")
    ledger.drop([f"{outer}classifier.weight", f"{outer}classifier.bias"], "the classifier")
    decoder = [name for name in ledger.tensors if name.startswith(f"{outer}decoder.")]
    ledger.drop([*decoder, f"{prefix}embeddings.mask_token"], "the decoder and mask token of pre-training")
    vit = vit_positions(ledger, vit, table)
    links = vit_links(vit, prefix)
    if vit.class_position and not ledger.look(table, 3)[:, :1].any():
        # Nothing is added to the class token: a position of it that was never trained is none.
        vit = replace(vit, class_position=False)
        links = [
            replace(link, join=lambda parts: parts[0][:, 1:]) if link.ours == "pos_embed" else link for link in links
        ]
    return Found(
        model=make_encoder(vit, details.arch),
        links=links,
        objective="mae" if config.get("model_type") == "vit_mae" else "unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=vit.image_size)),
        assumed={"pooling": vit.pooling},
    )


def read_swin(ledger: Ledger, details: Details, config: Mapping[str, JSON]) -> Found:
    """Read ``Swinv2Model``, also inside a model for classification."""
    patch = _ending(ledger, "embeddings.patch_embeddings.projection.weight")
    prefix = patch.removesuffix("embeddings.patch_embeddings.projection.weight")
    image_size = details.image_size or image_sides(config)
    window = details.window or read_int(member(config, "window_size"), "config.json.window_size")
    # Given or read, they are checked alike.
    details = replace(details, image_size=image_size, window=window)
    weight = ledger.look(patch, 4)
    wanted = (window,) * 4
    real = clamped_windows(image_size, weight.shape[2], wanted)
    trained = sequence_of(read_int, 4)(config.get("pretrained_window_sizes", [0] * 4), "config.json")
    depths = tuple(ledger.depth(f"{prefix}encoder.layers.{stage}.blocks.") for stage in range(4))
    hidden = ledger.look(f"{prefix}encoder.layers.0.blocks.0.intermediate.dense.weight", 2).shape[0]
    check_swin_room(ledger, weight.shape[0], hidden, depths)
    swin = SwinConfig(
        image_size=image_size,
        width=weight.shape[0],
        depths=depths,
        num_heads=sequence_of(read_int)(member(config, "num_heads"), "config.json.num_heads"),
        window_sizes=wanted,
        # 0 means that the windows of the model are those of its pre-training.
        pretrained_window_sizes=tuple((t, t) if t else window for t, window in zip(trained, real, strict=True)),
        patch_size=weight.shape[2],
        mlp_ratio=hidden / weight.shape[0],
    )
    ledger.drop([f"{prefix}embeddings.mask_token"], "the mask token of pre-training")
    buffers = [name for name in ledger.tensors if re.search(r"\.relative_(coords_table|position_index)$", name)]
    ledger.drop(buffers, "buffers, which are computed from windows and image size")
    outer = prefix.removesuffix("swinv2.")
    ledger.drop([f"{outer}classifier.weight", f"{outer}classifier.bias"], "the classifier")
    return Found(
        model=make_encoder(swin, details.arch),
        links=swin_links(swin, prefix),
        objective="unknown",
        preprocessing=details.preprocessing(Preprocessing(image_size=image_size)),
    )


def member(config: Mapping[str, JSON], name: str) -> JSON:
    """Return a member of ``config.json``.

    Raises:
        ConvertError: It is absent.
    """
    if name not in config:
        raise ConvertError(
            f"config.json has no {name!r}, which the weights do not tell; take the model's own config.json"
        )
    return config[name]


def image_sides(config: Mapping[str, JSON]) -> tuple[int, int]:
    """Return height and width of ``config.json``, which gives one number for a square.

    Raises:
        ConvertError: There is none.
        ManifestError: It is neither a number nor two.
    """
    size = member(config, "image_size")
    rows, cols = (size, size) if isinstance(size, int) else sequence_of(read_int, 2)(size, "config.json.image_size")
    return rows, cols


def activation(config: Mapping[str, JSON]) -> Activation:
    """Return the activation of ``config.json``.

    Raises:
        ManifestError: It is one that no encoder here has.
    """
    return _read_activation(config.get("hidden_act", "gelu"), "config.json.hidden_act")


def _ending(ledger: Ledger, name: str) -> str:
    return ledger.prefix(name) + name
