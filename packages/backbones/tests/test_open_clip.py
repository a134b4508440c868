"""CLIP pairs against open_clip: outputs and gradients on equal weights, and numbers recorded from it once."""

import pytest
import torch
from golden_names import open_clip_name
from torch import Tensor
from unveil_backbones import ImageTextPair, TextConfig, TextTower, VitConfig, VitEncoder, create, ensure_torchvision

EMBED = 20
IDS = torch.tensor([[48, 5, 6, 7, 49, 0, 0, 0, 0, 0], [48, 49, 0, 0, 0, 0, 0, 0, 0, 0], [48, *range(1, 9), 49]])


def small_pair(activation: str) -> ImageTextPair:
    image = VitConfig(
        image_size=(24, 24),
        patch_size=8,
        width=32,
        depth=3,
        num_heads=4,
        position="learned",
        class_position=True,
        pooling="cls",
        pre_norm=True,
        patch_bias=False,
        activation=activation,
        norm_epsilon=1e-5,
    )
    text = TextConfig(
        vocab_size=50,
        length=10,
        width=24,
        depth=2,
        num_heads=3,
        causal=True,
        pooling="eot",
        activation=activation,
        norm_epsilon=1e-5,
    )
    return ImageTextPair(VitEncoder(image), TextTower(text), EMBED).eval()


def peer(activation: str) -> torch.nn.Module:
    """open_clip's model of the same shape."""
    ensure_torchvision()
    model = pytest.importorskip("open_clip.model", reason="pip install 'unveil-backbones[clip]'")
    vision = {"image_size": 24, "patch_size": 8, "width": 32, "layers": 3, "head_width": 8}
    text = {"context_length": 10, "vocab_size": 50, "width": 24, "heads": 3, "layers": 2}
    return model.CLIP(EMBED, vision, text, quick_gelu=activation == "quick_gelu").eval()


def as_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors, weights or gradients, under open_clip's names and in its shapes."""
    renamed = {}
    for name, tensor in tensors.items():
        theirs = open_clip_name(name)
        if theirs in ("visual.proj", "text_projection"):
            tensor = tensor.T
        elif theirs == "visual.class_embedding":
            tensor = tensor[0, 0]
        elif theirs.endswith("positional_embedding"):
            tensor = tensor[0]
        renamed[theirs] = tensor
    return renamed


def weigh(*vectors: Tensor) -> Tensor:
    """A scalar whose gradient reaches every number of every vector differently."""
    return sum((vector * torch.linspace(-1, 2, vector.numel()).view_as(vector)).sum() for vector in vectors)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("optimised", [True, False])
def test_outputs_and_gradients_are_open_clips(activation, optimised):
    ours, theirs = small_pair(activation), peer(activation)
    if not optimised:
        ours.encoder.set_optimisations([])
        ours.text.set_optimisations([])
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(as_open_clip(ours.state_dict()))
    images = torch.randn(3, 3, 24, 24)
    found = (ours.encode_image(images), ours.encode_text(IDS), ours.raw_logit_scale)
    wanted = (theirs.encode_image(images, normalize=True), theirs.encode_text(IDS, normalize=True), theirs.logit_scale)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5
    weigh(*found).backward()
    weigh(*wanted).backward()
    gradients = as_open_clip({name: parameter.grad for name, parameter in ours.named_parameters()})
    assert gradients.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-5 * max(1, parameter.grad.abs().max()), name


def test_this_comparison_would_notice_another_activation():
    ours, theirs = small_pair("gelu"), peer("quick_gelu")
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(as_open_clip(ours.state_dict()))
    assert (ours.encode_text(IDS) - theirs.encode_text(IDS, normalize=True)).abs().max() > 1e-4


@pytest.mark.slow
def test_the_named_pair_is_open_clips_model_of_full_size():
    ensure_torchvision()
    open_clip = pytest.importorskip("open_clip", reason="pip install 'unveil-backbones[clip]'")
    ours, theirs = create("clip_b32").eval(), open_clip.create_model("ViT-B-32", pretrained=None).eval()
    theirs.load_state_dict(as_open_clip(ours.state_dict()))
    images, ids = torch.randn(2, 3, 224, 224), open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat", "two"])
    with torch.no_grad():
        assert (ours.encode_image(images) - theirs.encode_image(images, normalize=True)).abs().max() <= 1e-5
        assert (ours.encode_text(ids) - theirs.encode_text(ids, normalize=True)).abs().max() <= 1e-5


def fill(pair: ImageTextPair) -> ImageTextPair:
    """Weights by a formula, so that recorded numbers need no file and no random generator."""
    pair = pair.double()
    with torch.no_grad():
        for index, (name, parameter) in enumerate(sorted(pair.named_parameters())):
            place = torch.arange(parameter.numel(), dtype=torch.float64)
            scattered = torch.frac(1e4 * torch.sin(12.9898 * place + 78.233 * index))
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_((is_gain + 0.3 * scattered).view_as(parameter))
    return pair


IMAGES = torch.sin(0.01 * torch.arange(2 * 3 * 24 * 24, dtype=torch.float64) ** 1.5).view(2, 3, 24, 24)

# First four numbers of the vectors of the first and last sample: images, then captions. Made once with open_clip_torch
# 3.3.0 and torch 2.13.0 in float64: peer(activation).double() with the weights of as_open_clip(fill(small_pair(...))),
# encode_image(IMAGES, normalize=True)[i, :4] and encode_text(IDS, normalize=True)[i, :4].
GOLDEN = {
    "gelu": [
        [-0.17574234391, 0.194141564209, 0.0561746799, 0.330640049865],
        [-0.223945479574, 0.184810931309, 0.068160492391, 0.291659657644],
        [0.235415119815, -0.452741610909, -0.095339815111, 0.275525065725],
        [0.281365320079, -0.443963213594, -0.070306795849, 0.182837588325],
    ],
    "quick_gelu": [
        [-0.176447081981, 0.19129737554, 0.054712325267, 0.33003160215],
        [-0.225484177693, 0.182107093764, 0.066380659099, 0.290999547909],
        [0.235551786032, -0.452429548763, -0.095561173877, 0.275877957825],
        [0.280953987817, -0.444007464405, -0.070954734576, 0.182792611357],
    ],
}


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_numbers_recorded_from_open_clip(activation):
    pair = fill(small_pair(activation))
    images, captions = pair.encode_image(IMAGES), pair.encode_text(IDS)
    rows = [images[0, :4], images[-1, :4], captions[0, :4], captions[-1, :4]]
    others = GOLDEN["gelu" if activation == "quick_gelu" else "quick_gelu"]
    for row, recorded, of_the_other in zip(rows, GOLDEN[activation], others, strict=True):
        assert row.tolist() == pytest.approx(recorded, abs=1e-9)
        assert row.tolist() != pytest.approx(of_the_other, abs=1e-9)
