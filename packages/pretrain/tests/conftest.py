"""Checks shapes and types of every call into the package while its tests run, and makes small runs to test with."""

import io
import json
import multiprocessing
import socket
import tarfile
from dataclasses import replace
from pathlib import Path

import jaxtyping

# The hook rewrites modules as they are imported, so it has to stand before the first import of the package. The data
# package is left out: its protocol of a data set is not checkable at run time.
CHECKED = (
    "objectives",
    "losses",
    "contrastive",
    "targets",
    "inputs",
    "validate",
    "optim",
    "schedule",
    "train_state",
    "checkpointing",
)
jaxtyping.install_import_hook([f"unveil_pretrain.{module}" for module in CHECKED], "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402
from unveil_pretrain.objectives.simmim import SimMIMConfig  # noqa: E402
from unveil_pretrain.recipes import tiny_flip, tiny_mae, tiny_simmim  # noqa: E402

# The first example of a test may pay for imports; time limits say nothing about correctness here.
settings.register_profile("unveil", deadline=None, max_examples=40)
settings.load_profile("unveil")

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


def _picture(number, side):
    """A smooth picture that depends on its number, as JPEG."""
    rows, cols = np.mgrid[0:side, 0:side] / side
    phase = np.random.default_rng(number).uniform(0, 6, (3, 3))
    planes = [np.sin(a * 3 * rows + b * 3 * cols + c) * 120 + 128 for a, b, c in phase]
    stream = io.BytesIO()
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write_tar(path, samples):
    """A webdataset shard from {key: {extension: bytes}}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, files in samples.items():
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(path)


def _samples(numbers, side=40):
    return {
        f"{number:06d}": {
            "jpg": _picture(number, side),
            "json": json.dumps({"captions": [f"a {COLOURS[number % 6]} field number {number}"]}).encode(),
        }
        for number in numbers
    }


@pytest.fixture(scope="session")
def shard_writer():
    return write_tar


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Training (24) and validation (10) image-caption shards, as the loader's URLs."""
    folder = tmp_path_factory.mktemp("shards")
    return (
        write_tar(folder / "train-00000.tar", _samples(range(24))),
        write_tar(folder / "val-00000.tar", _samples(range(100, 110))),
    )


@pytest.fixture(scope="session")
def simmim_config():
    """SimMIM small enough for several runs in a test: 32 pixels, batches of 5, stochastic depth on."""
    return replace(
        tiny_simmim(),
        objective=SimMIMConfig(mask_unit=8, target_window=5),
        image_size=(32, 32),
        drop_path=0.2,
        steps=6,
        batch_size=5,
        warmup_steps=2,
        validate_every=2,
        checkpoint_every=3,
        gap_images=7,
    )


@pytest.fixture(scope="session")
def mae_config():
    small = replace(tiny_mae().objective, decoder_width=32, decoder_depth=1, decoder_heads=2)
    return replace(
        tiny_mae(), objective=small, image_size=(32, 32), steps=4, batch_size=5, validate_every=2, gap_images=7
    )


@pytest.fixture(scope="session")
def flip_config():
    small = replace(tiny_flip().objective, text_length=8, vocab_size=64, embed_dim=16, negative_pool=4)
    return replace(
        tiny_flip(),
        objective=small,
        image_size=(32, 32),
        steps=4,
        batch_size=6,
        warmup_steps=1,
        validate_every=2,
        checkpoint_every=2,
        gap_images=8,
    )


PROCESS = """
import os, runpy, sys, torch
os.environ.update(environment)
sys.argv = arguments
sys.stdout, sys.stderr = open(stdout, "w", buffering=1), open(stderr, "w", buffering=1)
torch.set_num_threads(1)
if code.endswith(".py"):
    runpy.run_path(code, run_name="__main__")
else:
    runpy.run_module(code, run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def in_processes(tmp_path):
    """Runs Python code in several processes that torchrun's variables connect by gloo.

    `in_processes(2, code, *arguments)` gives each process's standard output and fails with the first one's error;
    `code` is the text of a script or, in one word, the name of a module as for `python -m`.
    """

    def run(num, code, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        what = code
        if "\n" in code:
            what = str(tmp_path / f"processes_{port}.py")
            Path(what).write_text(code)
        # Forked from a server that has imported the package once; not from here, where autograd's threads may exist.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["unveil_pretrain.loop"])
        shared = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        files = [[tmp_path / f"{port}_{rank}.{kind}" for kind in ("out", "err")] for rank in range(num)]
        started = []
        for rank, (out, error) in enumerate(files):
            names = {
                "code": what,
                "arguments": [what, *map(str, arguments)],
                "environment": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "stdout": str(out),
                "stderr": str(error),
            }
            started.append(context.Process(target=exec, args=(PROCESS, names)))
            started[-1].start()
        for process in started:
            process.join(timeout=120)
            process.kill()
            process.join()
        for process, (_, error) in zip(started, files, strict=True):
            assert process.exitcode == 0, error.read_text()
        return [out.read_text() for out, _ in files]

    return run
