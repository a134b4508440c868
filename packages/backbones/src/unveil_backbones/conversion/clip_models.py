"""open_clip's CLIP models: both towers, projections and temperature become an image-text pair, and back.

Files of open_clip and of OpenAI have the same names; theirs are PyTorch's ``MultiheadAttention`` and two matrices that
multiply from the right. Written files are those of open_clip's ``local-dir:`` models.
"""

from collections.abc import Callable
from dataclasses import replace

from unveil_backbones._json import JSON
from unveil_backbones.base import Encoder
from unveil_backbones.conversion.configs import Configs, open_clip_details
from unveil_backbones.conversion.details import Details, Found, Written, infer_vit, make_encoder
from unveil_backbones.conversion.ledger import Ledger, Link, same, spread, transposed, with_shape
from unveil_backbones.errors import NotExpressibleError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing
from unveil_backbones.text import TextConfig, TextTower
from unveil_backbones.tokenizer_bpe import BpeTokenizer
from unveil_backbones.vit_config import VitConfig

__all__ = ["CLIP_MEAN", "CLIP_STD", "check_clip_pair", "clip_tokenizer", "pair_links", "read", "text_config", "write"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_VOCABULARY = 49408
"""Byte pieces, merges and two marks of CLIP's vocabulary."""

_BLOCK = {
    "norm1.weight": "ln_1.weight",
    "norm1.bias": "ln_1.bias",
    "attn.qkv.weight": "attn.in_proj_weight",
    "attn.qkv.bias": "attn.in_proj_bias",
    "attn.proj.weight": "attn.out_proj.weight",
    "attn.proj.bias": "attn.out_proj.bias",
    "norm2.weight": "ln_2.weight",
    "norm2.bias": "ln_2.bias",
    "mlp.fc1.weight": "mlp.c_fc.weight",
    "mlp.fc1.bias": "mlp.c_fc.bias",
    "mlp.fc2.weight": "mlp.c_proj.weight",
    "mlp.fc2.bias": "mlp.c_proj.bias",
}
"""Tensors of a block: ours, theirs."""


def read(ledger: Ledger, details: Details, configs: Configs) -> Found:
    """Read a CLIP model of open_clip or OpenAI with a Vision Transformer; ``open_clip_config.json`` tells the details.

    Raises:
        ConvertError: A detail has to be given, or it is another kind of model.
    """
    prefix = ledger.prefix("visual.conv1.weight")
    described, text_heads = open_clip_details(configs)
    known = details.completed(described)
    patch, fc1 = f"{prefix}visual.conv1.weight", f"{prefix}visual.transformer.resblocks.0.mlp.c_fc.weight"
    table = ledger.look(f"{prefix}visual.positional_embedding", 2)
    depth = ledger.depth(f"{prefix}visual.transformer.resblocks.")
    config = replace(
        infer_vit(ledger, patch, fc1, depth, table.shape[0] - 1, known),
        position="learned",
        class_position=True,
        pre_norm=True,
        patch_bias=False,
        pooling=known.pooling or "cls",
        activation=known.activation or "gelu",
        norm_epsilon=details.norm_epsilon or 1e-5,
    )
    ledger.drop([f"{prefix}attn_mask"], "the causal mask, which is computed")
    sizes = [prefix + name for name in ("input_resolution", "context_length", "vocab_size")]
    ledger.drop(sizes, "sizes, which the shapes tell")
    text = TextTower(_read_text(ledger, prefix, config, text_heads))
    # The projection is stored [width, embed_dim].
    pair = ImageTextPair(make_encoder(config, details.arch), text, ledger.look(f"{prefix}visual.proj", 2).shape[1])
    standard = Preprocessing(image_size=config.image_size, mean=CLIP_MEAN, std=CLIP_STD)
    return Found(
        model=pair,
        links=pair_links(pair, prefix),
        objective="clip",
        preprocessing=known.preprocessing(standard),
        assumed={
            "num_heads": config.num_heads,
            "text_heads": text.config.num_heads,
            "norm_epsilon": config.norm_epsilon,
            "activation": config.activation,
            "pooling": config.pooling,
        },
        tokenizer_json=clip_tokenizer(text.config),
    )


def write(model: Encoder | ImageTextPair, preprocessing: Preprocessing) -> Written:
    """Write an image-text pair for open_clip.

    Raises:
        NotExpressibleError: It is no pair of CLIP's kind.
    """
    pair, vision, text = check_clip_pair(model, "open_clip")
    tensors = spread(pair, pair_links(pair, ""))
    height, width = vision.image_size
    config: dict[str, JSON] = {
        "embed_dim": pair.embed_dim,
        "quick_gelu": vision.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": height if height == width else [height, width],
            "layers": vision.depth,
            "width": vision.width,
            "head_width": vision.width // vision.num_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.mlp_ratio,
        },
        "text_cfg": {
            "context_length": text.length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.num_heads,
            "layers": text.depth,
            "mlp_ratio": text.mlp_ratio,
        },
    }
    preprocess: dict[str, JSON] = {
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
    }
    return Written(
        tensors=tensors,
        configs={"open_clip_config.json": {"model_cfg": config, "preprocess_cfg": preprocess}},
        weights_name="open_clip_model.safetensors",
    )


