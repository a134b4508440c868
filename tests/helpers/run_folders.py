"""What the folder of a pretrain run holds: whether all of it can be read, and whether two runs are the same."""

import json
from pathlib import Path

import polars
import torch
from safetensors.torch import load_file
from unveil_backbones import load, train_state

__all__ = ["CLOCKS", "differences", "leftovers", "unreadable"]

CLOCKS = ("seconds", "device_seconds", "samples_per_second", "time", "created")
LINES = ("metrics.jsonl", "val.jsonl", "cost.jsonl", "spikes.jsonl", "skipped.jsonl")


def unreadable(run: Path) -> list[str]:
    """What a killed run left that a reader would take for whole and that is not."""
    wrong = []
    if (run / "run.json").exists():
        json.loads((run / "run.json").read_text())
    for checkpoint in run.glob("checkpoints/step_*"):
        load(checkpoint)
        # Checkpoints older than the last two are kept without the state of training.
        if (checkpoint / "train_state").is_dir():
            train_state(checkpoint)
    for table in run.glob("val/step_*.parquet"):
        polars.read_parquet(table)
    for name in LINES:
        *lines, _torn = (run / name).read_text().split("\n") if (run / name).exists() else [""]
        steps = [json.loads(line)["step"] for line in lines]
        if steps != sorted(steps) or (name != "cost.jsonl" and len(set(steps)) != len(steps)):
            wrong.append(f"{name} counts steps {steps}")
    return wrong


def leftovers(run: Path, straight: Path) -> list[str]:
    """Files and folders that an undisturbed run does not have."""
    return sorted(names(run) ^ names(straight))


def names(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if "tensorboard" not in path.parts}


def differences(run: Path, straight: Path) -> list[str]:
    """Where the results of two finished runs are not the same bits."""
    found = [f"files: {name}" for name in leftovers(run, straight)]
    if found:
        return found
    rows = ["metrics.jsonl", "val.jsonl", *_inside(straight, "position.json")]
    found += [name for name in rows if without_clocks(run / name) != without_clocks(straight / name)]
    found += [name for name in _inside(straight, "*.safetensors") if not _same_tensors(run / name, straight / name)]
    tables = _inside(straight, "*.parquet")
    return found + [name for name in tables if (run / name).read_bytes() != (straight / name).read_bytes()]


def _inside(run: Path, pattern: str) -> list[str]:
    return [str(file.relative_to(run)) for file in sorted(run.rglob(pattern))]


def _same_tensors(one: Path, two: Path) -> bool:
    left, right = load_file(one), load_file(two)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def without_clocks(file: Path) -> list[dict]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
