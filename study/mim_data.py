"""The images of the MIM study: a few hundred of a folder or zip of real images, the same number of each class."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from unveil_pretrain.data.opening import open_samples

__all__ = ["balanced_list", "num_available", "prepare"]


def balanced_list(keys: list[str], num_images: int) -> list[str]:
    """The first keys of each class in turn, a class being what stands before the last slash, `num_images` in all."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for key in sorted(keys):
        by_class[key.rpartition("/")[0]].append(key)
    chosen: list[str] = []
    for rank in range(max(len(of_class) for of_class in by_class.values())):
        chosen += [of_class[rank] for of_class in by_class.values() if rank < len(of_class)]
    return sorted(chosen[:num_images])


def num_available(source: Path) -> int:
    """Training images that there are, in the folder that `prepare` takes them from."""
    return len(open_samples(str(_split(source, "train"))))


def prepare(source: Path, out: Path, num_images: int) -> tuple[str, str]:
    """Training shards of `num_images` images in `out`, and the validation data; kept if they are there.

    Args:
        source: Holds train.zip and val.zip, or the folders train/ and val/.
        out: Folder of the study.
        num_images: Training images to take.
    """
    train, val = _split(source, "train"), _split(source, "val")
    shards = out / "data" / "shards"
    if not (shards / "index.json").is_file():
        samples = open_samples(str(train))
        chosen = set(balanced_list(list(samples.keys), num_images))
        pictures = out / "data" / "train"
        for index, key in enumerate(samples.keys):
            if key in chosen:
                [(extension, data)] = samples.read(index).items()
                file = pictures / f"{key}.{extension}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        command = (sys.executable, "-m", "unveil_pretrain", "shards", "--source", str(pictures), "--out", str(shards))
        subprocess.run(command, check=True)
    num_written = len(open_samples(str(shards)))
    if num_written != num_images:
        raise SystemExit(f"study: {shards} holds {num_written} images, not {num_images}; give another --out")
    return str(shards), str(val)


def _split(source: Path, name: str) -> Path:
    return next(path for path in (source / f"{name}.zip", source / name) if path.exists())
