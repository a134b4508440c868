"""open_clip's models become image-text pairs with their tokenizer, and pairs become folders that open_clip loads."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from unveil_backbones import (
    ConvertError,
    CoverageError,
    ImageTextPair,
    NotAPairError,
    NotExpressibleError,
    Preprocessing,
    TextTower,
    VitEncoder,
    convert,
    ensure_torchvision,
    load,
    load_pair,
    save,
)
from unveil_backbones.pair_presets import PAIR_PRESETS

ensure_torchvision()
open_clip = pytest.importorskip("open_clip", reason="pip install 'unveil-backbones[clip]'")

VISION = {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
CAPTIONS = ["a photo of a red seven", "zwei Dreien über einer Null"]


def peer(*, quick_gelu: bool = False, **text) -> torch.nn.Module:
    torch.manual_seed(0)
    model = open_clip.model.CLIP(24, VISION, {**TEXT, **text}, quick_gelu=quick_gelu)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def agrees(pair, tokenizer, model) -> None:
    images = torch.randn(2, 3, 32, 32)
    ids = open_clip.tokenize(CAPTIONS, context_length=77)
    assert torch.equal(tokenizer(CAPTIONS), ids)
    with torch.no_grad():
        torch.testing.assert_close(
            pair.encode_image(images), model.encode_image(images, normalize=True), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(pair.encode_text(ids), model.encode_text(ids, normalize=True), atol=1e-5, rtol=0)
        torch.testing.assert_close(pair.logit_scale, model.logit_scale, atol=0, rtol=0)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_files_become_pairs_with_the_same_embeddings(tmp_path, quick_gelu, wrapped):
    model = peer(quick_gelu=quick_gelu)
    state = model.state_dict()
    # Training checkpoints hold the state dict of a parallel model; both kinds of file also hold the mask.
    content = {"state_dict": {f"module.{name}": v for name, v in state.items()}, "epoch": 1} if wrapped else state
    torch.save(content, tmp_path / "clip.pt")
    done = convert(tmp_path / "clip.pt", tmp_path / "out", activation="quick_gelu" if quick_gelu else None)
    assert done.source_format == "open_clip"
    pair, tokenizer = load_pair(tmp_path / "out")
    agrees(pair, tokenizer, model)
    manifest = load(tmp_path / "out").manifest
    assert manifest.objective == "clip"
    assert manifest.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
    assert manifest.origin.assumed["activation"] == ("quick_gelu" if quick_gelu else "gelu")


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_the_way_to_open_clip_and_back_is_bit_exact_and_open_clip_itself_agrees(tmp_path, quick_gelu):
    torch.save(peer(quick_gelu=quick_gelu).state_dict(), tmp_path / "clip.pt")
    activation = "quick_gelu" if quick_gelu else "gelu"
    convert(tmp_path / "clip.pt", tmp_path / "ours", activation=activation, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    convert(tmp_path / "ours", tmp_path / "theirs", to="open_clip")
    convert(tmp_path / "theirs", tmp_path / "back")
    pair, tokenizer = load_pair(tmp_path / "ours")
    back, _ = load_pair(tmp_path / "back")
    assert back.encoder.config == pair.encoder.config
    assert back.text.config == pair.text.config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in pair.state_dict().items())
    assert load(tmp_path / "back").manifest.preprocessing == load(tmp_path / "ours").manifest.preprocessing
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'theirs'}")
    agrees(pair, tokenizer, loaded.eval())
    assert [list(step.mean) for step in preprocess.transforms if hasattr(step, "mean")] == [[0.5, 0.4, 0.3]]


def test_the_image_tower_alone_goes_to_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="a dependency of this package")
    model = peer()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    done = convert(tmp_path / "clip.safetensors", tmp_path / "timm", to="timm")
    assert (done.source_format, done.target_format) == ("open_clip", "timm")
    tower = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        projected = torch.nn.functional.normalize(tower(images) @ model.visual.proj, dim=-1)
        torch.testing.assert_close(projected, model.encode_image(images, normalize=True), atol=1e-5, rtol=0)


def test_another_vocabulary_has_no_tokenizer_and_is_no_pair_for_captions(tmp_path):
    torch.save(peer(vocab_size=100).state_dict(), tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "out")
    with pytest.raises(NotAPairError, match="no text tower with projections and tokenizer"):
        load_pair(tmp_path / "out")
    convert(tmp_path / "out", tmp_path / "theirs", to="open_clip")  # the weights are all there


def test_coverage_is_complete_or_refused(tmp_path):
    state = peer().state_dict()
    torch.save({**state, "logit_bias": torch.zeros(())}, tmp_path / "siglip.pt")
    with pytest.raises(CoverageError, match=r"1 tensors neither used nor knowingly dropped \(logit_bias\)"):
        convert(tmp_path / "siglip.pt", tmp_path / "out")
    torch.save({k: v for k, v in state.items() if k != "text_projection"}, tmp_path / "less.pt")
    with pytest.raises(CoverageError, match=r"missing \(text_projection\)"):
        convert(tmp_path / "less.pt", tmp_path / "out")
    torch.save({k: v for k, v in state.items() if not k.startswith("visual.")}, tmp_path / "text.pt")
    with pytest.raises(ConvertError, match="which are of no known format"):
        convert(tmp_path / "text.pt", tmp_path / "out")


def test_pairs_of_another_kind_and_encoders_alone_are_refused(tmp_path, saved, saved_pair):
    path, _, _ = saved_pair
    with pytest.raises(NotExpressibleError, match=r"open_clip writes CLIP's towers; here position is 'sincos'.*causal"):
        convert(path, tmp_path / "one", to="open_clip")
    with pytest.raises(NotExpressibleError, match="needs an image-text pair, this checkpoint has an encoder alone"):
        convert(saved, tmp_path / "two", to="open_clip")


def test_rectangular_images_survive(tmp_path, manifest_for):
    """Beyond open_clip's presets, whose images are squares."""
    preset = PAIR_PRESETS["clip_b32"]
    image = replace(preset.encoder, width=64, depth=1, num_heads=1, image_size=(32, 64))
    text = replace(preset.text, width=64, depth=1, num_heads=1)
    pair = ImageTextPair(VitEncoder(image), TextTower(text), 16).eval()
    manifest = replace(
        manifest_for(pair.encoder, text=pair.text.spec), preprocessing=Preprocessing(image_size=(32, 64))
    )
    save(tmp_path / "ours", encoder=pair.encoder, manifest=manifest, heads=pair.heads_state())
    convert(tmp_path / "ours", tmp_path / "theirs", to="open_clip")
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'theirs'}").eval()
    images = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        expected = loaded.encode_image(images, normalize=True)
        torch.testing.assert_close(pair.encode_image(images), expected, atol=1e-5, rtol=0)
    convert(tmp_path / "theirs", tmp_path / "back")
    assert load(tmp_path / "back").encoder.config.image_size == (32, 64)
