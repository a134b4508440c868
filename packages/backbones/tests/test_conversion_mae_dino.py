"""MAE's and DINOv2's own ``.pth``; what timm makes of the same files is the reference."""

import argparse

import numpy as np
import pytest
import timm
import torch
from timm.models.eva import checkpoint_filter_fn as eva_filter
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from unveil_backbones import CheckpointError, ConvertError, CoverageError, NotExpressibleError, convert, load

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}


def sin_cos(rows: int, cols: int, width: int) -> torch.Tensor:
    """Fixed positions in double precision: half of the channels for the column, half for the row, sines first."""
    omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
    y, x = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    parts = [f(np.outer(axis.ravel(), omega)) for axis in (x, y) for f in (np.sin, np.cos)]
    table = np.concatenate(parts, axis=1)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table])).float()[None]


def peer(**options) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{**SIZES, "num_classes": 4, "global_pool": "token", **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def mae_peer() -> VisionTransformer:
    model = peer()
    model.pos_embed.data.copy_(sin_cos(4, 4, 32))
    return model


def body(model: VisionTransformer) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}


def decoder(width: int = 16) -> dict[str, torch.Tensor]:
    """MAE's decoder of one block: names, shapes and fixed positions of its authors."""
    torch.manual_seed(1)
    shapes = {
        "decoder_embed": (width, 32),
        "decoder_blocks.0.norm1": (width,),
        "decoder_blocks.0.attn.qkv": (3 * width, width),
        "decoder_blocks.0.attn.proj": (width, width),
        "decoder_blocks.0.norm2": (width,),
        "decoder_blocks.0.mlp.fc1": (4 * width, width),
        "decoder_blocks.0.mlp.fc2": (width, 4 * width),
        "decoder_norm": (width,),
        "decoder_pred": (192, width),
    }
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    biases = {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    tables = {"mask_token": torch.randn(1, 1, width), "decoder_pos_embed": sin_cos(4, 4, width)}
    return {**weights, **biases, **tables}


def test_mae_pretraining_files(tmp_path):
    model = mae_peer()
    content = {"model": {**body(model), **decoder()}, "epoch": 1599, "args": argparse.Namespace(lr=1e-4)}
    torch.save(content, tmp_path / "mae.pth")
    done = convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4)
    assert done.source_format == "mae"
    reasons = {reason: len(names) for reason, names in done.coverage.dropped.items()}
    assert reasons == {
        "the fixed sine-cosine positions, which are computed": 1,
        "the decoder's fixed positions, which are computed": 1,
    }
    ours = load(tmp_path / "out")
    assert ours.manifest.objective == "mae"
    assert (ours.encoder.config.position, ours.encoder.pooling) == ("sincos", "mean")
    images = torch.randn(2, 3, 32, 32)
    tokens = ours.encoder.encode(ours.encoder.embed(images), (4, 4))
    torch.testing.assert_close(tokens, model.forward_features(images), atol=1e-5, rtol=0)


