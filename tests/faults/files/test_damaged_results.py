"""Files of `evalharness`'s results, gates and studies, damaged in every way; all read by its commands."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import polars
import pytest
from damage import DAMAGES, Case, command, problems_of
from unveil_evalharness.cli import main
from unveil_evalharness.published import PUBLISHED, reader

TEXT = "plain text that people edit: a changed digit is another number"
NUMBERS = "rows are text; `evalharness verify` computes what follows from single outcomes again and compares"
SHORTER = (
    "a file of rows that ends between two, or within the last, is what a kill leaves; the cells it lacks run again"
)
PARQUET = "parquet keeps no checksums unless its writer is asked to; what no decoder takes is found"
TABLE = "run,loss,toy.score,model\na,1.0,0.5,vit\nb,0.9,0.6,vit\nc,0.8,0.7,swin\nd,0.7,0.75,swin\ne,0.6,0.77,swin\n"
CUT = dict.fromkeys(("cut to a tenth", "cut in half", "cut by a byte"), SHORTER)


def output(pattern: str):
    """A copy of an output folder of `evalharness run`; the first file that fits the pattern is damaged."""

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copytree(specimens / "eval" / "results", folder / "results")
        return sorted((folder / "results").glob(pattern))[0]

    return make


def verified(folder: Path):
    return command(main, "verify", folder / "results")


def correlated(folder: Path):
    return command(main, "correlate", folder / "results", "--num-resamples", 100, "--json")


def forecast(folder: Path):
    return command(main, "predict", "--known", folder / "results", "--task", "toy", "--num-resamples", 20, "--json",
                   "--run", "u=36")  # fmt: skip


def reported(folder: Path):
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command(main, "report", folder / "results", "--output", out, "--no-figures", "--format", "md")
    return [file.read_bytes() for file in sorted(out.rglob("*.md"))]


def table(suffix: str):
    frame = polars.read_csv(io.BytesIO(TABLE.encode()))
    stream = io.BytesIO()
    frame.write_parquet(stream)
    content = {"csv": TABLE.encode(), "parquet": stream.getvalue(), "jsonl": frame.write_ndjson().encode()}[suffix]

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / f"table.{suffix}").write_bytes(content)
        return folder / f"table.{suffix}"

    def read(folder: Path):
        file = folder / f"table.{suffix}"
        words = ("--x", "loss", "--y", "toy.score", "--num-resamples", 100, "--json")
        return command(main, "correlate", file, *words)

    return make, read


def published(name: str):
    """A published set, as if the package were installed where its file is damaged."""

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        return shutil.copy(Path(reader.__file__).with_name(f"{name}.csv"), folder / f"{name}.csv")

    def read(folder: Path):
        words = ("--published", name, "--num-resamples", 100, "--json")
        with patch.object(reader, "resources", SimpleNamespace(files=lambda _: folder)):
            return command(main, "correlate", *words)

    return make, read


def gate_with(pattern: str):
    """A policy, a baseline with its outcomes, ratios, and a candidate that is the baseline itself."""

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        kept = (specimens / "eval").parent / "gate"
        if not kept.exists():
            kept.mkdir()
            (kept / "policy.toml").write_text(
                '[metrics."toy.score"]\nabsolute = 0.3\n[speed."a / b"]\nslowdown = 0.3\n'
            )
            ratio = {"name": "a / b", "ratio": 1.2, "quartiles": [1.19, 1.21]}
            (kept / "ratios.json").write_text(json.dumps([ratio]))
            one = shutil.copytree(specimens / "eval" / "results", kept / "candidate")
            rows = (one / "results.jsonl").read_text().splitlines()
            (one / "results.jsonl").write_text("\n".join(rows[:2]) + "\n")
            words = ("--candidate", one, "--policy", kept / "policy.toml", "--ratios", kept / "ratios.json")
            reason = ("--baseline", kept / "baseline.toml", "--reason", "first", "--by", "me")
            command(main, "gate", "init", *words, *reason, bad_input=4)
        shutil.copytree(kept, folder / "gate")
        return sorted((folder / "gate").glob(pattern))[0]

    return make


def gated(folder: Path):
    place = folder / "gate"
    words = ("--policy", place / "policy.toml", "--ratios", place / "ratios.json", "--num-resamples", 100)
    return command(
        main, "gate", "--baseline", place / "baseline.toml", "--candidate", place / "candidate", *words, bad_input=4
    )


def shown(folder: Path):
    return command(main, "gate", "show", folder / "gate" / "baseline.toml", "--json", bad_input=4)


def settings(specimens, folder: Path) -> Path:
    shutil.copytree(specimens / "one", folder / "ckpt")
    (folder / "data").mkdir()
    lines = [f'ckpt = ["{folder}/ckpt"]', f'data-root = "{folder}/data"', f'output-path = "{folder}/out"']
    lines += ['tasks = ["toy_task:ToyTask"]', "dry-run = true", "seeds = [0, 1]"]
    (folder / "run.toml").write_text("\n".join(lines) + "\n")
    return folder / "run.toml"


def dry_run(folder: Path):
    return command(main, "run", f"--config={folder}/run.toml")


def included(specimens, folder: Path) -> Path:
    output("results.jsonl")(specimens, folder)
    words = (f"{folder}/results:u=26", f"{folder}/results:u=36", "--json", "--num-resamples", 100)
    (folder / "comparison.json").write_text(command(main, "compare", *words))
    return folder / "comparison.json"


def report_with_comparison(folder: Path):
    out = folder / "out"
    words = ("--output", out, "--no-figures", "--format", "md", "--include", folder / "comparison.json")
    command(main, "report", folder / "results", *words)
    return [file.read_bytes() for file in sorted(out.rglob("*.md"))]


ABSENT = "the copy is not there: results that say less, and `evalharness verify` says so"
UNSEEN = "shown in a report where it is whole; `evalharness verify` compares its hash"
PLACES = dict.fromkeys(("missing", "a folder", "a link to itself"), ABSENT)
PICTURES = dict.fromkeys(DAMAGES, UNSEEN)

CASES = {
    "results.jsonl": Case(make=output("results.jsonl"), read=correlated, flips=16, unchecked=NUMBERS, tolerated=CUT),
    "results.jsonl, by `predict`": Case(
        make=output("results.jsonl"), read=forecast, flips=4, unchecked=NUMBERS,
        unnamed="a run that is not among the rows any more is told by its name", tolerated=CUT
    ),
    "results.jsonl, by `verify`": Case(
        make=output("results.jsonl"), read=verified, flips=4, unchecked=NUMBERS, tolerated=CUT
    ),
    "manifests": Case(make=output("manifests/*"), read=correlated, flips=16, tolerated=PLACES),
    "protocols": Case(make=output("protocols/*"), read=verified, flips=6),
    "hashes": Case(make=output("hashes/*"), read=verified, flips=6),
    "samples, by `verify`": Case(make=output("samples/*"), read=verified, flips=6),
    "tables, by `verify`": Case(make=output("tables/*"), read=verified, flips=4),
    "pictures' index, by `report`": Case(
        make=output("gallery/*/index.json"), read=reported, flips=4, unchecked=UNSEEN, tolerated=PICTURES
    ),
    "a picture, by `report`": Case(
        make=output("gallery/*/*.png"), read=reported, flips=4, unchecked=UNSEEN, tolerated=PICTURES
    ),
    "a table, by `report`": Case(
        make=output("tables/*"), read=reported, flips=4, unchecked=UNSEEN, tolerated=PICTURES
    ),
    "a comparison that a report includes": Case(
        make=included, read=report_with_comparison, flips=4, unchecked=TEXT
    ),
    "table.csv": Case(
        make=table("csv")[0], read=table("csv")[1], unchecked=TEXT, flips=16,
        tolerated={"cut in half": "a table that ends early is a shorter table"},
    ),
    "table.parquet": Case(make=table("parquet")[0], read=table("parquet")[1], unchecked=PARQUET, flips=16),
    "table.jsonl": Case(
        make=table("jsonl")[0], read=table("jsonl")[1], unchecked=TEXT, flips=16,
        tolerated={"cut in half": "a table that ends early is a shorter table"},
    ),
    **{
        f"published {name}": Case(make=published(name)[0], read=published(name)[1], flips=24) for name in PUBLISHED
    },
    "policy.toml": Case(
        make=gate_with("policy.toml"), read=gated, unchecked=TEXT, flips=12,
        tolerated={"cut in half": "a policy that ends early asks for less"},
    ),
    "baseline.toml": Case(
        make=gate_with("baseline.toml"), read=gated, flips=16,
        unchecked="numbers as text, kept under version control, which shows every change",
    ),
    "baseline.toml, shown": Case(make=gate_with("baseline.toml"), read=shown, unchecked=TEXT, flips=8),
    "outcomes of a baseline": Case(
        make=gate_with("baseline.samples/*"), read=gated, flips=12,
        tolerated=dict.fromkeys(("missing", "a folder", "a link to itself"),
                                "without outcomes the gate falls back on standard errors, and says so"),
    ),
    "ratios.json": Case(make=gate_with("ratios.json"), read=gated, unchecked=TEXT, flips=12),
    "run.toml of --config": Case(
        make=settings, read=dry_run, unchecked=TEXT, flips=12,
        unnamed="a value that cannot be is told by the name of its option, as on the command line",
        tolerated={"cut by a byte": "the end of the last line"},
    ),
}  # fmt: skip


HEAVY = ("protocols", "hashes", "samples, by `verify`", "tables, by `verify`", "results.jsonl, by `verify`",
         "a picture, by `report`", "a table, by `report`")  # fmt: skip
"""Half a second for each kind of damage: every checkpoint is loaded, or a report written."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in CASES])
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []
