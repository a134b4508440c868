"""The data of the study: real image sets in the layouts the tools read, or the embedded scenes where there are none.

Of the sets that are found, those are taken on which tiny models can learn something: COCO's layout with one class of
many small objects before eighty photographs of eighty classes, and aerial photographs whose captions are short.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.real_data import RealDataError, lay_out

__all__ = ["lay_out_study", "pairs_of"]

_DETECTION = "nuclei_coco"
_SEGMENTATION = "stanford_bg_ade_layout"
_CAPTIONS = "ucm_captions"


def lay_out_study(source: Path | None, destination: Path) -> Path:
    """Make `destination` a data root (imagenet/, coco/, ade20k/, captions/); kept if it is there.

    Args:
        source: A folder of real image sets; None for the embedded scenes.
        destination: Where; written beside and renamed, so that a half of it is never taken for the whole.

    Raises:
        RealDataError: a set is missing.
    """
    if destination.is_dir():
        return destination
    work = destination.with_name(destination.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    if source is None:
        _pretrain("scenes", "--out", str(work))
    else:
        lay_out(source, work)
        for role, name in (("coco", _DETECTION), ("ade20k", _SEGMENTATION)):
            if (source / name).is_dir():
                (work / role).unlink()
                (work / role).symlink_to((source / name).resolve())
        if (source / _CAPTIONS).is_dir():
            _captions(source / _CAPTIONS, work)
    work.rename(destination)
    return destination


def pairs_of(root: Path) -> tuple[str, str]:
    """Training and validation shards of image-caption pairs of a data root."""
    folder = root / "captions"
    return str(folder / "train-*.tar"), str(folder / "val-*.tar")


def _captions(source: Path, work: Path) -> None:
    """A Flickr8k layout as shards: captions/train-*.tar and captions/val-*.tar."""
    (work / "captions").unlink()
    for split, listed in (("train", "Flickr_style.trainImages.txt"), ("val", "Flickr_style.devImages.txt")):
        pictures = work / "pictures" / split
        pictures.mkdir(parents=True)
        for name in (source / listed).read_text(encoding="utf-8").split():
            (pictures / name).symlink_to((source / "Images" / name).resolve())
        shards = work / "shards" / split
        captions = ("--captions", str(source / "captions.txt"))
        _pretrain("shards", "--source", str(pictures), *captions, "--name", split, "--out", str(shards))
        (work / "captions").mkdir(exist_ok=True)
        for file in shards.glob("*.tar"):
            file.rename(work / "captions" / file.name)


def _pretrain(*words: str) -> Sequence[str]:
    command = (sys.executable, "-m", "unveil_pretrain", *words)
    if subprocess.run(command, check=False).returncode:
        raise RealDataError(f"`pretrain {' '.join(words)}` failed; its message is above")
    return command
