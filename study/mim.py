"""`python -m study.mim --data DIR --out DIR`: does the validation loss of small data turn up, and of all data not?"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from study.mim_data import prepare
from study.mim_figure import draw
from study.mim_plan import ENCODERS, study_plan
from study.mim_report import markdown, read_series

__all__ = ["main"]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="study.mim", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds train.zip and val.zip, or train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/study-mim"), help="everything it writes")
    parser.add_argument("--num-images", type=int, default=300, help="training images of the whole set")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), help="sizes")
    parser.add_argument("--num-seeds", type=int, default=1, help="repetitions of every cell")
    parser.add_argument("--jobs", type=int, default=2, help="cells that run at the same time")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, or continue it; finished cells are kept. Prints the table and where the figure is."""
    options = _arguments(arguments)
    train_data, val_data = prepare(options.data, options.out, options.num_images)
    plan = study_plan(options.num_images, encoders=options.encoders, num_seeds=options.num_seeds)
    (options.out / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    sweep = options.out / "sweep"
    command = [sys.executable, "-m", "unveil_pretrain", "sweep", str(options.out / "plan.json"), "--out", str(sweep)]
    command += ["--train-data", train_data, "--val-data", val_data, "--jobs", str(options.jobs)]
    exit_code = subprocess.run(command, check=False).returncode
    series = read_series(plan.cells, sweep)
    if series:
        draw(series, options.out / "curves.png")
        (options.out / "table.md").write_text(markdown(series), encoding="utf-8")
        print(f"{markdown(series)}\n{options.out / 'curves.png'}")
    if exit_code:
        raise SystemExit(exit_code)


if __name__ == "__main__":
    main()
