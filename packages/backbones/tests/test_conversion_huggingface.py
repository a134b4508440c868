"""Hugging Face's layouts: the way there and back is bit-exact, and transformers, where installed, agrees in outputs."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from unveil_backbones import (
    ConvertError,
    ImageTextPair,
    NotExpressibleError,
    Preprocessing,
    SwinConfig,
    SwinEncoder,
    TensorMismatchError,
    TextConfig,
    TextTower,
    VitConfig,
    VitEncoder,
    convert,
    load,
    save,
)

PLAIN = VitConfig(image_size=(32, 32), patch_size=8, width=32, depth=2, num_heads=4)
CONFIGS = {
    "mae": PLAIN,
    "deit": replace(PLAIN, position="learned", class_position=True, norm_epsilon=1e-12),
    "patch positions only": replace(PLAIN, position="learned", image_size=(32, 48)),
    "no bias": replace(PLAIN, qkv_bias=False, mlp_ratio=3.0),
    "swin": SwinConfig(
        image_size=(64, 64),
        width=32,
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 4, 8),
        window_sizes=(4, 4, 4, 4),
        pretrained_window_sizes=((8, 8), (8, 8), (4, 4), (2, 2)),
    ),
}
IMAGE = VitConfig(
    image_size=(32, 32),
    patch_size=8,
    width=32,
    depth=2,
    num_heads=4,
    position="learned",
    class_position=True,
    pooling="cls",
    pre_norm=True,
    patch_bias=False,
    activation="quick_gelu",
    norm_epsilon=1e-5,
)
TEXT = TextConfig(
    vocab_size=60,
    length=12,
    width=24,
    depth=2,
    num_heads=3,
    causal=True,
    pooling="eot",
    activation="quick_gelu",
    norm_epsilon=1e-5,
)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def encoder_of(config):
    return shaken(VitEncoder(config) if isinstance(config, VitConfig) else SwinEncoder(config))


@pytest.fixture
def exported(tmp_path, manifest_for):
    """Saves a model as ours, writes it for transformers, and returns the folder."""

    def make(model):
        pair = model if isinstance(model, ImageTextPair) else None
        encoder = model if pair is None else pair.encoder
        manifest = manifest_for(encoder, text=None if pair is None else pair.text.spec)
        preprocessing = Preprocessing(image_size=encoder.config.image_size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        manifest = replace(manifest, preprocessing=replace(preprocessing, interpolation="bilinear"))
        save(tmp_path / "ours", encoder=encoder, manifest=manifest, heads=None if pair is None else pair.heads_state())
        convert(tmp_path / "ours", tmp_path / "theirs", to="huggingface")
        return tmp_path / "theirs"

    return make


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="pip install transformers, to compare with it")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_way_there_and_back_is_bit_exact(tmp_path, exported, config):
    encoder = encoder_of(config)
    folder = exported(encoder)
    done = convert(folder, tmp_path / "back", pooling=getattr(config, "pooling", None))
    assert done.source_format == "huggingface"
    back = load(tmp_path / "back")
    assert back.encoder.config == config
    assert back.encoder.state_dict().keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, back.encoder.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert back.manifest.preprocessing == load(tmp_path / "ours").manifest.preprocessing


def test_pairs_there_and_back_are_bit_exact(tmp_path, exported):
    pair = shaken(ImageTextPair(VitEncoder(IMAGE), TextTower(TEXT), 20))
    convert(exported(pair), tmp_path / "back")
    back = load(tmp_path / "back")
    assert back.encoder.config == IMAGE
    assert back.manifest.text.config == TEXT.to_json()
    state = {**{f"encoder.{k}": v for k, v in back.encoder.state_dict().items()}}
    state |= {name.removeprefix("pair."): value for name, value in back.heads.items()}
    assert state.keys() == pair.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in pair.state_dict().items())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_transformers_loads_the_folder_and_agrees(exported, transformers, config):
    encoder = encoder_of(config)
    model, info = transformers.AutoModel.from_pretrained(
        exported(encoder),
        output_loading_info=True,
        local_files_only=True,
    )
    assert {name for name in info["missing_keys"] if "pooler" not in name} == set()
    assert not info["unexpected_keys"]
    images = torch.randn(2, 3, *config.image_size)
    grid = encoder.grid(*config.image_size)
    with torch.no_grad():
        theirs = model.eval()(images).last_hidden_state
        torch.testing.assert_close(encoder.encode(encoder.embed(images), grid), theirs, atol=1e-5, rtol=0)


def test_transformers_loads_pairs_and_agrees(exported, transformers):
    pair = shaken(ImageTextPair(VitEncoder(IMAGE), TextTower(TEXT), 20))
    model = transformers.CLIPModel.from_pretrained(exported(pair), local_files_only=True).eval()
    images = torch.randn(2, 3, 32, 32)
    ids = torch.tensor([[58, 5, 6, 7, 59, 0, 0, 0, 0, 0, 0, 0], [58, 59, *[0] * 10]])
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=images)
        torch.testing.assert_close(pair.encode_image(images), theirs.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(pair.encode_text(ids), theirs.text_embeds, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTMAEForPreTraining", "Swinv2ForImageClassification"])
def test_models_with_heads_of_transformers_are_read(tmp_path, transformers, kind):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    swin = {"embed_dim": 32, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "image_size": 64}
    configs = {
        "ViTForImageClassification": lambda: transformers.ViTConfig(image_size=32, patch_size=8, **small),
        "ViTMAEForPreTraining": lambda: transformers.ViTMAEConfig(image_size=32, patch_size=8, **small, **decoder),
        "Swinv2ForImageClassification": lambda: transformers.Swinv2Config(**swin),
    }
    model = shaken(getattr(transformers, kind)(configs[kind]()))
    model.save_pretrained(tmp_path / "theirs")
    done = convert(tmp_path / "theirs", tmp_path / "out")
    assert done.source_format == "huggingface"
    encoder = load(tmp_path / "out").encoder
    if kind == "ViTMAEForPreTraining":
        assert load(tmp_path / "out").manifest.objective == "mae"
        return  # it shuffles tokens; equal names and shapes, and the plain model's outputs below, have to do
    body = model.vit if hasattr(model, "vit") else model.swinv2
    size = encoder.config.image_size
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = encoder.encode(encoder.embed(images), encoder.grid(*size))
        torch.testing.assert_close(ours, body(images).last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(PLAIN, position="learned", class_token=False), "class_token is False instead of True"),
        (replace(PLAIN, layer_scale=1e-5), "layer_scale is 1e-05 instead of None"),
        (replace(CONFIGS["swin"], window_sizes=(4, 4, 4, 2)), "has one window"),
    ],
)
def test_what_transformers_cannot_say_is_refused(exported, config, message):
    with pytest.raises(NotExpressibleError, match=message):
        exported(encoder_of(config))


def test_the_configuration_beside_the_weights_is_needed_and_checked(tmp_path, exported):
    folder = exported(encoder_of(PLAIN))
    config = json.loads((folder / "config.json").read_text())
    for members, message in (
        ({"model_type": "bert"}, "model_type 'bert' in the config.json beside it; vit, vit_mae, swinv2 and clip"),
        ({"num_attention_heads": "many"}, "is 'many'; it has to be an integer"),
        ({"num_attention_heads": 5}, "width 32 with 5 heads"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **members}))
        with pytest.raises(ConvertError, match=message):
            convert(folder, tmp_path / "back")
    del config["layer_norm_eps"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConvertError, match=r"config\.json has no 'layer_norm_eps'"):
        convert(folder, tmp_path / "back")
    (folder / "config.json").unlink()
    with pytest.raises(ConvertError, match=r"put the model's config\.json into the same folder"):
        convert(folder, tmp_path / "back")


def test_impossible_heads_are_refused(tmp_path, exported):
    folder = exported(encoder_of(CONFIGS["swin"]))
    config = json.loads((folder / "config.json").read_text())
    for heads in ([-1, 2, 4, 8], [0, 2, 4, 8], [1, 2]):
        (folder / "config.json").write_text(json.dumps({**config, "num_heads": heads}))
        with pytest.raises(ConvertError):
            convert(folder, tmp_path / "back")


def test_weights_in_several_files_are_refused(tmp_path, exported):
    folder = exported(encoder_of(PLAIN))
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConvertError, match="holds weights in several files"):
        convert(folder, tmp_path / "back")


def test_three_projections_of_different_shapes_are_refused(tmp_path, exported):
    folder = exported(encoder_of(PLAIN))
    tensors = load_file(folder / "model.safetensors")
    stem = "encoder.layer.0.attention.attention."
    tensors[f"{stem}query.weight"], tensors[f"{stem}key.weight"] = torch.zeros(48, 32), torch.zeros(16, 32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TensorMismatchError, match="have different shapes; they are parts of one tensor"):
        convert(folder, tmp_path / "back")
