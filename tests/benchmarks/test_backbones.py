"""`python -m benchmarks.backbones` runs end to end on tiny models, names who is absent, and refuses unequal outputs."""

import importlib.util
import json
import sys

import pytest
import torch

from benchmarks import _simmim, backbones
from benchmarks._compare import Clock
from benchmarks._device import Device, matmul_peak, open_device
from benchmarks._steps import Work, step

QUICK = ["--quick", "--rounds", "1", "--batch", "1", "--dtype", "fp32", "--peak-tflops", "0.1"]
FAKE = Device(torch.device("cpu"), "a GPU", Clock(peak_bytes=lambda: 7 * 2**20))
"""A device that counts its memory, as CUDA does."""


def test_all_rows_run_and_absent_peers_are_named(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    wrong = tmp_path / "no-clone"
    assert backbones.main([*QUICK, "--swin", str(wrong), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert f"reference: ABSENT (--swin {wrong} holds no models/simmim.py" in printed
    assert "reference: ABSENT (clone github.com/facebookresearch/mae and give --mae PATH)" in printed
    if importlib.util.find_spec("open_clip") is None:
        assert "open_clip: ABSENT" in printed
    assert printed.count("\n  timm ") == 4
    assert "own speed-up at 75%" in printed
    written = json.loads(figures.read_text())
    assert len(written["outcomes"]) == 1 + 2 + 4 + 2 + 1
    for outcome in written["outcomes"]:
        assert all(ratio["difference"] <= outcome["tolerance"] for ratio in outcome["ratios"])
        assert outcome["timings"][0]["name"] == "ours"


def test_open_clip_may_be_absent(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "open_clip.transformer", None)
    assert backbones.main([*QUICK, "--only", "flip", "--ratios", "0.5"]) == 0
    assert "open_clip: ABSENT (" in capsys.readouterr().out


def test_unequal_outputs_end_the_run(monkeypatch, capsys):
    monkeypatch.setattr(_simmim, "_copy_heads", lambda *_: None)
    assert backbones.main([*QUICK, "--only", "simmim"]) == 1
    said = capsys.readouterr()
    assert "outputs of ours and timm differ by" in said.err
    assert "ms cpu" not in said.out


def test_utilisation_and_peak_memory_are_printed_where_the_device_counts_them(monkeypatch, capsys):
    monkeypatch.setattr(backbones, "open_device", lambda *_: FAKE)
    assert backbones.main([*QUICK, "--only", "simmim"]) == 0
    header, ours = [line for line in capsys.readouterr().out.splitlines() if "ms cpu" in line or "  ours " in line][:2]
    assert header.split("  ")[-2:] == ["MFU", "peak MiB"]
    assert ours.split()[-1] == "7"
    assert ours.split()[-2].endswith("%")


def test_bfloat16_is_the_default_only_where_the_processor_has_it():
    parser = backbones._parser()
    slow = Device(torch.device("cpu"), "old", Clock(), fast_bfloat16=False)
    assert not backbones._work(parser.parse_args([]), slow).autocast
    assert backbones._work(parser.parse_args([]), FAKE).autocast
    assert backbones._work(parser.parse_args(["--dtype", "bf16"]), slow).autocast


def test_devices_that_are_not_here_are_refused():
    assert matmul_peak(open_device("cpu"), torch.float32, repeats=1) > 0
    with pytest.raises(ValueError, match="'cuda:99' is not here; there is cpu"):
        open_device("cuda:99")


def test_blocks_are_compiled_in_the_first_call():
    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder_blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])

        def forward(self, images):
            return self.decoder_blocks[0](images).sum()

    asked = []
    tower = Tower()
    tower.decoder_blocks[0].compile = lambda **how: asked.append(how["dynamic"])
    run = step(tower, torch.ones(1, 2), Work(device=FAKE, batch=1, autocast=False, compile="blocks"))
    assert asked == []
    run()
    run()
    assert asked == [False]
    bare = step(torch.nn.Linear(2, 2), torch.ones(1, 2), Work(device=FAKE, batch=1, compile="blocks"))
    with pytest.raises(ValueError, match="compile it as a whole"):
        bare()
