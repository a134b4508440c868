"""The bookkeeping of conversions: links undo themselves, and a tensor cannot be lost without a word."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from unveil_backbones.conversion.ledger import Ledger, fill_linked, same, spread, stacked, transposed, with_shape
from unveil_backbones.errors import CoverageError, TensorMismatchError

SIDES = st.integers(1, 6)


@given(rows=SIDES, cols=SIDES, parts=st.integers(1, 4))
def test_links_undo_themselves_exactly(rows, cols, parts):
    tensor = torch.randn(parts * rows, cols)
    names = tuple("abcd"[:parts])
    for link in (
        same("x", "a"),
        stacked("x", names),
        transposed("x", "a"),
        with_shape("x", "a", (parts * rows, cols), (1, parts * rows, cols)),
    ):
        assert len(link.theirs) == len(link.split(tensor))
        assert torch.equal(link.join(link.split(tensor)), tensor)


@given(depth=st.integers(1, 5), stem=st.sampled_from(["blocks.", "a.b.layers."]))
def test_blocks_are_counted(depth, stem):
    names = [f"{stem}{index}.weight" for index in range(depth)]
    ledger = Ledger(dict.fromkeys([*names, f"{stem}norm.weight", "other.9.weight"], torch.zeros(1)), "file")
    assert ledger.depth(stem) == depth


def test_absurd_block_numbers_do_not_count():
    assert Ledger({"blocks.99999999.weight": torch.zeros(1)}, "file").depth("blocks.") == 0


def linear_links():
    return [same("weight", "w"), same("bias", "b")]


def test_everything_used_is_accepted_and_reported():
    ledger = Ledger({"w": torch.ones(2, 3), "b": torch.ones(2), "head": torch.ones(1)}, "file")
    ledger.drop(["head", "not there"], "the classifier")
    model = nn.Linear(3, 2)
    fill_linked(model, linear_links(), ledger)
    assert model.weight.sum() == 6
    assert ledger.num_used == 2
    assert ledger.dropped == {"the classifier": ("head",)}
    assert spread(model, linear_links()).keys() == {"w", "b"}


@pytest.mark.parametrize(
    ("tensors", "links", "message"),
    [
        ({"w": (2, 3), "b": (2,), "more": (1,)}, linear_links(), r"1 tensors neither used .* \(more\)"),
        ({"w": (2, 3)}, linear_links(), r"1 needed and missing \(b\)"),
        ({"w": (2, 3), "b": (2,)}, linear_links()[:1], r"needed and missing \(bias\)"),
    ],
    ids=["left over", "missing there", "not linked"],
)
def test_nothing_is_left_over_on_either_side(tensors, links, message):
    ledger = Ledger({name: torch.zeros(shape) for name, shape in tensors.items()}, "file")
    with pytest.raises(CoverageError, match=message):
        fill_linked(nn.Linear(3, 2), links, ledger)


def test_a_model_with_an_unlinked_tensor_is_not_written():
    with pytest.raises(CoverageError, match="no place in the other layout for bias"):
        spread(nn.Linear(3, 2), linear_links()[:1])


def test_shapes_that_do_not_join_are_named():
    ledger = Ledger({"q": torch.zeros(2, 3), "k": torch.zeros(3, 3), "b": torch.zeros(2)}, "file")
    with pytest.raises(TensorMismatchError, match="q, k have different shapes"):
        fill_linked(nn.Linear(3, 2), [stacked("weight", ("q", "k")), same("bias", "b")], ledger)
    ledger = Ledger({"w": torch.zeros(2), "b": torch.zeros(2)}, "file")
    with pytest.raises(TensorMismatchError, match=r"w has shape \(2,\) instead of \(3, 2\)"):
        fill_linked(nn.Linear(3, 2), [with_shape("weight", "w", (2, 3), (3, 2)), same("bias", "b")], ledger)


def test_prefixes_are_found_and_two_models_are_not_confused():
    tensor = torch.zeros(1)
    assert Ledger({"norm.weight": tensor}, "file").prefix("norm.weight") == ""
    assert Ledger({"module.norm.weight": tensor}, "file").prefix("norm.weight") == "module."
    assert Ledger({"norm.weight": tensor, "blocks.0.norm.weight": tensor}, "file").prefix("norm.weight") == ""
    with pytest.raises(CoverageError, match=r"several models, below student\., teacher\."):
        Ledger({"student.norm.weight": tensor, "teacher.norm.weight": tensor}, "file").prefix("norm.weight")
    with pytest.raises(CoverageError, match=r"no tensor 'norm\.weight'; its 1 tensors begin with other"):
        Ledger({"other": tensor}, "file").prefix("norm.weight")
