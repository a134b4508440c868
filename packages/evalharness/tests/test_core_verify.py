"""`evalharness verify`: what was tampered with is found, and only that."""

import json
import shutil
from dataclasses import replace

import polars
import pytest
from toy_task import ToyTask, loader
from unveil_evalharness.cli import main
from unveil_evalharness.commands.verify import VerifyOptions, examine
from unveil_evalharness.results import append_rows, read_rows
from unveil_evalharness.run import run
from unveil_evalharness.task import Picture, TaskResult


class Showing(ToyTask):
    """A toy with a table and a picture, whose score is the mean of a column."""

    def run(self, context):
        result = super().run(context)
        return TaskResult(
            metrics=result.metrics,
            samples=polars.DataFrame({"key": list("abcd"), "score": [True, True, True, False]}),
            tables={"per_class": polars.DataFrame({"class": ["x"]})},
            gallery=(Picture(encoded=b"\x89PNG....", caption="a", outcome="good"),),
            load_coverage=1.0,
        )


@pytest.fixture
def finished(options, mae_checkpoint, tmp_path):
    """A finished run over a copy of the checkpoint, and how its findings are got."""
    copy = shutil.copytree(mae_checkpoint, tmp_path / "copy")
    options = replace(options, ckpt=(copy,))
    run(options, load=loader(Showing()))

    def find(*, task=None, data_root=None):
        verify = VerifyOptions(folder=options.output_path, data_root=data_root)
        return examine(verify, load=loader(task or Showing()))

    return options, find


def problems(findings):
    return [(finding.subject.split(" (")[0], finding.detail) for finding in findings if finding.state == "problem"]


def test_an_untouched_run_has_no_problem(finished):
    options, find = finished
    findings = find(data_root=options.data_root)
    assert [(finding.state, finding.subject.split()[0]) for finding in findings] == [
        ("ok", "results.jsonl"),
        ("ok", "manifest"),
        ("ok", "checkpoint"),
        ("ok", "protocol"),
        ("ok", "data"),
        ("ok", "files"),
        ("ok", "metrics"),
    ]
    assert findings[-2].detail == "4 files"
    assert findings[-1].detail == "1 computed again, 1 do not follow from the outcomes"


def damage_row(out, copy, value=0.9):
    rows = [replace(row, value=value) if row.main else row for row in read_rows(out / "results.jsonl")]
    (out / "results.jsonl").unlink()
    append_rows(out / "results.jsonl", rows)


def lose_value(out, copy):
    damage_row(out, copy, value=None)


def damage_samples(out, copy):
    (file,) = (out / "samples").iterdir()
    polars.DataFrame({"key": list("abcd"), "score": [True, True, False, False]}).write_parquet(file)


def damage_table(out, copy):
    next((out / "tables").iterdir()).unlink()


def damage_picture(out, copy):
    next((out / "gallery").glob("*/00.png")).write_bytes(b"another")


def damage_hashes(out, copy):
    (file,) = (out / "hashes").iterdir()
    file.write_text(file.read_text().replace("0", "1"))


def lose_hashes(out, copy):
    shutil.rmtree(out / "hashes")


def damage_protocol(out, copy):
    (file,) = (out / "protocols").iterdir()
    file.write_text(file.read_text().replace('"steps": 3', '"steps": 4'))


def lose_protocol(out, copy):
    next((out / "protocols").iterdir()).unlink()


def damage_manifest(out, copy):
    (file,) = (out / "manifests").iterdir()
    file.write_text(file.read_text() + " ")


def lose_manifest(out, copy):
    next((out / "manifests").iterdir()).unlink()


def damage_weights(out, copy):
    file = copy / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def replace_checkpoint(out, copy):
    file = copy / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 77}))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (damage_row, [("metrics of toy", "toy.score is 0.750000 by its outcomes, 0.900000 in the row")]),
        (lose_value, [("metrics of toy", "toy.score is 0.750000 by its outcomes, nan in the row")]),
        (
            damage_samples,
            [
                ("files of toy", "parquet was changed"),
                ("metrics of toy", "toy.score is 0.500000 by its outcomes, 0.750000 in the row"),
            ],
        ),
        (damage_table, [("files of toy", "per_class.parquet is missing")]),
        (damage_picture, [("files of toy", "00.png was changed")]),
        (damage_hashes, [("files of toy", "was changed")]),
        (lose_hashes, [("files of toy", "is missing")]),
        (damage_protocol, [("protocol", "its fields give the fingerprint")]),
        (lose_protocol, [("protocol", "cannot be read: ")]),
        (damage_manifest, [("manifest", "it is not the manifest of mae vit_tiny u=16 s=10 any more")]),
        (lose_manifest, [("manifest", "the copy of mae vit_tiny u=16 s=10's manifest is missing")]),
        (damage_weights, [("checkpoint", "encoder.safetensors")]),
        (replace_checkpoint, [("checkpoint", "is another checkpoint now")]),
    ],
)
def test_what_was_changed_is_found(finished, tmp_path, damage, found):
    options, find = finished
    damage(options.output_path, tmp_path / "copy")
    told = problems(find())
    assert len(told) == len(found)
    for (subject, detail), (expected_subject, words) in zip(told, found, strict=True):
        assert subject.startswith(expected_subject)
        assert words in detail


def test_other_data_is_a_problem_where_it_is_looked_at(finished):
    options, find = finished
    other = Showing(hash="data-2")
    assert problems(find(task=other)) == []
    told = problems(find(task=other, data_root=options.data_root))
    assert told == [("data of toy", "is data-2 now; rows were measured on data-1")]
    missing = problems(find(task=Showing(hash=""), data_root=options.data_root))
    assert missing == [("data of toy", "the toy's data is missing")]


def test_what_cannot_be_looked_at_is_a_warning(finished, tmp_path):
    _, find = finished
    shutil.rmtree(tmp_path / "copy")
    states = {finding.subject.split()[0]: finding.state for finding in find()}
    assert (states["checkpoint"], states["data"]) == ("warning", "warning")


def test_a_protocol_of_another_version_of_the_harness_is_a_warning(finished):
    _, find = finished
    (finding,) = [finding for finding in find(task=Showing(version=2)) if finding.subject.startswith("protocol")]
    assert finding.state == "warning"
    assert "measures by another protocol now" in finding.detail


def test_rows_that_were_replaced_are_not_looked_at(finished):
    options, find = finished
    run(replace(options, overwrite=True), load=loader(Showing(value=0.75)))
    assert problems(find()) == []


def test_the_command_line(options, capsys, monkeypatch, tmp_path):
    run(options, load=loader(ToyTask()))
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["verify", str(options.output_path)]) == 0
    assert "warning  protocol" in capsys.readouterr().out  # the toy is no task of the harness
    lose_manifest(options.output_path, None)
    assert main(["verify", str(options.output_path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert {"subject", "state", "detail"} == findings[0].keys()
    assert [finding["state"] for finding in findings].count("problem") == 1
    (options.output_path / "results.jsonl").write_text("garbage\n")
    assert main(["verify", str(options.output_path)]) == 1
    assert "is not a JSON line" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 2
    assert "results.jsonl is not there; give the --output-path" in capsys.readouterr().err
