"""The repository gates itself: a tiny checkpoint, evaluated and held against the baseline in ``tests/gate``.

    python tools/self_gate.py                                   # exit 0 while evaluation gives what it gave
    python tools/self_gate.py --perturb 0.5                     # a planted regression: exit 1
    python tools/self_gate.py --record --reason "knn votes anew"    # promote, after a change that was meant

The images are drawn, the weights come from NumPy's generator, and the image projection is fitted in closed form, so
that every machine evaluates the same checkpoint up to rounding; nothing is downloaded and nothing is trained by steps.
The margin in ``tests/gate/policy.toml`` leaves room for rounding, not for a change of the evaluation.
"""

import argparse
import io
import json
import struct
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import unveil_backbones
from unveil_backbones.manifest import Manifest, Preprocessing
from unveil_evalharness.cli import main as evalharness

__all__ = ["build_checkpoint", "main", "write_data"]

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "tests" / "gate" / "baseline.toml"
POLICY = ROOT / "tests" / "gate" / "policy.toml"
TASKS = "zs_retrieval,knn"
COLOURS = {"red": (210, 60, 50), "green": (70, 180, 80), "blue": (60, 80, 200), "grey": (130, 130, 130)}
SHAPES = ("square", "disc", "cross", "stripes")
SIDE = 32
NUM_TRAIN, NUM_VAL = 24, 12
"""Images of each colour and shape."""
RIDGE = 1e-2


def draw(colour: str, shape: str, generator: np.random.Generator) -> np.ndarray:
    """One noisy picture, [side, side, 3] bytes."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y = generator.integers(9, SIDE - 9, size=2)
    radius = int(generator.integers(5, 9))
    near_x, near_y = abs(columns - x), abs(rows - y)
    inside = {
        "square": (near_x <= radius) & (near_y <= radius),
        "disc": near_x**2 + near_y**2 <= radius**2,
        "cross": ((near_x <= 2) | (near_y <= 2)) & (near_x <= radius) & (near_y <= radius),
        "stripes": (rows // 3 % 2 == 0) & (near_x <= radius),
    }[shape]
    picture = np.full((SIDE, SIDE, 3), generator.integers(0, 90, size=3), dtype=np.float64)
    picture[inside] = COLOURS[colour]
    return np.clip(picture + generator.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)


def as_png(picture: np.ndarray) -> bytes:
    """A PNG file without compression: its bytes, and so the data hash, do not depend on the version of zlib."""
    lines = np.concatenate([np.zeros((SIDE, 1), np.uint8), picture.reshape(SIDE, -1)], axis=1).tobytes()
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(lines), len(lines) ^ 0xFFFF) + lines
    stored += struct.pack(">I", zlib.adler32(lines))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def captions(colour: str, shape: str) -> list[str]:
    """What is said of every picture of one kind."""
    return [f"a {colour} {shape}", f"a {shape} that is {colour}"]


def write_data(root: Path) -> list[tuple[np.ndarray, int]]:
    """Writes validation images for both tasks and training images for knn; returns the latter with their kinds."""
    generator = np.random.default_rng(0)
    training: list[tuple[np.ndarray, int]] = []
    (root / "captions").mkdir(parents=True)
    with tarfile.open(root / "captions" / "val-00000.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for kind, (colour, shape) in enumerate(product(COLOURS, SHAPES)):
            for number in range(NUM_TRAIN + NUM_VAL):
                picture = draw(colour, shape, generator)
                split = "train" if number < NUM_TRAIN else "val"
                file = root / "imagenet" / split / f"{colour}_{shape}" / f"{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(as_png(picture))
                if split == "train":
                    training.append((picture, kind))
                    continue
                text = json.dumps({"captions": captions(colour, shape)}).encode()
                for suffix, content in (("png", as_png(picture)), ("json", text)):
                    member = tarfile.TarInfo(f"{kind:02d}_{number:03d}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    return training


def build_checkpoint(path: Path, training: Sequence[tuple[np.ndarray, int]], *, perturb: float) -> Path:
    """An image-text pair with drawn weights whose image projection is fitted to `training` in closed form.

    Args:
        path: the folder to make.
        training: pictures and their kinds.
        perturb: noise added to the encoder after the fit, as a share of each weight's spread: the planted regression.
    """
    texts = [captions(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    tokenizer = unveil_backbones.WordPieceTokenizer.train([text for both in texts for text in both], 120, length=12)
    encoder = unveil_backbones.create("vit_tiny", image_size=SIDE)
    tower = unveil_backbones.create_text("text_tiny", tokenizer.vocab_size, tokenizer.length)
    pair = unveil_backbones.ImageTextPair(encoder, tower, embed_dim=32).eval()
    generator = np.random.default_rng(1)
    with torch.no_grad():
        _draw_weights(pair, generator)
        pictures = torch.from_numpy(np.stack([picture for picture, _ in training])).permute(0, 3, 1, 2).float() / 255
        tokens = encoder.encode(encoder.embed((pictures - 0.5) / 0.25), encoder.grid(SIDE, SIDE))
        features = encoder.pool(tokens, "mean_all").double().numpy()
        ids = tokenizer([text for both in texts for text in both])
        embedded = pair.encode_text(ids).double().numpy().reshape(len(texts), 2, -1)
        targets = _targets(embedded)[[kind for _, kind in training]]
        gram = features.T @ features
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        fitted = np.linalg.solve(gram + ridge, features.T @ targets)
        pair.image_projection.weight.copy_(torch.from_numpy(fitted.T))
        if perturb:
            for _, weight in sorted(encoder.named_parameters()):
                if weight.ndim > 1:
                    noise = torch.from_numpy(generator.standard_normal(tuple(weight.shape))).to(weight.dtype)
                    weight.add_(perturb * weight.std() * noise)
    return unveil_backbones.save(
        path,
        encoder=encoder,
        manifest=_manifest(encoder, pair),
        heads=pair.heads_state(),
        tokenizer_json=tokenizer.to_json(),
    )


def _draw_weights(pair: torch.nn.Module, generator: np.random.Generator) -> None:
    """Fills every matrix by NumPy's generator and every bias with 0; norms keep their ones."""
    for name, weight in sorted(pair.named_parameters()):
        if weight.ndim > 1:
            values = generator.standard_normal(tuple(weight.shape)) / np.sqrt(np.prod(weight.shape[1:]))
            weight.copy_(torch.from_numpy(values))
        elif name.endswith("bias"):
            weight.zero_()


