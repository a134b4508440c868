"""What `evalharness` reads: results, tables, baselines, annotations, masks, settings, and its small languages."""

import io
import json
import shutil
from pathlib import Path

import polars
import pytest
from fuzzing import NUM_SLOW, Parser, Place, file_parser, fuzz, in_parts, tree_of
from mutations import (
    NASTY_TEXTS,
    as_toml,
    mutated_bytes,
    mutated_json,
    mutated_lines,
    mutated_text,
    mutated_toml,
    mutated_tree,
)
from unveil_evalharness.compare.outcomes import mean_outcomes, read_samples
from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.correlate.load import load
from unveil_evalharness.correlate.table import Roles
from unveil_evalharness.errors import HarnessError
from unveil_evalharness.foreign.arguments import parse_details
from unveil_evalharness.foreign.reference import parse_reference
from unveil_evalharness.gate.baseline import read_baseline
from unveil_evalharness.gate.policy import read_policy
from unveil_evalharness.gate.ratios import read_ratios
from unveil_evalharness.parsing import parse_options, with_config
from unveil_evalharness.results import ResultRow, append_rows, latest, read_rows, to_frame

TABLE = "run,loss,toy.score,model\na,1.0,0.5,vit\nb,0.9,0.6,vit\nc,0.8,0.7,swin\nd,0.7,0.75,swin\n"
POLICY = {
    "alpha": 0.05, "power": 0.8, "multiple_testing": "holm", "stale_after": 90, "min_runs": 1,
    "required_tasks": ["toy"], "default": {"absolute": 0.01}, "metrics": {"toy.score": {"relative": 0.05}},
    "speed": {"step": {"slowdown": 0.1}}, "memory": {"step": {"at_least": 1.0}},
}  # fmt: skip


def result_rows(place: Place) -> Parser:
    rows = tree_of(place.good / "eval" / "results" / "results.jsonl")[:3]
    file = place.scratch / "results.jsonl"

    def read():
        found = latest(read_rows(file))
        to_frame(found)
        append_rows(place.scratch / "copy.jsonl", found[:1])
        (place.scratch / "copy.jsonl").unlink(missing_ok=True)

    return file_parser(file, lambda random: _lines(random, rows), read)


def _lines(random, rows):
    changed = mutated_tree(random, rows)
    if not isinstance(changed, list):
        return mutated_json(random, rows)
    content = b"".join(json.dumps(row).encode() + b"\n" for row in changed)
    return content if random.randint(0, 3) else mutated_bytes(random, content)


def results_through_correlate(place: Place) -> Parser:
    folder = place.scratch / "results"
    shutil.copytree(place.good / "eval" / "results", folder)
    rows = tree_of(folder / "results.jsonl")
    return file_parser(
        folder / "results.jsonl", lambda random: _lines(random, rows), lambda: _correlated([folder]), num_fast=40
    )


def large_results_through_correlate(place: Place) -> Parser:
    """The way of large files, which are read at once."""
    from unveil_evalharness.correlate.cells import read_cells

    file = place.scratch / "results.jsonl"
    rows = tree_of(place.good / "eval" / "results" / "results.jsonl")
    return file_parser(file, lambda random: _lines(random, rows), lambda: read_cells([file]), num_fast=40)


def _correlated(paths):
    return load(paths, published="", roles=Roles(x="", y=(), group=(), control=(), cluster=""))


def manifest_copies(place: Place) -> Parser:
    folder = place.scratch / "results"
    shutil.copytree(place.good / "eval" / "results", folder)
    file = sorted((folder / "manifests").iterdir())[0]
    tree = tree_of(file)
    return file_parser(file, lambda random: mutated_json(random, tree), lambda: read_evidence([folder]), num_fast=40)


def protocols(place: Place) -> Parser:
    """As `evalharness verify` reads them; the checkpoints, which it loads besides, have tests of their own."""
    from unveil_evalharness.tasks import load_task
    from unveil_evalharness.verify.provenance import check_protocols

    folder, file, rows = _output_folder(place, "protocols/*.json")
    tree = tree_of(file)
    return file_parser(
        file, lambda random: mutated_json(random, tree), lambda: list(check_protocols(folder, rows, load_task))
    )


