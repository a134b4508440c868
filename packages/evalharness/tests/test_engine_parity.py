"""Both gates pass on the encoder itself and refuse a renamed, transposed, missing or changed one."""

import copy

import pytest
import torch
from torch import nn
from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image
from unveil_evalharness.errors import GateError


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 2, stride=2)
        self.second = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def features(self, images):
        small = self.first(images)
        return [small, self.drop(self.second(small.movedim(1, -1)).movedim(-1, 1))]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder()


@pytest.fixture
def model(encoder):
    """A task model that holds a copy of the encoder under another name."""
    return nn.ModuleDict({"backbone": copy.deepcopy(encoder), "head": nn.Linear(4, 2)})


def coverage(encoder, state):
    return check_load_coverage(encoder.state_dict(), state, prefix="backbone.")


def parity(encoder, model, features=None):
    return check_forward_parity(
        encoder,
        model,
        reference_features=encoder.features,
        task_features=features or model["backbone"].features,
        image=probe_image(8, 8),
    )


def test_an_unchanged_copy_passes_both_gates(encoder, model):
    assert coverage(encoder, model.state_dict()) == 1.0
    assert parity(encoder, model) == 0.0


def test_a_missing_tensor_is_named(encoder, model):
    state = dict(model.state_dict())
    del state["backbone.second.bias"]
    with pytest.raises(GateError, match=r"coverage 0\.7500 .* 1 missing: second\.bias"):
        coverage(encoder, state)


def test_a_renamed_tensor_is_named(encoder, model):
    state = dict(model.state_dict())
    state["backbone.stem.weight"] = state.pop("backbone.first.weight")
    with pytest.raises(GateError, match=r"1 missing: first\.weight; 1 not in the checkpoint: stem\.weight"):
        coverage(encoder, state)


def test_a_tensor_that_the_checkpoint_has_not_is_named(encoder, model):
    model["backbone"].adapter = nn.Linear(4, 4, bias=False)
    with pytest.raises(GateError, match=r"coverage 0\.8000 .* 1 not in the checkpoint: adapter\.weight"):
        coverage(encoder, model.state_dict())


def test_what_stands_beside_the_encoder_is_no_business_of_the_gate(encoder, model):
    model["neck"] = nn.Linear(2, 2)
    assert coverage(encoder, model.state_dict()) == 1.0


def test_a_transposed_square_tensor_has_other_values(encoder, model):
    with torch.no_grad():
        model["backbone"].second.weight.copy_(encoder.second.weight.T)
    with pytest.raises(GateError, match=r"1 with other values: second\.weight"):
        coverage(encoder, model.state_dict())
    with pytest.raises(GateError, match="feature map 1 differs by"):
        parity(encoder, model)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(encoder, model):
    model["backbone"].first = nn.Conv2d(3, 5, 2)
    with pytest.raises(GateError, match=r"first\.weight \(4, 3, 2, 2\) became \(5, 3, 2, 2\)"):
        coverage(encoder, model.state_dict())


def test_a_checkpoint_without_tensors_is_refused():
    with pytest.raises(GateError, match="holds no tensor"):
        check_load_coverage({}, {})


def test_many_lost_tensors_are_counted_and_the_first_five_named():
    expected = {f"layer{number}": torch.ones(1) for number in range(9)}
    with pytest.raises(GateError, match=r"9 missing: layer0, layer1, layer2, layer3, layer4;") as caught:
        check_load_coverage(expected, {})
    assert "layer5" not in str(caught.value)


def test_a_forward_path_with_another_normalisation_is_refused(encoder, model):
    with pytest.raises(GateError, match="feature map 0 differs by"):
        parity(encoder, model, lambda image: model["backbone"].features(image * 1.01))


def test_a_lost_feature_map_is_refused(encoder, model):
    with pytest.raises(GateError, match="gives 2 feature maps, the task 1"):
        parity(encoder, model, lambda image: model["backbone"].features(image)[1:])


def test_a_feature_map_of_another_shape_is_refused(encoder, model):
    with pytest.raises(GateError, match=r"feature map 0 is \(1, 4, 4, 4\) .* \(1, 4, 2, 4\)"):
        parity(encoder, model, lambda image: [m[:, :, :2] for m in model["backbone"].features(image)])


def test_not_a_number_is_refused(encoder, model):
    with pytest.raises(GateError, match="differs by nan"):
        parity(encoder, model, lambda image: [m * float("nan") for m in model["backbone"].features(image)])


def test_the_gates_leave_training_modes_as_they_were(encoder, model):
    model.train()
    model["backbone"].first.eval()
    encoder.eval()
    parity(encoder, model)
    assert model.training
    assert model["backbone"].drop.training
    assert not model["backbone"].first.training
    assert not encoder.training


def test_the_probe_image_is_always_the_same_and_has_no_symmetry():
    image = probe_image(4, 6)
    assert torch.equal(image, probe_image(4, 6))
    assert not torch.equal(image, image.flip(-1))
    assert not torch.equal(image, image.flip(-2))
