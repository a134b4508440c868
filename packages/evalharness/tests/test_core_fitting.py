"""`--batch-size auto` by memory errors; what an explicit batch size says when memory runs out."""

import json
import subprocess
import sys

import pytest
import torch
from unveil_evalharness.errors import BatchTooLargeError, DataError, OutOfMemoryError, ProtocolError
from unveil_evalharness.fitting import run_in_memory
from unveil_evalharness.memory import available_memory, is_out_of_memory
from unveil_evalharness.task import TaskResult

RESULT = TaskResult(metrics=())


def task_that_fits(most, tried):
    def run(size):
        tried.append(size)
        if size is None or size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return RESULT

    return run


@pytest.mark.parametrize(
    ("total", "most", "size", "tried"),
    [
        (16, 4, 4, [None, 8, 4]),
        (12, 5, 2, [None, 6, 2]),
        (None, 20, 16, [None, 32, 16]),
        (16, 1, 1, [None, 8, 4, 2, 1]),
    ],
)
def test_halved_until_it_fits(tmp_path, total, most, size, tried):
    done, lines = [], []
    result = run_in_memory(task_that_fits(most, done), total=total, asked=None, work=tmp_path, log=lines.append)
    assert result == (RESULT, size)
    assert done == tried
    first = total or 64
    assert lines[0].startswith(f"out of memory with {first} images per pass (CUDA out of memory.")
    assert json.loads((tmp_path / "batch.json").read_text()) == {"batch_size": size}


def test_the_next_run_of_an_interrupted_cell_begins_where_this_one_ended(tmp_path):
    for tried in ([None, 8, 4], [4]):
        done = []
        run_in_memory(task_that_fits(4, done), total=16, asked=None, work=tmp_path, log=lambda line: None)
        assert done == tried


def test_half_a_note_is_no_note(tmp_path):
    note = tmp_path / "batch.json"
    note.write_text('{"batch')
    done = []
    run_in_memory(task_that_fits(8, done), total=16, asked=None, work=tmp_path, log=lambda line: None)
    assert done == [None, 8]


def test_what_fits_at_once_is_the_whole_batch(tmp_path):
    for total, size in ((16, 16), (None, 0)):
        result = run_in_memory(lambda size: RESULT, total=total, asked=None, work=tmp_path, log=lambda line: None)
        assert result == (RESULT, size)
    assert not (tmp_path / "batch.json").exists()


def test_a_probe_names_the_size_to_try(tmp_path):
    done = []

    def run(size):
        done.append(size)
        if size is None:
            raise BatchTooLargeError("a training pass of 16 images does not fit into memory", fitting=2)
        return RESULT

    assert run_in_memory(run, total=16, asked=None, work=tmp_path, log=lambda line: None) == (RESULT, 2)
    assert done == [None, 2]


def refuse(tmp_path, run, **options):
    with pytest.raises(OutOfMemoryError) as caught:
        run_in_memory(run, work=tmp_path, log=lambda line: None, **options)
    return str(caught.value)


def test_a_size_that_was_asked_for_is_not_changed(tmp_path):
    done = []
    message = refuse(tmp_path, task_that_fits(4, done), total=16, asked=8)
    assert done == [8]
    assert message.startswith("out of memory with --batch-size 8 (CUDA out of memory.")
    assert message.endswith("give a smaller one, or --batch-size auto")


def test_nothing_fits(tmp_path):
    message = refuse(tmp_path, task_that_fits(0, []), total=4, asked=None)
    assert message.startswith("out of memory even with 1 image(s) per pass")
    assert "--batch-size cannot help" in message


def test_a_protocol_that_allows_no_smaller_pass_says_so(tmp_path):
    def run(size):
        if size is None:
            raise MemoryError
        raise ProtocolError("batch normalisation needs two images")

    message = refuse(tmp_path, run, total=2, asked=None)
    assert message == "out of memory with 2 images per pass, and with 1: batch normalisation needs two images"


@pytest.mark.parametrize("error", [DataError("x"), RuntimeError("shapes"), ProtocolError("odd")])
def test_other_errors_pass(tmp_path, error):
    def run(size):
        raise error

    with pytest.raises(type(error)) as caught:
        run_in_memory(run, total=16, asked=None, work=tmp_path, log=lambda line: None)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_torch_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)


PEAK = """
import torch
from unveil_evalharness.memory import peak_memory
torch.ones(200 * 2**20 // 4)  # an earlier peak, which is over
with peak_memory("cpu") as before:
    pass
with peak_memory("cpu") as peak:
    held = torch.ones(64 * 2**20 // 4)
    del held
print(peak.bytes - before.bytes)
"""


def test_the_peak_is_what_was_held_in_the_block():
    """In a process of its own: one that has done much holds pages that it does not use, and gives them again."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 0.8 * 64 * 2**20 < int(done.stdout) < 1.5 * 64 * 2**20
    assert 2**20 < available_memory("cpu") < 2**50