def hashes(place: Place) -> Parser:
    from unveil_evalharness.verify.contents import check_files

    folder, file, rows = _output_folder(place, "hashes/*.json")
    tree = tree_of(file)
    return file_parser(file, lambda random: mutated_json(random, tree), lambda: list(check_files(folder, rows)))


def rows_through_verify(place: Place) -> Parser:
    """Names of files, hashes and protocols in rows, as `evalharness verify` looks for them."""
    from unveil_evalharness.tasks import load_task
    from unveil_evalharness.verify.contents import check_files, check_metrics
    from unveil_evalharness.verify.provenance import check_checkpoints, check_protocols

    folder, _, _ = _output_folder(place, "hashes/*.json")
    file = folder / "results.jsonl"
    rows = [{**row, "checkpoint": str(place.scratch / "gone")} for row in tree_of(file)[:3]]

    def read():
        found = latest(read_rows(file))
        checks = (check_checkpoints(folder, found), check_protocols(folder, found, load_task))
        return [list(check) for check in (*checks, check_files(folder, found), check_metrics(folder, found))]

    return file_parser(file, lambda random: _lines(random, rows), read, num_fast=40)


def _output_folder(place: Place, pattern: str) -> tuple[Path, Path, list[ResultRow]]:
    folder = place.scratch / "results"
    shutil.copytree(place.good / "eval" / "results", folder)
    return folder, sorted(folder.glob(pattern))[0], latest(read_rows(folder / "results.jsonl"))


def samples(place: Place) -> Parser:
    whole = sorted((place.good / "eval" / "results" / "samples").iterdir())[0].read_bytes()
    file = place.scratch / "a.parquet"

    def read():
        table = read_samples(file)
        assert table is not None
        return mean_outcomes(table, "toy.score")

    return file_parser(file, lambda random: mutated_bytes(random, whole), read)


def table_of_a_user(place: Place) -> Parser:
    file = place.scratch / "table.csv"
    roles = Roles(x="loss", y=("toy.score",), group=("model",), control=(), cluster="")

    def make(random):
        encoded = mutated_lines(random, TABLE).encode("utf-8", "surrogatepass")
        return encoded if random.randint(0, 3) else mutated_bytes(random, encoded)

    return file_parser(file, make, lambda: load([file], published="", roles=roles))


def parquet_of_a_user(place: Place) -> Parser:
    stream = io.BytesIO()
    polars.read_csv(io.BytesIO(TABLE.encode())).write_parquet(stream)
    whole, file = stream.getvalue(), place.scratch / "table.parquet"
    roles = Roles(x="loss", y=("toy.score",), group=("model",), control=(), cluster="")
    return file_parser(
        file, lambda random: mutated_bytes(random, whole), lambda: load([file], published="", roles=roles)
    )


def json_lines_of_a_user(place: Place) -> Parser:
    file = place.scratch / "table.jsonl"
    rows = polars.read_csv(io.BytesIO(TABLE.encode())).to_dicts()
    roles = Roles(x="loss", y=("toy.score",), group=("model",), control=(), cluster="")
    return file_parser(file, lambda random: _lines(random, rows), lambda: load([file], published="", roles=roles))


def summary_of_a_sweep(place: Place) -> Parser:
    from unveil_evalharness.published.summary import read_summary

    file = place.scratch / "summary.csv"
    text = (
        "cell,recipe,objective,encoder,fraction,unique_samples,steps,seed,state,step,epochs,val_loss,"
        "val_standard_error,passport,checkpoint_sha256\n"
        f"a,tiny_mae,mae,vit,1.0,16,10,0,done,10,1.0,0.5,0.01,p,{'0' * 64}\n"
    )
    return file_parser(
        file, lambda random: mutated_lines(random, text).encode("utf-8", "surrogatepass"), lambda: read_summary(file)
    )


def policy(place: Place) -> Parser:
    file = place.scratch / "policy.toml"
    return file_parser(file, lambda random: mutated_toml(random, POLICY), lambda: read_policy(file))


def baseline(place: Place) -> Parser:
    import tomllib

    root = Path(__file__).parents[1] / "gate" / "baseline.toml"
    tree = json.loads(json.dumps(tomllib.loads(root.read_text()), default=str))
    file = place.scratch / "baseline.toml"
    file.write_text(as_toml(tree))
    read_baseline(file)

    def read():
        found = read_baseline(file)
        return [found.drift(one.metric) for one in found.measured], found.side

    return file_parser(file, lambda random: mutated_toml(random, tree), read, num_fast=50)