def test_maes_decoder_is_kept_with_the_settings_of_its_objective(tmp_path):
    content = decoder()
    torch.save({"model": {**body(mae_peer()), **content}}, tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4, decoder_heads=2)
    ours = load(tmp_path / "out")
    assert ours.manifest.objective_settings == {
        "mask_ratio": 0.75,
        "normalise_target": True,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    assert ours.manifest.origin.assumed["decoder_heads"] == 2
    assert len(ours.heads) == len(content) - 1
    assert torch.equal(ours.heads["objective.decoder.mask_token"], content["mask_token"][0, 0])
    assert torch.equal(ours.heads["objective.decoder.predict.weight"], content["decoder_pred.weight"])
    qkv = "blocks.0.attn.qkv.bias"
    assert torch.equal(ours.heads[f"objective.decoder.{qkv}"], content[f"decoder_{qkv}"])


def test_a_decoder_with_learned_positions_is_left_for_a_reason(tmp_path):
    content = {**decoder(), "decoder_pos_embed": torch.randn(1, 17, 16)}
    torch.save({"model": {**body(mae_peer()), **content}}, tmp_path / "mae.pth")
    done = convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4)
    assert done.coverage.dropped["the decoder of pre-training, whose positions are not the fixed ones"]
    ours = load(tmp_path / "out")
    assert (ours.heads, ours.manifest.objective_settings) == ({}, None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("decoder_blocks.0.norm2.bias"), r"missing \(decoder_blocks\.0\.norm2\.bias\)"),
        (lambda state: state.update(decoder_extra=torch.zeros(1)), r"neither used .* \(decoder_extra\)"),
        (
            lambda state: state.update({"decoder_pred.weight": state["decoder_pred.weight"].T.contiguous()}),
            r"decoder_pred\.weight has shape \(16, 192\) instead of \(192, 16\)",
        ),
        (lambda state: state["mask_token"].fill_(float("nan")), r"NaN .* objective\.decoder\.mask_token"),
    ],
)
def test_a_damaged_decoder_is_refused_by_name(tmp_path, damage, message):
    content = {**body(mae_peer()), **decoder()}
    damage(content)
    torch.save(content, tmp_path / "mae.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4)
    assert not (tmp_path / "out").exists()


def test_mae_files_without_decoder_are_timms_unless_the_format_is_given(tmp_path):
    torch.save({"model": body(mae_peer())}, tmp_path / "mae.pth")
    assert convert(tmp_path / "mae.pth", tmp_path / "one", num_heads=4).source_format == "timm"
    assert convert(tmp_path / "mae.pth", tmp_path / "two", num_heads=4, format="mae").source_format == "mae"
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert (one.manifest.objective, two.manifest.objective) == ("unknown", "mae")
    assert all(torch.equal(v, two.encoder.state_dict()[k]) for k, v in one.encoder.state_dict().items())


def test_positions_that_were_trained_stay(tmp_path):
    model = mae_peer()
    model.pos_embed.data.add_(1e-3)
    torch.save({"model": body(model)}, tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4, format="mae")
    encoder = load(tmp_path / "out").encoder
    assert encoder.config.position == "learned"
    assert torch.equal(encoder.state_dict()["pos_embed"], model.pos_embed)


@pytest.mark.parametrize(
    "head",
    [
        {"head.weight": torch.zeros(4, 32), "head.bias": torch.zeros(4)},
        {
            "head.0.running_mean": torch.zeros(32),
            "head.0.running_var": torch.ones(32),
            "head.0.num_batches_tracked": torch.tensor(5),
            "head.1.weight": torch.zeros(4, 32),
            "head.1.bias": torch.zeros(4),
        },
    ],
    ids=["fine-tuned", "linear probe"],
)
def test_mae_classifiers_are_dropped_by_reason(tmp_path, head):
    model = mae_peer()
    torch.save({"model": {**body(model), **head}}, tmp_path / "mae.pth")
    done = convert(tmp_path / "mae.pth", tmp_path / "out", num_heads=4, format="mae")
    assert done.coverage.dropped["the classifier"] == tuple(sorted(head))
    images = torch.randn(2, 3, 32, 32)
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(load(tmp_path / "out").encoder(images), expected, atol=1e-5, rtol=0)


def test_mae_fine_tuned_with_mean_pooling_is_refused_with_its_reason(tmp_path):
    torch.save({"model": {**body(mae_peer()), "fc_norm.weight": torch.zeros(32)}}, tmp_path / "mae.pth")
    with pytest.raises(NotExpressibleError, match=r"norms after pooling \(fc_norm\).*take the pre-training file"):
        convert(tmp_path / "mae.pth", tmp_path / "out", format="mae")


def test_a_table_for_another_grid_asks_for_the_size(tmp_path):
    state = {**body(mae_peer()), "pos_embed": torch.randn(1, 1 + 15, 32)}
    torch.save(state, tmp_path / "mae.pth")
    with pytest.raises(ConvertError, match=r"a table of 15 positions, which is no square; give the image size"):
        convert(tmp_path / "mae.pth", tmp_path / "out", format="mae")
    with pytest.raises(ConvertError, match=r"pos_embed \(1, 16, 32\) for a grid of 8 x 8 and at most one class token"):
        convert(tmp_path / "mae.pth", tmp_path / "out", format="mae", image_size=(64, 64))
    convert(tmp_path / "mae.pth", tmp_path / "out", format="mae", image_size=(24, 40), num_heads=4)
    assert load(tmp_path / "out").encoder.config.image_size == (24, 40)


# -------------------------------------------------------------------------------------------------------------- DINO


def dino_state(model: VisionTransformer, *, chunked: bool, registers: int) -> dict[str, torch.Tensor]:
    state = {name.replace("reg_token", "register_tokens"): value for name, value in body(model).items()}
    if registers:
        # The authors' table has a row for the class token; timm adds it to the token.
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, 32), state["pos_embed"]], dim=1)
    if chunked:
        # Blocks 0 and 1 in one chunk, 2 in the next, numbered through.
        state = {
            (f"blocks.{int(name[7]) // 2}.{name[7:]}" if name.startswith("blocks.") else name): value
            for name, value in state.items()
        }
    return {**state, "mask_token": torch.zeros(1, 32)}


@pytest.mark.parametrize(("chunked", "registers"), [(False, 0), (True, 0), (False, 4), (True, 4)])
def test_dinov2_files(tmp_path, chunked, registers):
    model = peer(init_values=1e-5, num_classes=0, reg_tokens=registers, no_embed_class=registers > 0)
    state = dino_state(model, chunked=chunked, registers=registers)
    head = {"dino_head.mlp.0.weight": torch.zeros(8, 32)}
    teacher = {f"backbone.{name}": value for name, value in state.items()}
    torch.save({"teacher": {**teacher, **head}}, tmp_path / "dino.pth")
    done = convert(tmp_path / "dino.pth", tmp_path / "out", num_heads=4)
    assert done.source_format == "dino"
    assert done.coverage.dropped["the heads of self-distillation"] == ("dino_head.mlp.0.weight",)
    ours = load(tmp_path / "out").encoder
    assert (ours.config.num_registers, ours.config.layer_scale) == (registers, 1e-5)
    images = torch.randn(2, 3, 32, 32)
    tokens = ours.encode(ours.embed(images), (4, 4))
    torch.testing.assert_close(tokens, model.forward_features(images), atol=1e-5, rtol=0)


