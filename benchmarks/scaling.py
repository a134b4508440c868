"""Strong and weak scaling: a training step by one process and by several, `python -m benchmarks.scaling RECIPE BATCH`.

Whole updates as the loop does them, each process on its part of a batch of noise. Strong: BATCH samples of a step,
however many processes; the time of one process over theirs is the speed-up, at best their number. Weak: BATCH samples
for each process; the time of one over theirs is the efficiency, at best 1. On a CPU the processes talk over gloo on
this machine; on GPUs (`--device cuda`), each its own, over NCCL.

All groups of processes live during the whole measurement, those that are not timed wait, and each round times every
group once, so that a slow moment of the machine meets all of them. Bytes are those that the most talkative process
handed to the kernel for TCP in a step (its sockets' TCP_INFO), beside what the formulas of `pretrain plan --cluster`
expect; what GPUs send each other does not go over TCP, and the formula stands alone.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from unveil_pretrain.parallel import ParallelKind
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES

from benchmarks._compare import FEWEST_ROUNDS, Spread
from benchmarks._device import open_device
from benchmarks._processes import Group, Turn
from benchmarks._report import Report
from benchmarks._scaling_child import Task, expected_bytes

__all__ = ["main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One group of processes."""

    kind: str
    """"one", "strong" or "weak"."""
    num_processes: int
    batch: int
    """Samples of a step, over all processes."""
    wall: Spread
    """Seconds of a step."""
    cpu: Spread
    """Processor seconds of a step, of the busiest process."""
    ratio: Spread
    """Seconds of one process over these, round by round: speed-up or efficiency."""
    ideal: float
    """The best ratio there could be."""
    sent: float | None
    """Bytes of TCP of a step, of the process that sent most; None between GPUs."""
    expected: float
    """Bytes by the formula."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table; 0."""
    given = _parser().parse_args(arguments)
    cuda = given.device == "cuda"
    report = Report(
        open_device(given.device, given.threads).name, headline="wall", threads=given.threads, path=given.json
    )
    if given.rounds < FEWEST_ROUNDS:
        report.note(f"trial: {given.rounds} rounds, a result needs {FEWEST_ROUNDS}")
    there = torch.cuda.device_count() if cuda else max(given.processes)
    for lacking in (num for num in given.processes if num > there):
        report.note(f"{lacking} processes: ABSENT (there are {there} GPUs)")
    cases = _cases([num for num in given.processes if num <= there], given.batch)
    tasks = [_task(given, batch) for _, _, batch in cases]
    with ExitStack() as alive:
        groups = [
            alive.enter_context(Group("benchmarks._scaling_child", num, [task.to_json()]))
            for (_, num, _), task in zip(cases, tasks, strict=True)
        ]
        for group in groups:
            group.turn(given.warm_up)
        turns: list[list[Turn]] = [[] for _ in groups]
        for number in range(given.rounds):
            for place in range(len(groups)):
                who = (number + place) % len(groups)
                turns[who].append(groups[who].turn(given.steps))
    rows = [
        _row(case, its, turns[0], expected=expected_bytes(task, case[1]))
        for case, task, its in zip(cases, tasks, turns, strict=True)
    ]
    _print(given, rows)
    _write(given.json, report, rows)
    return 0


def _cases(processes: Sequence[int], batch: int) -> list[tuple[str, int, int]]:
    """Kind, processes and samples of a step; one process is both strong and weak."""
    more = sorted({num for num in processes if num > 1})
    strong = [("strong", num, batch) for num in more if batch % num == 0]
    return [("one", 1, batch), *strong, *(("weak", num, batch * num) for num in more)]


def _task(given: argparse.Namespace, batch: int) -> Task:
    return Task(
        recipe=given.recipe,
        batch=batch,
        kind=given.parallel,
        device=given.device,
        threads=given.threads,
        bfloat16=given.dtype == "bf16",
        quick=given.quick,
    )


def _row(case: tuple[str, int, int], turns: Sequence[Turn], alone: Sequence[Turn], *, expected: float) -> Row:
    kind, num, batch = case
    sent = [turn.sent for turn in turns if turn.sent is not None]
    return Row(
        kind=kind,
        num_processes=num,
        batch=batch,
        wall=Spread.of([turn.wall for turn in turns]),
        cpu=Spread.of([turn.cpu for turn in turns]),
        ratio=Spread.of([one.wall / turn.wall for one, turn in zip(alone, turns, strict=True)]),
        ideal=float(num) if kind == "strong" else 1.0,
        sent=Spread.of(sent).median if sent else None,
        expected=expected,
    )


def _print(given: argparse.Namespace, rows: Sequence[Row]) -> None:
    print(f"\n{given.recipe}, {given.parallel}, {given.dtype}, quick {given.quick}, {given.steps} steps a round")
    print("        processes  batch   ms wall    ms cpu  ratio (quartiles)      ideal       MB sent  MB expected")
    for row in rows:
        ratio = f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})"
        sent = "not TCP" if row.sent is None else f"{row.sent / 1e6:.3f}"
        print(
            f"{row.kind:7} {row.num_processes:9} {row.batch:6} {row.wall.median * 1e3:9.1f} {row.cpu.median * 1e3:9.1f}"
            f"  {ratio:22} {row.ideal:5.1f} {sent:>13} {row.expected / 1e6:12.3f}"
        )


def _write(path: Path | None, report: Report, rows: Sequence[Row]) -> None:
    if path is not None:
        value = {"environment": report.environment, "notes": report.notes, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        default="tiny_mae",
        choices=sorted({**MIM_RECIPES, **FLIP_RECIPES}),
        metavar="RECIPE",
        help="a recipe of `pretrain mim` or `flip`",
    )
    parser.add_argument("batch", nargs="?", type=int, default=64, help="samples of a step of one process")
    parser.add_argument("--processes", type=int, nargs="+", default=[2], metavar="N", help="to compare with one")
    parser.add_argument("--parallel", choices=ParallelKind.__args__, default="ddp", help="whole copies, or shards")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of products")
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help=f"{FEWEST_ROUNDS} for a result")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--quick", action="store_true", help="small images: shows that it runs, measures nothing")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write every figure there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