def ratios(place: Place) -> Parser:
    file = place.scratch / "ratios.json"
    entry = {"name": "step / timm", "ratio": 1.2, "quartiles": [1.1, 1.3], "kind": "speed"}
    timing = {"name": "ours", "wall": [1.0, 1.1], "peak_bytes": 3}
    report = {"headline": "wall", "outcomes": [{"title": "step", "ours": "ours", "timings": [
        timing, {**timing, "name": "timm"}]}]}  # fmt: skip
    return file_parser(
        file, lambda random: mutated_json(random, random.choice(([entry], report))), lambda: read_ratios([file])
    )


def settings_file(place: Place) -> Parser:
    file = place.scratch / "run.toml"
    tree = {"ckpt": ["a", "b"], "seeds": [0, 1], "cluster": {"gpus": 2, "mem_gb": 1.5}, "overwrite": True}
    return file_parser(
        file, lambda random: mutated_toml(random, tree), lambda: with_config([f"--config={file}", "--limit", "3"])
    )


def model_arguments(place: Place) -> Parser:
    good = "num_heads=6,image_size=192x192,mean=0.5/0.5/0.5,pooling=avg,arch=vit"
    return Parser(make=lambda random: mutated_text(random, good), read=parse_details)


def references(place: Place) -> Parser:
    good = ("timm:vit_tiny@random", "open_clip:ViT-B-32/openai", "timm:vit_tiny=weights.pth", "runs/a")
    return Parser(make=lambda random: mutated_text(random, random.choice(good)), read=parse_reference)


def names_of_tasks(place: Place) -> Parser:
    from unveil_evalharness.tasks import load_task

    good = ("knn", "toy_task:ToyTask", "unveil_evalharness.tasks.knn.task:KnnTask")
    return Parser(make=lambda random: mutated_text(random, random.choice(good)), read=load_task, num_fast=50)


def rows_in_a_report(place: Place) -> Parser:
    """Strings of any kind in result rows, as they come out in the pages that people open."""
    from unveil_evalharness.report.command import ReportOptions
    from unveil_evalharness.report.command import main as report

    folder = place.scratch / "results"
    shutil.copytree(place.good / "eval" / "results", folder)
    rows = read_rows(folder / "results.jsonl")

    def make(random):
        return [_with_a_nasty_text(random, random.choice(rows)) for _ in range(_ROWS_AT_ONCE)]

    def read(given):
        import contextlib

        (folder / "results.jsonl").unlink()
        append_rows(folder / "results.jsonl", [*rows[:3], *given])
        options = parse_options(ReportOptions, "report", [str(folder), "--output", str(place.scratch / "out")])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return report(options)

    return Parser(make=make, read=read, allowed=(HarnessError,), at_once=_ROWS_AT_ONCE, num_fast=_ROWS_AT_ONCE)


_ROWS_AT_ONCE = 200
"""A report takes three seconds, most of it for figures: one of 200 rows hardly more than one of 50."""


def _with_a_nasty_text(random, row):
    name = random.choice(("label", "task", "suite", "unit", "hardware", "error", "time", "metric", "gallery"))
    return ResultRow(**{**vars_of(row), name: random.choice(NASTY_TEXTS)})


def vars_of(row):
    import dataclasses

    return dataclasses.asdict(row)


PARSERS = {
    function.__name__: function
    for function in (
        result_rows, results_through_correlate, large_results_through_correlate, manifest_copies, protocols,
        hashes, rows_through_verify, samples, table_of_a_user, parquet_of_a_user, json_lines_of_a_user,
        summary_of_a_sweep, policy, baseline, ratios, settings_file, model_arguments, references, names_of_tasks,
        rows_in_a_report,
    )
}  # fmt: skip

PARTS = {
    "results_through_correlate": 4,
    "large_results_through_correlate": 2,
    "manifest_copies": 2,
    "rows_in_a_report": 2,
}
"""Tests that share the ten thousand of a slow parser, so that several cores can take them."""


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs(name, place):
    parser = PARSERS[name](place)
    fuzz(parser, parser.num_fast)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(PARSERS, PARTS))
def test_ten_thousand_inputs(name, part, num_parts, place):
    fuzz(PARSERS[name](place), NUM_SLOW // num_parts, part=part)
