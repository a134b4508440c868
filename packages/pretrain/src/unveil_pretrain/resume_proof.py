"""Proof that a run can be killed: 2N steps at once, and 2N steps with kills, end with the same bits.

The second run is killed (SIGKILL) in the middle of a step after its first checkpoint, continued, killed again while it
writes its last checkpoint, and continued to the end.
"""

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.errors import ResumeError
from unveil_pretrain.resume_child import ChildRun, compute
from unveil_pretrain.run import DeviceName

__all__ = ["ResumeProof", "compare_runs", "prove_resume", "short"]

_CLOCKS = ("seconds", "device_seconds", "samples_per_second")


@dataclass(frozen=True, slots=True)
class ResumeProof:
    """What was compared, in words, and the first difference; None where all bits agree."""

    compared: tuple[str, ...]
    difference: str | None


def short(config: MimConfig | FlipConfig, num_steps: int) -> MimConfig | FlipConfig:
    """The configuration of 2 · `num_steps` steps with a checkpoint in the middle; validation at each checkpoint."""
    return replace(
        config,
        steps=2 * num_steps,
        warmup_steps=min(config.warmup_steps, num_steps),
        validate_every=num_steps,
        checkpoint_every=num_steps,
    )


def prove_resume(
    config: MimConfig | FlipConfig,
    *,
    folder: Path,
    train_data: str,
    val_data: str,
    num_steps: int,
    device: DeviceName = "auto",
    num_workers: int = 0,
    micro_batch_size: int = 0,
    target: Callable[[ChildRun], None] = compute,
) -> ResumeProof:
    """Compute both runs in `folder` and compare them.

    Args:
        config: What to train; its numbers of steps are replaced by `short`.
        folder: A new folder; holds the runs "straight" and "killed" afterwards.
        train_data: As `unveil_pretrain.loop.train` takes it.
        val_data: Likewise.
        num_steps: N.
        device: Where to compute.
        num_workers: Decoding processes.
        micro_batch_size: Samples to compute at once.
        target: Computes a run; another one is a way to see that the proof can fail.

    Raises:
        ResumeError: a process ended otherwise than it should have; it has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = ChildRun(
        config=json.loads(json.dumps(config_to_json(short(config, num_steps)))),
        out=folder / "straight",
        seen=folder / "straight.seen.jsonl",
        train_data=train_data,
        val_data=val_data,
        device=device,
        num_workers=num_workers,
        micro_batch_size=micro_batch_size,
    )
    killed = replace(whole, out=folder / "killed", seen=folder / "killed.seen.jsonl")
    _run(whole, target, 0)
    # In the middle of the second half: the steps since the checkpoint are lost and have to come back as they were.
    _run(replace(killed, kill_in_step=num_steps + num_steps // 2), target, -signal.SIGKILL)
    _run(replace(killed, kill_in_checkpoint=2 * num_steps), target, -signal.SIGKILL)
    _run(killed, target, 0)
    return compare_runs(folder / "straight", folder / "killed", step=2 * num_steps)


def compare_runs(one: Path, two: Path, *, step: int) -> ResumeProof:
    """Compare two finished runs; beside each run lies NAME.seen.jsonl with what its steps saw."""
    compared: list[str] = []
    for what, differences in (
        ("data order, pixels, captions and masks of every step", _of_rows(_seen(one), _seen(two), "the batch")),
        (
            "metrics of every step, without clocks",
            _of_rows(_rows(one / "metrics.jsonl"), _rows(two / "metrics.jsonl"), "metrics"),
        ),
        ("validations", _of_rows(_rows(one / "val.jsonl"), _rows(two / "val.jsonl"), "validation")),
        ("weights, heads and optimiser of the last checkpoint", _of_tensors(one, two, step)),
        ("position of the last checkpoint", _of_rows(_position(one, step), _position(two, step), "position")),
    ):
        difference = next(differences, None)
        if difference is not None:
            return ResumeProof(tuple(compared), difference)
        compared.append(what)
    return ResumeProof(tuple(compared), None)


def _run(child: ChildRun, target: Callable[[ChildRun], None], expected: int) -> None:
    """One start of a run in a process that has imported the package already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unveil_pretrain.resume_child"])
    process = context.Process(target=target, args=(child,))
    process.start()
    process.join()
    if process.exitcode != expected:
        raise ResumeError(
            f"the run in {child.out} ended with code {process.exitcode} and not {expected}; "
            "see above for its message; the same settings have to run by themselves first"
        )


def _of_rows(one: list[dict], two: list[dict], what: str) -> Iterator[str]:
    for left, right in zip(one, two, strict=False):
        for name in [*left, *(name for name in right if name not in left)]:
            if name not in _CLOCKS and left.get(name) != right.get(name):
                where = f" of step {left['step']}" if "step" in left else ""
                yield f"{what}{where}: {name} is {left.get(name)} without and {right.get(name)} with kills"
    if len(one) != len(two):
        yield f"{what}: {len(one)} rows without and {len(two)} with kills"


def _of_tensors(one: Path, two: Path, step: int) -> Iterator[str]:
    names = ("encoder.safetensors", "heads.safetensors", "train_state/optimizer.safetensors")
    for name in names:
        files = [run / "checkpoints" / f"step_{step:08d}" / name for run in (one, two)]
        left, right = (load_file(file) if file.exists() else {} for file in files)
        for tensor in sorted(left.keys() | right.keys()):
            if tensor not in left or tensor not in right:
                yield f"{name}: {tensor} is in one run only"
            elif not torch.equal(_bits(left[tensor]), _bits(right[tensor])):
                apart = (left[tensor].double() - right[tensor].double()).abs().max()
                yield f"{name}: {tensor} differs, by at most {float(apart):.3g}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _seen(run: Path) -> list[dict]:
    """What each step saw; a step that was computed again has to have seen the same, or both rows stay."""
    rows: list[dict] = []
    for row in _rows(run.with_name(f"{run.name}.seen.jsonl")):
        if row not in rows:
            rows.append(row)
    return sorted(rows, key=lambda row: row["step"])


def _position(run: Path, step: int) -> list[dict]:
    return _rows(run / "checkpoints" / f"step_{step:08d}" / "train_state" / "position.json")


def _rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
