"""The result file: whole rows only, whatever happens to the process or the disk."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import polars
import pytest
from unveil_evalharness.errors import OutputError, ResultsError
from unveil_evalharness.results import ResultRow, append_rows, latest, read_rows, row_key, to_frame

ROW = ResultRow(
    checkpoint="runs/a/step_00000010",
    checkpoint_sha256="ab" * 32,
    label="simmim",
    task="toy",
    task_version=1,
    suite="quick",
    protocol="0123456789abcdef",
    status="ok",
    metric="toy.score",
    main=True,
    value=0.5,
    baseline=0.1,
    standard_error=0.05,
    n=10,
    seed=0,
    data_hash="d",
    versions={"numpy": "2"},
)


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    rows = [ROW, replace(ROW, status="failed", value=None, error="it broke: “ä”")]
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    assert read_rows(path) == rows


def test_an_absent_file_holds_no_rows(tmp_path):
    assert read_rows(tmp_path / "results.jsonl") == []


def test_nothing_is_written_for_no_rows(tmp_path):
    append_rows(tmp_path / "results.jsonl", [])
    assert not (tmp_path / "results.jsonl").exists()


def test_half_a_row_left_by_a_killed_process_is_ignored_and_then_removed(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW, ROW])
    whole = path.read_bytes()
    for cut in (1, 50, len(whole) // 2 - 2):
        path.write_bytes(whole + whole[:cut])
        assert len(read_rows(path)) == 2
        append_rows(path, [ROW])
        assert read_rows(path) == [ROW] * 3


def test_a_whole_last_row_without_newline_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_rows(path) == [ROW]
    append_rows(path, [ROW])
    assert read_rows(path) == [ROW, ROW]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"results\.jsonl:2 is not a JSON line"),
        ("[]", "has no schema_version"),
        (json.dumps({"schema_version": 2}), "schema_version 2, this unveil-evalharness reads 1; upgrade"),
        (json.dumps({"schema_version": 1, "colour": "red"}), "is not a result row"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    with path.open("a") as file:
        file.write(line + "\n")
    append_rows(path, [ROW])
    with pytest.raises(ResultsError, match=message):
        read_rows(path)


def test_a_field_of_the_wrong_type_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    path.write_text(path.read_text().replace('"n": 10', '"n": "ten"'))
    with pytest.raises(ResultsError, match="field n must be int, got 'ten'"):
        read_rows(path)


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_rows(tmp_path / "results.jsonl", [replace(ROW, value=float("nan"))])


def test_a_write_that_does_not_fit_on_the_disk_is_taken_back(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    before = path.read_bytes()
    # A file-size limit makes the kernel write a part of the block and then refuse, as a full disk does.
    program = f"""
import resource, signal, sys
from pathlib import Path
from unveil_evalharness.errors import OutputError
from unveil_evalharness.results import append_rows, read_rows
path = Path({str(path)!r})
rows = read_rows(path) * 3
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)} + 300, {len(before)} + 300))
try:
    append_rows(path, rows)
except OutputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "earlier rows are intact; free space or choose another --output-path" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*results\.jsonl"):
        append_rows(tmp_path / "file" / "results.jsonl", [ROW])


def test_processes_that_write_at_once_do_not_mix_their_rows(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [ROW])
    program = f"""
import dataclasses, sys
from pathlib import Path
from unveil_evalharness.results import append_rows, read_rows
path = Path({str(path)!r})
row = read_rows(path)[0]
for i in range(20):
    append_rows(path, [dataclasses.replace(row, seed=1000 * int(sys.argv[1]) + i)] * 3)
"""
    workers = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in (1, 2, 3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    seeds = [row.seed for row in read_rows(path)]
    assert sorted(seeds[1:]) == sorted(1000 * n + i for n in (1, 2, 3) for i in range(20) for _ in range(3))
    # Each block of three is one write.
    assert all(len(set(seeds[start : start + 3])) == 1 for start in range(1, len(seeds), 3))


def test_latest_keeps_the_last_row_of_each_measurement():
    rows = [ROW, replace(ROW, seed=1), replace(ROW, value=0.6)]
    assert latest(rows) == [rows[2], rows[1]]


@pytest.mark.parametrize("change", [{"limit": 5, "limited": True}, {"data_hash": "e"}, {"protocol": "f" * 16}])
def test_other_data_protocol_or_limit_is_another_measurement(change):
    other = replace(ROW, **change)
    assert row_key(other) != row_key(ROW)
    assert latest([ROW, other]) == [ROW, other]


def test_a_failure_hides_no_success_and_a_success_hides_the_failure():
    failed = replace(ROW, status="failed", value=None)
    before_data = replace(failed, data_hash="")
    assert latest([ROW, failed]) == [ROW]
    assert latest([failed, ROW]) == [ROW]
    assert latest([before_data, ROW]) == [ROW]
    assert latest([ROW, before_data]) == [ROW]
    assert latest([failed, replace(failed, error="again")]) == [replace(failed, error="again")]


def test_the_frame_has_one_typed_column_per_field():
    frame = to_frame([ROW, replace(ROW, value=None, limit=3)])
    assert frame.columns == list(ROW.__dataclass_fields__)
    assert frame.schema["value"] == polars.Float64
    assert frame.schema["limit"] == polars.Int64
    assert frame["versions"].to_list() == ['{"numpy": "2"}'] * 2
    assert to_frame([]).columns == frame.columns


def test_reading_results_loads_no_torch():
    program = "import sys, unveil_evalharness.results; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, env=os.environ).returncode == 0
