"""The benchmark of masks runs, and what it calls equal can be unequal."""

import json
import math

import numpy as np
import pytest
import torch
from unveil_masking import BlockMask, Grid, RandomMask, UnitMask

from benchmarks import _masking_peers as peers
from benchmarks import _masking_rows as rows
from benchmarks.masking import main

QUICK = ["--quick", "--rounds", "1", "--warm-up", "0"]


def test_every_row_on_masks_runs(tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert main([*QUICK, "--only", "simmim", "random", "block", "linear", "--json", str(path)]) == 0
    outcomes = json.loads(path.read_text())["outcomes"]
    assert [outcome["title"].split(",")[0].split(":")[0] for outcome in outcomes] == [
        "SimMIM's masks",
        "SimMIM's masks",
        "SimMIM's masks",
        "Random keep sets",
        "BEiT's block masks",
        "Linear cost",
        "Linear cost",
        "Linear cost",
    ]
    assert {ratio["bar"] for outcome in outcomes for ratio in outcome["ratios"]} >= {20.0, 3.0, 10.0}
    assert "a trial, not a result" in capsys.readouterr().out


def test_the_row_on_a_step_runs(capsys):
    assert main([*QUICK, "--only", "step"]) == 0
    assert "step, 16 kept tokens" in capsys.readouterr().out


def test_a_clone_that_is_not_there_is_named(tmp_path, capsys):
    assert main([*QUICK, "--only", "block", "--beit", str(tmp_path)]) == 2
    assert "give the root of a clone of github.com/microsoft/unilm" in capsys.readouterr().err


def test_a_clone_takes_the_place_of_the_algorithm(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data_simmim.py").write_text(
        "class MaskGenerator:\n    def __init__(self, *sizes):\n        self.sizes = sizes\n"
    )
    name, generator = peers.simmim_generator(tmp_path, image=224, unit=32, patch=16, ratio=0.6)
    assert name == "SimMIM's clone"
    assert generator.sizes == (224, 32, 16, 0.6)


def test_the_written_out_generators_keep_their_papers_rules():
    _, draw = peers.simmim_generator(None, image=192, unit=32, patch=4, ratio=0.6)
    assert all(draw().sum() == 22 * 64 for _ in range(20))
    _, draw = peers.beit_generator(None, side=14, hidden=75, min_block=16)
    counts = [draw().sum() for _ in range(200)]
    assert 70 <= np.median(counts) <= 75
    assert max(counts) <= 75


def masks(ratio: float, seed: int, num: int = 512) -> np.ndarray:
    return RandomMask(ratio).sample(Grid(14, 14), np.arange(num), seed=seed).mask


def test_equal_distributions_are_close():
    assert rows._apart(masks(0.75, 0), masks(0.75, 1)) < rows._tolerance(512, 0.75)


def test_unequal_counts_shapes_and_shares_are_not():
    ours = masks(0.75, 0)
    assert rows._apart(ours, masks(0.7, 0)) == math.inf
    assert rows._apart(ours, ours[:, :-1]) == math.inf
    fixed = np.broadcast_to(ours[:1], ours.shape)  # the same number of hidden tokens, always the same ones
    assert rows._apart(ours, fixed) > rows._tolerance(512, 0.75)
    blocks, smaller = (BlockMask(ratio).sample(Grid(14, 14), np.arange(512), seed=0).mask for ratio in (0.38, 0.37))
    assert rows._apart(blocks, smaller) == math.inf


def test_broken_units_are_seen():
    whole = UnitMask(2, 0.6).sample(Grid(14, 14), np.arange(8), seed=0).mask
    assert rows._units_are_whole(whole, Grid(14, 14), 2)
    assert not rows._units_are_whole(masks(0.6, 0), Grid(14, 14), 2)


@pytest.mark.parametrize("name", ["timm", "open_clip"])
def test_the_modules_of_others_say_which_tokens_they_keep(name):
    module = peers.patch_dropouts(0.75)[name]
    sizes = rows.Sizes(batch=4, device=torch.device("cpu"))
    keep = rows._kept_by(module, sizes, prefix=int(name == "open_clip"))()
    assert keep.shape == (4, 49)
    assert all(len(set(row)) == 49 and min(row) >= 0 and max(row) < 196 for row in keep.tolist())