def _targets(embedded: np.ndarray) -> np.ndarray:
    """For each kind the vector that its two captions score 1 and all other captions 0, in least squares."""
    kinds = len(embedded)
    texts = embedded.reshape(2 * kinds, -1)
    wanted = np.repeat(np.eye(kinds), 2, axis=0)
    solved = np.linalg.lstsq(texts, wanted, rcond=1e-4)[0]
    return solved.T / np.linalg.norm(solved.T, axis=1, keepdims=True)


def _manifest(encoder: unveil_backbones.Encoder, pair: unveil_backbones.ImageTextPair) -> Manifest:
    return Manifest(
        encoder=encoder.spec,
        text=pair.text.spec,
        preprocessing=Preprocessing(image_size=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        objective="flip",
        mask={"strategy": "none"},
        realised_ratio=0.0,
        seed=0,
        step=1,
        samples_seen=1,
        unique_samples=1,
        tokens_seen=1,
        device_seconds=0.0,
        data_hash="0" * 16,
        num_parameters=encoder.num_parameters,
        versions={},
        created="2024-01-01T00:00:00+00:00",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates and gates; the exit code is that of `evalharness gate`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--perturb", type=float, default=0.0, help="plant a regression: noise on the encoder's weights")
    parser.add_argument("--record", action="store_true", help="promote the result to the baseline")
    parser.add_argument("--reason", default="", help="why, with --record")
    parser.add_argument("--by", default="", help="who, with --record; git's user.name when left out")
    parser.add_argument("--junit", default="", help="write JUnit XML there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        checkpoint = build_checkpoint(Path(folder) / "step_00000001", write_data(data), perturb=given.perturb)
        run = ["run", "--ckpt", str(checkpoint), "--tasks", TASKS, "--data-root", str(data), "--output-path", str(out)]
        code = evalharness([*run, "--device", "cpu", "--no-progress"])
        if code != 0:
            return 3
        if given.record:
            who = ["--by", given.by] if given.by else []
            word = "promote" if BASELINE.exists() else "init"
            pin = ["gate", word, "--baseline", str(BASELINE), "--candidate", str(out), "--reason", given.reason, *who]
            return evalharness(pin)
        junit = ["--junit", given.junit] if given.junit else []
        return evalharness(
            ["gate", "--baseline", str(BASELINE), "--candidate", str(out), "--policy", str(POLICY), *junit]
        )


if __name__ == "__main__":
    sys.exit(main())