def test_timms_own_filter_reads_the_same_dinov2_file_alike(tmp_path):
    model = peer(init_values=1e-5, num_classes=0)
    state = dino_state(model, chunked=False, registers=0)
    torch.save(state, tmp_path / "dino.pth")
    convert(tmp_path / "dino.pth", tmp_path / "out", num_heads=4)
    theirs = checkpoint_filter_fn(dict(state), peer(init_values=1e-5, num_classes=0))
    ours = load(tmp_path / "out").encoder.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def dinov3_state(*, gated: bool, biased: bool) -> dict[str, torch.Tensor]:
    """A file of the authors, small in depth only: sizes are those of timm's models, which have 12 blocks."""
    torch.manual_seed(0)
    width, hidden = 384, 1536
    state = {
        "cls_token": torch.randn(1, 1, width),
        "storage_tokens": torch.randn(1, 4, width),
        "mask_token": torch.zeros(1, width),
        "patch_embed.proj.weight": torch.randn(width, 3, 16, 16) * 0.02,
        "patch_embed.proj.bias": torch.randn(width),
        "rope_embed.periods": torch.ones(16),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.randn(width),
    }
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    mlp = {"mlp.w1": (hidden, width), "mlp.w2": (hidden, width), "mlp.w3": (width, hidden)}
    layers |= mlp if gated else {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    for block in range(12):
        stem = f"blocks.{block}."
        for name, shape in layers.items():
            state[f"{stem}{name}.weight"] = torch.randn(shape) * 0.02
            state[f"{stem}{name}.bias"] = torch.randn(shape[0]) * 0.02
        state[f"{stem}attn.qkv.bias"] = torch.randn(3 * width) if biased else torch.zeros(3 * width)
        state[f"{stem}attn.qkv.bias_mask"] = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            state[f"{stem}{name}"] = torch.randn(width) * 0.1 + 1
    return state


@pytest.mark.parametrize(
    ("gated", "biased", "model"),
    [
        (False, True, "vit_small_patch16_dinov3_qkvb"),
        (True, False, "vit_small_plus_patch16_dinov3"),
    ],
)
def test_dinov3_files_become_timms_models_as_timm_itself_reads_them(tmp_path, gated, biased, model):
    state = dinov3_state(gated=gated, biased=biased)
    torch.save(state, tmp_path / "dino.pth")
    done = convert(tmp_path / "dino.pth", tmp_path / "out")
    assert done.source_format == "dino"
    assert done.coverage.assumed["model"] == model
    ours = load(tmp_path / "out")
    assert (ours.manifest.encoder.name, ours.encoder.pooling) == (f"timm:{model}", "cls")
    twin = timm.create_model(model, num_classes=0, img_size=256).eval()
    theirs = eva_filter(dict(state), twin)
    twin.load_state_dict(theirs, strict=True)
    tensors = ours.encoder.state_dict()
    assert theirs.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in theirs.items())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        tokens = ours.encoder.encode(ours.encoder.embed(images), (4, 6))
        torch.testing.assert_close(tokens, twin.forward_features(images), atol=1e-5, rtol=1e-5)


def test_dinov3_that_timm_has_not_is_refused(tmp_path):
    state = dinov3_state(gated=False, biased=True)
    unmasked = {name: value for name, value in state.items() if not name.endswith("bias_mask")}
    torch.save(unmasked, tmp_path / "keys.pth")
    with pytest.raises(NotExpressibleError, match="has biases of keys, which timm's model has not"):
        convert(tmp_path / "keys.pth", tmp_path / "out")
    torch.save({**state, "patch_embed.proj.weight": torch.zeros(40, 3, 16, 16)}, tmp_path / "width.pth")
    with pytest.raises(NotExpressibleError, match="is DINOv3 of width 40; timm has the widths 192, 384"):
        convert(tmp_path / "width.pth", tmp_path / "out")
    torch.save({k: v for k, v in state.items() if "blocks.11" not in k}, tmp_path / "less.pth")
    with pytest.raises(CoverageError, match=r"needed and missing \(blocks\.11\."):
        convert(tmp_path / "less.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("extra", "message"),
    [({"blocks.0.mlp.w12.weight": torch.zeros(8, 32)}, "has gated MLPs")],
)
def test_what_the_encoder_has_not_is_refused_by_name(tmp_path, extra, message):
    torch.save({**dino_state(peer(), chunked=False, registers=0), **extra}, tmp_path / "dino.pth")
    with pytest.raises(NotExpressibleError, match=message):
        convert(tmp_path / "dino.pth", tmp_path / "out")


def test_a_gap_between_blocks_is_refused(tmp_path):
    state = dino_state(peer(init_values=1e-5), chunked=False, registers=0)
    torch.save({k: v for k, v in state.items() if not k.startswith("blocks.1.")}, tmp_path / "dino.pth")
    with pytest.raises(ConvertError, match=r"has the blocks \[0, 2\]; they count from 0 without gaps"):
        convert(tmp_path / "dino.pth", tmp_path / "out")
