"""The gates before training, on the real detector and segmenter: a tensor renamed, transposed, missing, or too many."""

import copy

import pytest
import torch
from torch import nn
from unveil_evalharness.errors import GateError
from unveil_evalharness.tasks.ade20k_seg import protocols as segmentation
from unveil_evalharness.tasks.coco_det import protocols as detection

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")
pytestmark = pytest.mark.mm


@pytest.fixture(scope="module", params=["coco_det", "ade20k_seg"])
def task(request, load_checkpoint, tmp_path_factory):
    """A task's model around the checkpoint's weights, and that checkpoint's encoder."""
    from unveil_evalharness.compat import third_party_warnings
    from unveil_evalharness.engine.session import session

    checkpoint = load_checkpoint("vit_tiny")
    scope = "mmdet" if request.param == "coco_det" else "mmseg"
    with session(scope=scope, work_dir=tmp_path_factory.mktemp("gates"), seed=0), third_party_warnings():
        options = {"preprocessing": checkpoint.manifest.preprocessing, "num_classes": 3}
        encoder = copy.deepcopy(checkpoint.encoder)
        if request.param == "coco_det":
            from unveil_evalharness.tasks.coco_det.model import build_detector

            return build_detector(encoder, detection.quick_protocol(), **options), checkpoint.encoder
        from unveil_evalharness.tasks.ade20k_seg.model import build_segmenter

        return build_segmenter(encoder, segmentation.quick_protocol(), **options), checkpoint.encoder


@pytest.fixture
def encoder_inside(task):
    """The encoder in the task's model, which is put back as it was."""
    pyramid = task[0].backbone.pyramid
    kept = pyramid.encoder
    pyramid.encoder = copy.deepcopy(kept)
    yield pyramid.encoder
    pyramid.encoder = kept


def check(task):
    from unveil_evalharness.tasks.dense.backbone import check_encoder

    return check_encoder(task[1], task[0], image_size=64)


def test_the_checkpoints_own_encoder_passes(task, encoder_inside):
    assert check(task) == 1.0


def test_a_renamed_tensor_is_missing(task, encoder_inside):
    encoder_inside.norm.register_parameter("scale", encoder_inside.norm.weight)
    encoder_inside.norm.weight = None
    with pytest.raises(GateError, match=r"1 missing: norm\.weight"):
        check(task)


def test_a_transposed_tensor_has_other_values_or_another_shape(task, encoder_inside):
    block = encoder_inside.blocks[0]
    block.attn.proj.weight = nn.Parameter(block.attn.proj.weight.detach().T.contiguous())
    block.mlp.fc1.weight = nn.Parameter(block.mlp.fc1.weight.detach().T.contiguous())
    with pytest.raises(GateError) as raised:
        check(task)
    assert "1 of another shape: blocks.0.mlp.fc1.weight" in str(raised.value)
    assert "1 with other values: blocks.0.attn.proj.weight" in str(raised.value)


def test_a_missing_tensor_is_named(task, encoder_inside):
    encoder_inside.blocks[1].mlp.fc2.bias = None
    with pytest.raises(GateError, match=r"1 missing: blocks\.1\.mlp\.fc2\.bias"):
        check(task)


def test_a_tensor_too_many_is_named(task, encoder_inside):
    encoder_inside.blocks[1].register_parameter("gate", nn.Parameter(torch.zeros(3)))
    with pytest.raises(GateError, match=r"blocks\.1\.gate"):
        check(task)


def test_equal_tensors_used_in_another_way_fail_the_forward_gate(task, encoder_inside):
    """Another activation changes no tensor."""
    encoder_inside.blocks[0].mlp.act = nn.ReLU()
    with pytest.raises(GateError, match="forward parity: feature map 0 differs"):
        check(task)
