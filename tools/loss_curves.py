"""Golden loss curves: short runs of MIM and FLIP whose losses are kept in a file and compared in every test run.

    python tools/loss_curves.py --check      # how far this machine is from the file
    python tools/loss_curves.py --record     # write the file anew; say why in the commit

The same script, started by torchrun or by the tests with other settings, computes the curves over several processes,
with whole copies of the weights or with shards. Images are lossless, so that no decoder's version is in the numbers.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from unveil_pretrain import train
from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.recipes import tiny_flip, tiny_ijepa, tiny_mae, tiny_simmim
from unveil_pretrain.world import joined, world_of_environment

__all__ = ["GOLDEN", "compute", "configs", "distance", "write_data"]

GOLDEN = Path(__file__).parents[1] / "packages" / "pretrain" / "tests" / "golden" / "loss_curves.json"

_WORDS = ("red", "green", "blue", "white", "black", "yellow", "small", "large")
_NUM_TRAIN, _NUM_VAL, _SIDE = 24, 8, 40


def configs() -> dict[str, MimConfig | FlipConfig]:
    """Runs of eight steps, with stochastic depth where there are images alone."""
    small = {"image_size": (32, 32), "steps": 8, "batch_size": 8, "warmup_steps": 2, "validate_every": 4}
    mae, ijepa, flip = tiny_mae(), tiny_ijepa(), tiny_flip()
    decoder = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 2}
    predictor = {"predictor_width": 32, "predictor_depth": 2, "predictor_heads": 2}
    pairs = {"text_length": 8, "vocab_size": 64, "embed_dim": 16, "negative_pool": 4, "loss_chunk": 3}
    return {
        "simmim": replace(
            tiny_simmim(), objective=SimMIMConfig(mask_unit=8, target_window=5), drop_path=0.2, gap_images=8, **small
        ),
        "mae": replace(mae, objective=replace(mae.objective, **decoder), drop_path=0.2, gap_images=8, **small),
        "ijepa": replace(ijepa, objective=replace(ijepa.objective, **predictor), gap_images=8, **small),
        "flip": replace(flip, objective=replace(flip.objective, **pairs), gap_images=8, **small),
    }


def write_data(folder: Path) -> tuple[str, str]:
    """Training and validation shards of drawn pictures with captions, as PNG; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"train": range(_NUM_TRAIN), "val": range(100, 100 + _NUM_VAL)}
    for name, numbers in places.items():
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number in numbers:
                _add(archive, f"{number:06d}.png", _picture(number))
                caption = f"a {_WORDS[number % 8]} {_WORDS[number * 3 % 7]} field"
                _add(archive, f"{number:06d}.txt", caption.encode())
    return str(folder / "train.tar"), str(folder / "val.tar")


def compute(
    folder: Path, data: tuple[str, str], names: list[str], *, parallel: Parallel, micro_batch_size: int
) -> dict[str, dict[str, list[float]]]:
    """Train the named runs in `folder` and give their curves: losses, gradient norms, validation losses.

    Every process of a run has to call it; all get the same.
    """
    world = world_of_environment()
    with joined(world, torch.device("cpu")):
        for name in names:
            train(
                configs()[name],
                out=folder / name,
                train_data=data[0],
                val_data=data[1],
                device="cpu",
                parallel=parallel,
                micro_batch_size=micro_batch_size,
                progress=False,
                loggers=(),
                log=lambda _: None,
            )
        world.barrier()
    return {name: _curves(folder / name) for name in names}


def distance(found: dict[str, list[float]], golden: dict[str, list[float]]) -> float:
    """Largest relative difference of two sets of curves; infinite where they are of other lengths."""
    if found.keys() != golden.keys() or any(len(found[name]) != len(golden[name]) for name in golden):
        return float("inf")
    return max(float(np.max(np.abs(np.array(found[name]) - golden[name]) / np.abs(golden[name]))) for name in golden)


def _curves(run: Path) -> dict[str, list[float]]:
    steps, scores = (
        [json.loads(line) for line in (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("metrics", "val")
    )
    return {
        "loss": [row["loss"] for row in steps],
        "grad_norm": [row["grad_norm"] for row in steps],
        "val_loss": [row["loss"] for row in scores],
        "train_loss": [row["train_loss"] for row in scores],
    }


def _picture(number: int) -> bytes:
    rows, cols = np.mgrid[0:_SIDE, 0:_SIDE]
    planes = [(number * (7 + 5 * plane) + (3 + plane) * rows + (11 - 2 * plane) * cols) % 256 for plane in range(3)]
    stream = io.BytesIO()
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def main() -> int:
    """Record, check, or print curves as one process of several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--record", action="store_true", help="write the file")
    action.add_argument("--check", action="store_true", help="compare with the file; exit code 1 beyond 1e-4")
    action.add_argument("--folder", type=Path, metavar="DIR", help="train in DIR/runs on the data in DIR and print")
    parser.add_argument("--shards", type=int, default=0, help="processes that share one copy of the weights; 0: none")
    parser.add_argument("--micro", type=int, default=0, help="samples to compute at once; 0 for all")
    parser.add_argument("names", nargs="*", default=list(configs()))
    given = parser.parse_args()
    parallel = Parallel(kind="fsdp", shard_over=given.shards) if given.shards else Parallel()
    if given.folder is not None:
        data = (str(given.folder / "train.tar"), str(given.folder / "val.tar"))
        found = compute(given.folder / "runs", data, given.names, parallel=parallel, micro_batch_size=given.micro)
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_data(folder)
        found = compute(folder / "runs", data, given.names, parallel=parallel, micro_batch_size=given.micro)
    if given.record:
        kept = {name: {"config": config_to_json(configs()[name]), "curves": found[name]} for name in found}
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        return 0
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    distances = {name: distance(found[name], golden[name]["curves"]) for name in found}
    for name, value in distances.items():
        sys.stdout.write(f"{name}: at most {value:.2g} apart, relative\n")
    return int(max(distances.values()) > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
