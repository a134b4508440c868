"""`run` refuses bad input before any work, and earlier results stay as they are."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy_task import ToyTask, loader
from unveil_evalharness.cells import claim
from unveil_evalharness.errors import (
    CheckpointInputError,
    DataError,
    OutputError,
    UnknownTaskError,
    UsageError,
)
from unveil_evalharness.results import append_rows
from unveil_evalharness.run import run


def test_a_missing_data_folder_is_refused(options, tmp_path):
    with pytest.raises(DataError, match=r"--data-root .*nowhere is not a folder"):
        run(replace(options, data_root=tmp_path / "nowhere"), load=loader(ToyTask()))
    assert not options.output_path.exists()


@pytest.mark.parametrize("flag", ["data_root", "output_path"])
def test_a_url_is_no_folder(options, tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"--{flag.replace('_', '-')} s3:/bucket/place is a URL; .*copy or mount"):
        run(replace(options, **{flag: Path("s3://bucket/place")}), load=loader(ToyTask()))
    assert not Path("s3:").exists()


def test_an_unknown_task_names_its_neighbours(options):
    with pytest.raises(UnknownTaskError, match="unknown task 'coco_dat'; did you mean coco_det"):
        run(replace(options, tasks=("coco_dat",)))
    assert not options.output_path.exists()


def damage_missing(folder):
    shutil.rmtree(folder)


def damage_truncated(folder):
    file = folder / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def damage_altered(folder):
    file = folder / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def damage_manifest(folder):
    file = folder / "manifest.json"
    file.write_text(file.read_text()[:100])


def damage_format(folder):
    edit(folder, format_version=2)


def damage_architecture(folder):
    edit(folder, encoder={"name": "resnet50", "config": {"depth": 50}})


def edit(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "does not exist; give a checkpoint directory"),
        (damage_truncated, "encoder.safetensors"),
        (damage_altered, "encoder.safetensors"),
        (damage_manifest, "manifest.json is not complete JSON"),
        (damage_format, "has format 2, this unveil-backbones reads 1; upgrade"),
        (damage_architecture, "resnet50"),
    ],
)
def test_a_bad_checkpoint_is_refused_before_any_work_and_earlier_results_stay(
    options, mae_checkpoint, tmp_path, damage, message
):
    run(options, load=loader(ToyTask()))
    before = (options.output_path / "results.jsonl").read_bytes()
    bad = shutil.copytree(mae_checkpoint, tmp_path / "bad")
    edit(bad, seed=77)  # another checkpoint than the one already evaluated
    damage(bad)
    task = ToyTask()
    with pytest.raises(CheckpointInputError, match=message) as caught:
        run(replace(options, ckpt=(mae_checkpoint, bad), seeds=(0, 1)), load=loader(task))
    assert str(caught.value).startswith("--ckpt")
    assert "\n" not in str(caught.value)
    assert task.contexts == []
    assert (options.output_path / "results.jsonl").read_bytes() == before


def test_an_output_path_that_is_a_file_is_refused(options):
    options.output_path.write_text("")
    with pytest.raises(OutputError, match=r"cannot write --output-path .*out: .*; earlier results are intact"):
        run(options, load=loader(ToyTask()))


def test_a_read_only_output_path_is_refused(options, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # Permissions would not stop root, who runs tests in containers.
    monkeypatch.setattr(Path, "mkdir", refuse)
    task = ToyTask()
    with pytest.raises(
        OutputError, match=r"cannot write --output-path .*out: Read-only file system; .* choose a folder"
    ):
        run(options, load=loader(task))
    assert task.contexts == []


@pytest.mark.parametrize("what", ["results.jsonl", "parquet"])
def test_a_disk_that_fills_up_stops_the_run_and_earlier_rows_stay(options, monkeypatch, what):
    run(options, load=loader(ToyTask()))
    before = (options.output_path / "results.jsonl").read_bytes()

    fsync = os.fsync

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse_rows(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "results.jsonl":
            refuse()
        fsync(descriptor)

    if what == "parquet":
        monkeypatch.setattr(Path, "replace", refuse)
    else:
        monkeypatch.setattr(os, "fsync", refuse_rows)
    options = replace(options, seeds=(0, 1))
    if what == "parquet":
        with pytest.raises(OutputError, match="No space left on device; earlier results are intact"):
            run(options, load=loader(ToyTask()))
    else:
        with pytest.raises(OutputError, match=r"results\.jsonl: No space left on device; earlier rows are intact"):
            run(options, load=loader(ToyTask()))
    monkeypatch.undo()
    assert (options.output_path / "results.jsonl").read_bytes() == before
    assert run(options, load=loader(ToyTask())).num_run == 1


def test_a_claim_is_held_by_one_process_and_ends_with_it(tmp_path):
    lock = tmp_path / "work" / "cell.lock"
    program = f"""
import sys
from pathlib import Path
from unveil_evalharness.cells import claim
with claim(Path({str(lock)!r}), wait=False) as mine:
    print(mine is not None, flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    with claim(lock, wait=False) as mine:
        assert not mine
    other.kill()
    other.communicate()
    with claim(lock, wait=True) as mine:
        assert mine
    assert list(lock.parent.iterdir()) == []


def test_a_damaged_result_file_stops_the_run_and_is_not_touched(options):
    run(options, load=loader(ToyTask()))
    path = options.output_path / "results.jsonl"
    path.write_text("garbage\n" + path.read_text())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"results\.jsonl:1 is not a JSON line"):
        run(options, load=loader(ToyTask()))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ckpt": ()}, "--ckpt is empty"),
        ({"tasks": ()}, "--tasks is empty"),
        ({"seeds": ()}, "--seeds is empty"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"batch_size": -1}, "--batch-size must be at least 1, got -1"),
        ({"seeds": (0, -2)}, "--seeds must not be negative, got -2"),
    ],
)
def test_impossible_options(options, change, message):
    with pytest.raises(UsageError, match=message):
        replace(options, **change)


def test_foreign_rows_in_the_same_file_do_not_matter(options):
    summary = run(options, load=loader(ToyTask()))
    foreign = [replace(row, checkpoint_sha256="f" * 64) for row in summary.rows]
    append_rows(options.output_path / "results.jsonl", foreign)
    again = run(options, load=loader(ToyTask()))
    assert again.rows == summary.rows
