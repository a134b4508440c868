"""`python -m benchmarks.object_storage` counts requests of a server on this machine, one for each sample."""

import os

import pytest

from benchmarks.object_storage import main


@pytest.mark.slow
def test_it_counts_and_times(capsys, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards
    assert main(["--samples", "8", "--bytes", "1000", "--threads", "2", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "opening   8 requests for 4 shards, 8 samples"
    assert lines[1] == "reading   1.000 requests a sample, 1,000 bytes of it"
    assert [line.split()[0] for line in lines[2:]] == ["disk", "store"]
