"""reads.jsonl: which reads of a run had to be tried again, from all its processes, and what status makes of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from unveil_pretrain.data.retrying import Retry
from unveil_pretrain.errors import OutputError
from unveil_pretrain.history import read_rows
from unveil_pretrain.journal import record_reads
from unveil_pretrain.record import RunFolder

SLOW = Retry("s3://bucket/a.tar: 000001", "503 SlowDown", 0.5)
LATE = Retry("s3://user:password@bucket/b.tar: 000002", "time-out", 0.25)


class World:
    """Two processes, of which the other one noted a time-out."""

    def __init__(self, writes):
        self.writes = writes

    def gather_objects(self, value):
        return [value, (LATE,)]


def record(path, retries, *, writes=True, gather=False, step=3):
    run = SimpleNamespace(world=World(writes), folder=RunFolder(path))
    return record_reads(run, SimpleNamespace(step=step), retries, gather=gather)


def test_the_first_process_writes_its_own_at_each_step(tmp_path):
    retries = [SLOW, SLOW]
    assert record(tmp_path, retries) is None
    assert retries == []
    assert record(tmp_path, retries, step=4) is None
    (row,) = read_rows(tmp_path / "reads.jsonl")
    assert row == {
        "step": 3,
        "retries": {"503 SlowDown": 2},
        "seconds_waited": 1.0,
        "last": "s3://bucket/a.tar: 000001 (503 SlowDown)",
    }


def test_those_of_others_come_when_all_meet(tmp_path):
    theirs = [SLOW]
    assert record(tmp_path, theirs, writes=False) is None
    assert theirs == [SLOW]  # kept until then
    assert not (tmp_path / "reads.jsonl").exists()
    assert record(tmp_path, theirs, writes=False, gather=True) is None
    assert theirs == []
    ours = [SLOW]
    record(tmp_path, ours, gather=True)
    (row,) = read_rows(tmp_path / "reads.jsonl")
    assert row["retries"] == {"503 SlowDown": 1, "time-out": 1}
    assert "password" not in json.dumps(row)


def test_a_folder_that_cannot_be_written_is_told_and_not_raised(tmp_path):
    assert isinstance(record(tmp_path / "none", [SLOW]), OutputError)


def test_rows_behind_the_checkpoint_are_removed(tmp_path):
    for step in (1, 2, 3):
        record(tmp_path, [SLOW], step=step)
    RunFolder(tmp_path).rewind(2)
    assert [row["step"] for row in read_rows(tmp_path / "reads.jsonl")] == [1, 2]


def test_a_run_writes_to_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"s3:/bucket/run is a URL"):
        RunFolder(Path("s3://bucket/run")).claim({}, {})
    assert not Path("s3:").exists()
