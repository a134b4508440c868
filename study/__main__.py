"""Our own small test of the two papers' claims: `make study` on a CPU, `make study-gpu` on a GPU, stretch by stretch.

    python -m study --data PACK --out runs/study [--profile cpu|gpu|smoke] [--minutes N]

A grid of MIM runs (sizes × shares of the data × lengths) with its downstream results, a grid of FLIP runs (masks ×
batch × unmasked tuning × smaller images), and what they say of the validation loss, in OUT/README.md. The same command
again continues; with --minutes it stops by itself, each run saved where it stands. Needs nothing but the command lines
of the four packages.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.real_data import RealDataError
from study.layout import lay_out_study
from study.mim_data import num_available, prepare
from study.page import write_page
from study.profiles import PROFILES, Profile
from study.stages import Stage, stages_of, write_plan

__all__ = ["main", "run_stage"]

_GRACE = 90.0  # seconds in which a stopped run finishes its step and saves
_REFUSED = 3  # of `correlate`
_STOPPED = (130, 143, -signal.SIGTERM, -signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, or go on with it; 0 when it is finished or was stopped in time, 1 if a stage failed."""
    options = _parser().parse_args(arguments)
    profile: Profile = PROFILES[options.profile]
    out: Path = options.out or Path("runs") / f"study-{profile.name}"
    deadline = time.monotonic() + options.minutes * 60 if options.minutes else None
    start = time.monotonic()
    try:
        out.mkdir(parents=True, exist_ok=True)
        root = lay_out_study(options.data, out / "root")
        there = num_available(root / "imagenet")
        if there < profile.num_images:
            print(f"the grid's whole set is the {there:,} training images there are, not {profile.num_images:,}")
            profile = replace(profile, num_images=there)
        prepare(root / "imagenet", out, profile.num_images)
        write_plan(profile, out)
        stages = stages_of(profile, root, out)
        failed = False
        for number, stage in enumerate(stages, start=1):
            print(f"[{number}/{len(stages)}] {stage.name} (log: {stage.log})", flush=True)
            exit_code = run_stage(stage, deadline)
            if exit_code is None:
                print(f"stopped after {options.minutes:g} minutes within stage {number}; the same command continues")
                return 0
            if exit_code:
                failed = True
                print(f"study: {stage.name} ended with code {exit_code}: {_last_line(stage.log)}", file=sys.stderr)
        page = write_page(profile, out, seconds=time.monotonic() - start)
    except (RealDataError, OSError) as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 2
    print(f"{page}\n{(time.monotonic() - start) / 60:.1f} minutes")
    return int(failed)


def run_stage(stage: Stage, deadline: float | None) -> int | None:
    """Run one command until it ends, or ask it to stop at the deadline; None if it was stopped.

    Args:
        stage: What to run.
        deadline: Of `time.monotonic`; none without a limit.
    """
    if deadline is not None and time.monotonic() >= deadline:
        return None
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    with stage.log.open("ab") as log:
        output = subprocess.PIPE if stage.output else log
        with subprocess.Popen(stage.words(), stdout=output, stderr=log) as process:
            try:
                said, _ = process.communicate(timeout=None if deadline is None else deadline - time.monotonic())
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    process.communicate(timeout=_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                return None
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=_GRACE)
                raise
    if process.returncode in _STOPPED:
        raise KeyboardInterrupt
    if stage.output is not None and process.returncode in (0, _REFUSED):
        stage.output.write_bytes(said)  # that nothing can be compared, and why, is a result too
        return 0
    return process.returncode


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="a folder of real image sets; embedded scenes without")
    parser.add_argument("--out", type=Path, default=None, help="everything it writes (default: runs/study-PROFILE)")
    parser.add_argument("--profile", choices=list(PROFILES), default="cpu", help="how large")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many, saved; 0 for no limit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
