"""The recorded files say where they are from; the comparison sees what it has to see."""

import json
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_every_reference_is_there():
    assert [path.stem for path in FILES] == [
        "dinov2",
        "huggingface",
        "mae",
        "open_clip",
        "simmim_vit",
        "swinv2",
        "videomae",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_how_it_was_made(path):
    source = json.loads(path.read_text())["source"]
    assert source["repository"].startswith("github.com/")
    assert source["licence"]
    assert source["files"]
    assert source["versions"]["torch"]
    # A clone has a commit, an installed package its version.
    assert source["commit"] or len(source["versions"]) > 2
    assert source["command"].startswith(f"python tools/record_golden.py {path.stem}")
    assert source["dtype"] == "float64"
    assert len(source["recorded"].split("-")) == 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_holds_numbers_and_no_weights(path):
    assert path.stat().st_size < 300_000


def test_noise_by_hand_and_by_name():
    # SplitMix64's first numbers of seed 0 (Steele et al. 2014), whose upper 23 bits are what is used.
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert numbers.noise("", (3,)).tolist() == [((value >> 41) + 0.5) / 2**22 - 1 for value in first]
    assert not torch.equal(numbers.noise("a", (64,)), numbers.noise("b", (64,)))
    drawn = numbers.noise("a", (100_000,))
    assert drawn.abs().max() < 1
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.var() - 1 / 3) < 0.01


def test_a_moved_row_is_seen_by_the_scalar_product_alone():
    value = numbers.noise("value", (40, 7))
    recorded = numbers.output_numbers("value", value)
    assert numbers.output_difference("value", value, recorded) == 0
    moved = value.clone()
    moved[[1, 2]] = value[[2, 1]]
    assert numbers.output_difference("value", moved, recorded) > 1e-3


def test_other_shapes_and_other_parameters_are_errors():
    value = numbers.noise("value", (4, 7))
    with pytest.raises(ValueError, match="compare the same"):
        numbers.output_difference("value", value.T, numbers.output_numbers("value", value))
    with pytest.raises(ValueError, match="on one side only"):
        numbers.gradient_difference({"a": value}, {"b": [1.0, 0.0]})
