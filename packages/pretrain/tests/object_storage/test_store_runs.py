"""Runs, their audit and their status on shards in a store that fails now and then."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from object_store import KEY, SECRET
from unveil_pretrain.cli import main
from unveil_pretrain.data.audit import audit
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.errors import SourceError

# Python 3.12 and later say so when a process with threads (the server's, fsspec's) forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

QUICK = ReadPolicy(timeout=30.0, tries=3, first_wait=0.01)
URLS = "s3://bucket/train-{00..03}.tar"


def test_the_audit_reads_a_store_and_counts(store, folder, capsys, tmp_path):
    local = audit(f"{folder}/train-{{00..03}}.tar")
    store.begin_anew(lambda request, number: "503" if number == 2 and request.method == "GET" else None)
    remote = audit(URLS, policy=QUICK, num_workers=2)
    assert sum(remote.retries.values()) == remote.retries["503 SlowDown"] == 4
    assert (remote.content_hash, remote.num_readable, remote.findings) == (local.content_hash, 24, local.findings)
    assert local.retries == {}
    store.begin_anew(lambda request, number: "404" if "train-01" in request.path and number > 2 else None)
    with pytest.raises(SystemExit, match="1"):
        main(["audit", URLS, "--json", str(tmp_path / "a.json")])
    printed = capsys.readouterr()
    assert "s3://bucket/train-01.tar: 00001" in printed.out
    assert "reads     none had to be tried again" in printed.out
    for text in (printed.out, printed.err, (tmp_path / "a.json").read_text()):
        assert SECRET not in text
        assert KEY not in text


def run_config(config):
    return replace(config, steps=4, validate_every=2, checkpoint_every=2, batch_size=6)


def train_on(config, out, urls, val, **changed):
    from unveil_pretrain.loop import train

    lines = []
    options = {"num_workers": 2, "loggers": (), "progress": False, "reading": QUICK} | changed
    return train(config, out=out, train_data=urls, val_data=val, log=lines.append, **options), lines


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.slow
def test_training_from_a_store_through_faults_is_training_from_a_disk(store, folder, tmp_path, simmim_config, capsys):
    config = run_config(simmim_config)
    train_on(config, tmp_path / "local", f"{folder}/train-{{00..03}}.tar", f"{folder}/val-00.tar")
    store.fault = lambda request, number: "503" if number == 3 and request.method == "GET" else None
    checkpoint, _ = train_on(config, tmp_path / "remote", URLS, "s3://bucket/val-00.tar")
    for name in ("metrics.jsonl", "val.jsonl"):
        here, there = (rows(tmp_path / place / name) for place in ("local", "remote"))
        assert [row["loss"] for row in here] == [row["loss"] for row in there]
    reads = rows(tmp_path / "remote" / "reads.jsonl")
    assert sum(row["retries"]["503 SlowDown"] for row in reads) == 5
    assert not (tmp_path / "local" / "reads.jsonl").exists()
    main(["status", str(tmp_path / "remote")])
    assert "reads       5 tried again: 503 SlowDown 5" in capsys.readouterr().out
    main(["status", str(tmp_path / "local")])
    assert "reads       none had to be tried again" in capsys.readouterr().out
    main(["score", "--ckpt", str(checkpoint), "--images", "s3://bucket/val-00.tar"])
    assert "under the same passport" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_its_store_left_goes_on_as_if_nothing_had_been(store, folder, tmp_path, simmim_config, capsys):
    config = run_config(simmim_config)
    train_on(config, tmp_path / "local", f"{folder}/train-{{00..03}}.tar", f"{folder}/val-00.tar")
    out = tmp_path / "remote"
    with pytest.MonkeyPatch.context() as patch:

        def leave(*arguments):
            store.fault = lambda request, number: "503"

        from unveil_pretrain import loop

        save = loop.save_checkpoint
        patch.setattr(loop, "save_checkpoint", lambda run, position: (save(run, position), leave())[0])
        with pytest.raises(SourceError, match=r"s3://bucket/train-0\d\.tar: 0000\d\d: not read in 3 tries.*repeat the"):
            train_on(config, out, URLS, "s3://bucket/val-00.tar", num_workers=0)
    assert rows(out / "reads.jsonl")[-1]["retries"] == {"503 SlowDown": 3}
    store.fault = lambda request, number: None
    train_on(config, out, URLS, "s3://bucket/val-00.tar")
    here, there = (rows(place / "metrics.jsonl") for place in (tmp_path / "local", out))
    assert [(row["step"], row["loss"]) for row in here] == [(row["step"], row["loss"]) for row in there]
