"""Small runs of both programs, in processes that can be killed, signalled and starved."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fork_server import ForkServer
from PIL import Image


def picture(number, side=40):
    """A smooth picture that depends on its number, as JPEG."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    planes = [
        np.sin(a * 3 * rows + b * 3 * columns + c) * 120 + 128
        for a, b, c in np.random.default_rng(number).uniform(0, 6, (3, 3))
    ]
    stream = io.BytesIO()
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write_shard(path, numbers):
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            captions = json.dumps({"captions": [f"field number {number} in {number % 5} colours"]}).encode()
            for suffix, content in (("jpg", picture(number)), ("json", captions)):
                info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Training and validation shards with captions, as the command takes them."""
    folder = tmp_path_factory.mktemp("shards")
    return write_shard(folder / "train.tar", range(24)), write_shard(folder / "val.tar", range(100, 110))


@pytest.fixture(scope="session")
def pretrain_server(tmp_path_factory):
    server = ForkServer(tmp_path_factory.mktemp("pretrain_server"), "pretrain_preload")
    yield server
    server.close()


SMALL = ("--image-size", "32", "32", "--steps", "6", "--batch-size", "6", "--warmup-steps", "1",
         "--validate-every", "2", "--checkpoint-every", "3", "--device", "cpu")  # fmt: skip
MIM = (
    "mim",
    "tiny_mae",
    *SMALL,
    "--gap-images",
    "7",
    "--decoder-width",
    "32",
    "--decoder-depth",
    "1",
    "--decoder-heads",
    "2",
)
FLIP = (
    "flip",
    "tiny_flip",
    *SMALL,
    "--gap-images",
    "8",
    "--negative-pool",
    "4",
    "--embed-dim",
    "16",
    "--text-length",
    "8",
)


@pytest.fixture(scope="session")
def pretrain_words(shards):
    """The words of a small run of `mim` or `flip` in a folder."""

    def words(command: str, out: Path, *more: str) -> list[str]:
        given = MIM if command == "mim" else FLIP
        return [*given, "--out", str(out), "--train-data", shards[0], "--val-data", shards[1], *more]

    return words


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """An image encoder and an image-text pair, tiny, as checkpoints."""
    import torch
    import unveil_backbones
    from unveil_backbones.manifest import Manifest, Preprocessing

    folder = tmp_path_factory.mktemp("subjects")

    def save(objective, heads=None, text=None, tokenizer_json=None):
        manifest = Manifest(
            encoder=encoder.spec, text=text, objective=objective, seed=0, step=10, samples_seen=80, unique_samples=16,
            preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            mask={"strategy": "random", "ratio": 0.5}, realised_ratio=0.5, tokens_seen=640, device_seconds=1.0,
            data_hash="0" * 16, num_parameters=encoder.num_parameters, versions={}, created="2024-01-01T00:00:00+00:00",
        )  # fmt: skip
        path = folder / objective / "step_00000010"
        return unveil_backbones.save(
            path, encoder=encoder, manifest=manifest, heads=heads, tokenizer_json=tokenizer_json
        )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = unveil_backbones.create("vit_tiny", image_size=32)
        tokenizer = unveil_backbones.WordPieceTokenizer.train(["a field in five colours"], 60, length=8)
        tower = unveil_backbones.create_text("text_tiny", tokenizer.vocab_size, tokenizer.length)
        pair = unveil_backbones.ImageTextPair(encoder, tower, embed_dim=16)
    return {
        "mae": save("mae"),
        "flip": save("flip", heads=pair.heads_state(), text=tower.spec, tokenizer_json=tokenizer.to_json()),
    }


@pytest.fixture(scope="session")
def eval_data(tmp_path_factory):
    """Labelled squares and captioned pictures, as the tasks look for them."""
    from squares import COLOURS, write_squares

    root = tmp_path_factory.mktemp("eval_data")
    write_squares(root, dict(list(COLOURS.items())[:3]), train=4, val=2)
    (root / "captions").mkdir()
    write_shard(root / "captions" / "val-00000.tar", range(200, 206))
    return root


@pytest.fixture(scope="session")
def harness_server(tmp_path_factory):
    server = ForkServer(
        tmp_path_factory.mktemp("harness_server"), "unveil_evalharness.cli", "unveil_evalharness.commands.run",
        "unveil_evalharness.tasks.knn.task", "unveil_evalharness.tasks.zs_retrieval.task", "polars",
        "unveil_evalharness.engine.interim", "unveil_evalharness.report.command", "unveil_backbones.checkpoint",
        "unveil_backbones.pair",
    )  # fmt: skip
    yield server
    server.close()


@pytest.fixture(scope="session")
def training_server(tmp_path_factory):
    """As `harness_server`, with the engine: importing it takes longer than all of the rest."""
    server = ForkServer(
        tmp_path_factory.mktemp("training_server"),
        "unveil_evalharness.commands.run",
        "unveil_backbones.checkpoint",
        "mm_preload",
        "polars",
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def harness_words(subjects, eval_data):
    """The words of a run of some tasks into a folder."""

    def words(tasks: str, out: Path, *more: str) -> list[str]:
        ckpt = subjects["flip" if "zs_retrieval" in tasks else "mae"]
        return ["run", "--ckpt", str(ckpt), "--data-root", str(eval_data), "--output-path", str(out), "--tasks", tasks,
                "--device", "cpu", "--no-progress", *more]  # fmt: skip

    return words


@pytest.fixture(scope="session")
def results(harness_server, harness_words, tmp_path_factory):
    """The output folder of a finished run of one task. Shared: do not write into it."""
    out = tmp_path_factory.mktemp("results") / "out"
    ended = harness_server.run("fault_children:evalharness", harness_words("knn", out), {})
    assert ended.code == 0, ended.err
    return out