def check_clip_pair(model: Encoder | ImageTextPair, layout: str) -> tuple[ImageTextPair, VitConfig, TextConfig]:
    """Return the pair and its configurations if both towers are CLIP's.

    Raises:
        NotExpressibleError: They are not; says in what.
    """
    if not isinstance(model, ImageTextPair):
        raise NotExpressibleError(
            f"{layout} needs an image-text pair, this checkpoint has an encoder alone; export to timm"
        )
    vision, text = model.encoder.config, model.text.config
    if not isinstance(vision, VitConfig):
        raise NotExpressibleError(f"{layout} writes Vision Transformers; this is {model.encoder.spec.name}")
    wanted: tuple[tuple[str, object, object], ...] = (
        ("position", vision.position, "learned"),
        ("class_position", vision.class_position, True),
        ("pre_norm", vision.pre_norm, True),
        ("patch_bias", vision.patch_bias, False),
        ("qkv_bias", vision.qkv_bias, True),
        ("pooling", vision.pooling, "cls"),
        ("num_registers", vision.num_registers, 0),
        ("layer_scale", vision.layer_scale, None),
        ("norm_epsilon", vision.norm_epsilon, 1e-5),
        ("causal", text.causal, True),
        ("text pooling", text.pooling, "eot"),
        ("text norm_epsilon", text.norm_epsilon, 1e-5),
        ("text activation", text.activation, vision.activation),
    )
    other = [f"{name} is {given!r} instead of {value!r}" for name, given, value in wanted if given != value]
    if other:
        raise NotExpressibleError(
            f"{layout} writes CLIP's towers; here {'; '.join(other)}; its results would change; "
            "export the encoder to timm"
        )
    return model, vision, text


def pair_links(pair: ImageTextPair, prefix: str) -> list[Link]:
    """Link all tensors of a CLIP pair to open_clip's names."""
    cells, width = pair.encoder.state_dict()["pos_embed"].shape[1:]
    length, text_width = pair.text.config.length, pair.text.width
    visual = f"{prefix}visual."
    links = [
        with_shape("encoder.cls_token", f"{visual}class_embedding", (1, 1, width), (width,)),
        with_shape("encoder.pos_embed", f"{visual}positional_embedding", (1, cells, width), (cells, width)),
        same("encoder.patch_embed.proj.weight", f"{visual}conv1.weight"),
        with_shape("text.pos_embed", f"{prefix}positional_embedding", (1, length, text_width), (length, text_width)),
        same("text.token_embed.weight", f"{prefix}token_embedding.weight"),
        transposed("image_projection.weight", f"{visual}proj"),
        transposed("text_projection.weight", f"{prefix}text_projection"),
        with_shape("raw_logit_scale", f"{prefix}logit_scale", (), ()),
    ]
    for part in ("weight", "bias"):
        links.append(same(f"encoder.norm_pre.{part}", f"{visual}ln_pre.{part}"))
        links.append(same(f"encoder.norm.{part}", f"{visual}ln_post.{part}"))
        links.append(same(f"text.norm.{part}", f"{prefix}ln_final.{part}"))
    links += block_links(len(pair.encoder.block_names()), "encoder.blocks.", f"{visual}transformer.resblocks.", same)
    links += block_links(pair.text.config.depth, "text.blocks.", f"{prefix}transformer.resblocks.", same)
    return links


def block_links(depth: int, ours: str, theirs: str, link: Callable[[str, str], Link]) -> list[Link]:
    """Link the tensors of all blocks below two stems."""
    return [
        link(f"{ours}{index}.{our}", f"{theirs}{index}.{their}")
        for index in range(depth)
        for our, their in _BLOCK.items()
    ]


def text_config(
    *, vocab_size: int, length: int, width: int, depth: int, hidden: int, num_heads: int | None, image: VitConfig
) -> TextConfig:
    """Return the configuration of CLIP's text tower beside an image tower; its heads are 64 wide if not given."""
    return TextConfig(
        vocab_size=vocab_size,
        length=length,
        width=width,
        depth=depth,
        num_heads=num_heads or max(1, width // 64),
        mlp_ratio=hidden / width,
        causal=True,
        pooling="eot",
        activation=image.activation,
        norm_epsilon=image.norm_epsilon,
    )


def _read_text(ledger: Ledger, prefix: str, image: VitConfig, num_heads: int | None) -> TextConfig:
    tokens, positions = (ledger.look(prefix + name, 2) for name in ("token_embedding.weight", "positional_embedding"))
    stem = f"{prefix}transformer.resblocks."
    hidden, depth = ledger.look(f"{stem}0.mlp.c_fc.weight", 2), ledger.depth(stem)
    vocab_size, width = tokens.shape
    ledger.check_room(depth * width * (4 * width + 2 * hidden.shape[0]))
    return text_config(
        vocab_size=vocab_size,
        length=positions.shape[0],
        width=width,
        depth=depth,
        hidden=hidden.shape[0],
        num_heads=num_heads,
        image=image,
    )


def clip_tokenizer(text: TextConfig) -> str | None:
    """CLIP's own tokenizer if the vocabulary has its size; else none, and captions cannot be evaluated."""
    return BpeTokenizer.from_open_clip(text.length).to_json() if text.vocab_size == _VOCABULARY else None
