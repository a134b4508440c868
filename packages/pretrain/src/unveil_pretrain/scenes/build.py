"""Build the folder of digit scenes: all of it or nothing, and never twice."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm
from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_there
from unveil_backbones.whole_files import unfinished_folder

from unveil_pretrain.errors import DataError, OutputError
from unveil_pretrain.scenes.config import ScenesConfig
from unveil_pretrain.scenes.digits import DigitBank, Split, load_digit_bank
from unveil_pretrain.scenes.pictures import Role, pictures
from unveil_pretrain.scenes.write_ade20k import write_ade20k, write_object_info
from unveil_pretrain.scenes.write_coco import write_coco
from unveil_pretrain.scenes.write_imagenet import write_imagenet
from unveil_pretrain.scenes.write_shards import write_image_shards, write_pair_shards

__all__ = ["RECORD_NAME", "build_scenes"]

RECORD_NAME: Final = "scenes.json"
_GENERATOR: Final = 1  # raised when the same settings give other pictures

_Banks = dict[Split, DigitBank]


def build_scenes(config: ScenesConfig, *, progress: bool = True) -> Path:
    """Write the scenes, or find them already there.

    Args:
        config: What to build and where.
        progress: Show a bar on stderr.

    Returns:
        The folder, `config.out`.

    Raises:
        OutputError: the folder holds something else, other settings or changed files, or cannot be written.
        DataError: scikit-learn or pycocotools is not installed.
    """
    out = config.out
    if is_there(out) and (not out.is_dir() or any(out.iterdir())):
        _check_same(config)
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(out) as unfinished:
            _write_all(config, unfinished, progress)
            _write_record(config, unfinished)
            unfinished.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error}); free the disk or choose another folder") from error
    return out


def _write_all(config: ScenesConfig, root: Path, progress: bool) -> None:
    _require_pycocotools()
    banks: _Banks = {"train": load_digit_bank("train"), "val": load_digit_bank("val")}
    roles = config.roles()
    total = sum(sum(role.counts.values()) for role in roles.values())
    # A bar that is written to a file needs no more than a line now and then.
    interval = 0.2 if sys.stderr.isatty() else 5.0
    with tqdm(total=total, desc="digit scenes", unit="image", mininterval=interval, disable=not progress) as bar:
        for folder, role in roles.items():
            if any(role.counts.values()):
                _write_role(root / folder, role, banks, config, bar.update)


def _write_role(folder: Path, role: Role, banks: _Banks, config: ScenesConfig, advance: Callable[[], object]) -> None:
    def stream(split: Split) -> Any:
        return pictures(role, split, banks[split], seed=config.seed, advance=advance)

    match role.name:
        case "images" | "pairs":
            write = write_image_shards if role.name == "images" else write_pair_shards
            for split in banks:
                write(folder, split, stream(split), samples_per_shard=config.samples_per_shard)
        case "imagenet":
            for split in banks:
                write_imagenet(folder, split, stream(split))
        case "coco":
            for split in banks:
                write_coco(folder, split, stream(split))
        case _:
            train, val = (write_ade20k(folder, split, stream(split)) for split in banks)
            write_object_info(folder, train, val, num_images=sum(role.counts.values()))


def _require_pycocotools() -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise DataError(
            "digit scenes need scikit-learn and pycocotools; install them with: pip install 'unveil-pretrain[scenes]'"
        ) from error


def _write_record(config: ScenesConfig, root: Path) -> None:
    record = {"generator": _GENERATOR, "config": config.recorded(), "content_hash": _content_hash(root)}
    (root / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _check_same(config: ScenesConfig) -> None:
    """Return if `config.out` holds exactly what `config` asks for; OutputError otherwise."""
    path = config.out / RECORD_NAME
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        generator, settings, content_hash = record["generator"], record["config"], record["content_hash"]
        if not isinstance(settings, dict):
            raise TypeError("its config is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{config.out} is not empty and holds no readable {RECORD_NAME} ({error}); choose another folder"
        ) from error
    if generator != _GENERATOR:
        raise OutputError(
            f"{config.out} was written by generator {generator}, this is {_GENERATOR}; "
            "remove it or choose another folder"
        )
    for name, value in config.recorded().items():
        if settings.get(name) != value:
            raise OutputError(
                f"{config.out} was built with {name}={settings.get(name)}, now {name}={value}; "
                "remove it or choose another folder"
            )
    if _content_hash(config.out) != content_hash:
        raise OutputError(f"files in {config.out} were changed since it was built; remove it or choose another folder")


def _content_hash(root: Path) -> str:
    """sha256 over the name and content of every file except the record."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.name != RECORD_NAME):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()
