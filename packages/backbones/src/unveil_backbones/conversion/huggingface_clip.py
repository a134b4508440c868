"""``CLIPModel`` of transformers."""

from collections.abc import Mapping
from dataclasses import replace

from unveil_backbones._json import JSON, read_float, read_int, read_object
from unveil_backbones.conversion.clip_models import (
    CLIP_MEAN,
    CLIP_STD,
    check_clip_pair,
    clip_tokenizer,
    text_config,
)
from unveil_backbones.conversion.configs import preprocessor_json
from unveil_backbones.conversion.details import Details, Found, Written, infer_vit, make_encoder
from unveil_backbones.conversion.huggingface_names import clip_block_links
from unveil_backbones.conversion.huggingface_read import activation, image_sides, member
from unveil_backbones.conversion.ledger import Ledger, Link, same, spread, with_shape
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.specs import Preprocessing
from unveil_backbones.text import TextTower

__all__ = ["read_clip", "write_clip"]

_VISION, _TEXT = "vision_model.", "text_model."
_TEXT_STEM = "text_model.encoder.layers."


def read_clip(ledger: Ledger, details: Details, config: Mapping[str, JSON]) -> Found:
    """Read ``CLIPModel``."""
    image = read_object(member(config, "vision_config"), "config.json.vision_config")
    caption = read_object(member(config, "text_config"), "config.json.text_config")
    table = ledger.look(f"{_VISION}embeddings.position_embedding.weight", 2)
    stem = f"{_VISION}encoder.layers."
    heads = details.num_heads or read_int(member(image, "num_attention_heads"), "config.json")
    vision = replace(
        infer_vit(
            ledger,
            f"{_VISION}embeddings.patch_embedding.weight",
            f"{stem}0.mlp.fc1.weight",
            ledger.depth(stem),
            table.shape[0] - 1,
            replace(details, num_heads=heads, image_size=details.image_size or image_sides(image)),
        ),
        position="learned",
        class_position=True,
        pre_norm=True,
        patch_bias=False,
        pooling=details.pooling or "cls",
        activation=activation({"hidden_act": "quick_gelu", **image}),
        norm_epsilon=details.norm_epsilon or read_float(image.get("layer_norm_eps", 1e-5), "config.json"),
    )
    tokens = ledger.look(f"{_TEXT}embeddings.token_embedding.weight", 2)
    depth, hidden = ledger.depth(_TEXT_STEM), ledger.look(f"{_TEXT_STEM}0.mlp.fc1.weight", 2).shape[0]
    ledger.check_room(depth * tokens.shape[1] * (4 * tokens.shape[1] + 2 * hidden))
    text = text_config(
        vocab_size=tokens.shape[0],
        length=ledger.look(f"{_TEXT}embeddings.position_embedding.weight", 2).shape[0],
        width=tokens.shape[1],
        depth=depth,
        hidden=hidden,
        num_heads=read_int(member(caption, "num_attention_heads"), "config.json"),
        image=vision,
    )
    numbers = [f"{tower}embeddings.position_ids" for tower in (_VISION, _TEXT)]
    ledger.drop(numbers, "buffers that count positions")
    pair = ImageTextPair(
        make_encoder(vision, details.arch), TextTower(text), ledger.look("visual_projection.weight", 2).shape[0]
    )
    standard = Preprocessing(image_size=vision.image_size, mean=CLIP_MEAN, std=CLIP_STD)
    return Found(
        model=pair,
        links=_links(pair),
        objective="clip",
        preprocessing=details.preprocessing(standard),
        assumed={"pooling": vision.pooling},
        tokenizer_json=clip_tokenizer(text),
    )


def write_clip(model: ImageTextPair, preprocessing: Preprocessing) -> Written:
    """Write a pair of CLIP's kind as ``CLIPModel``.

    Raises:
        NotExpressibleError: It is no pair of CLIP's kind.
    """
    pair, vision, text = check_clip_pair(model, "transformers' CLIPModel")
    height, width = vision.image_size
    config: dict[str, JSON] = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": pair.embed_dim,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "intermediate_size": round(vision.width * vision.mlp_ratio),
            "hidden_act": vision.activation,
            "layer_norm_eps": vision.norm_epsilon,
            "image_size": height if height == width else [height, width],
            "patch_size": vision.patch_size,
            "projection_dim": pair.embed_dim,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "hidden_size": text.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.num_heads,
            "intermediate_size": round(text.width * text.mlp_ratio),
            "hidden_act": text.activation,
            "layer_norm_eps": text.norm_epsilon,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
            "projection_dim": pair.embed_dim,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            "pad_token_id": text.pad_id,
        },
    }
    processor = preprocessor_json("CLIPImageProcessor", preprocessing)
    configs: dict[str, JSON] = {"config.json": config, "preprocessor_config.json": processor}
    return Written(tensors=spread(pair, _links(pair)), configs=configs)


def _links(pair: ImageTextPair) -> list[Link]:
    cells, width = pair.encoder.state_dict()["pos_embed"].shape[1:]
    length, text_width = pair.text.config.length, pair.text.width
    vision, text = f"{_VISION}embeddings.", f"{_TEXT}embeddings."
    links = [
        with_shape("encoder.cls_token", f"{vision}class_embedding", (1, 1, width), (width,)),
        with_shape("encoder.pos_embed", f"{vision}position_embedding.weight", (1, cells, width), (cells, width)),
        same("encoder.patch_embed.proj.weight", f"{vision}patch_embedding.weight"),
        with_shape("text.pos_embed", f"{text}position_embedding.weight", (1, length, text_width), (length, text_width)),
        same("text.token_embed.weight", f"{text}token_embedding.weight"),
        same("image_projection.weight", "visual_projection.weight"),
        same("text_projection.weight", "text_projection.weight"),
        with_shape("raw_logit_scale", "logit_scale", (), ()),
    ]
    for part in ("weight", "bias"):
        # The misspelt name is the layout's.
        links.append(same(f"encoder.norm_pre.{part}", f"{_VISION}pre_layrnorm.{part}"))
        links.append(same(f"encoder.norm.{part}", f"{_VISION}post_layernorm.{part}"))
        links.append(same(f"text.norm.{part}", f"{_TEXT}final_layer_norm.{part}"))
    links += clip_block_links(len(pair.encoder.block_names()), "encoder.blocks.", f"{_VISION}encoder.layers.")
    links += clip_block_links(pair.text.config.depth, "text.blocks.", f"{_TEXT}encoder.layers.")
    return links
