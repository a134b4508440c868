"""Which files a foreign checkpoint consists of: one of weights, and the configuration files beside it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones._files import check_inside
from unveil_backbones._json import JSON
from unveil_backbones.errors import CheckpointNotFoundError, ConvertError
from unveil_backbones.places import is_file, is_folder

__all__ = ["Source", "find_source"]

_WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
_CONFIGS = ("config.json", "open_clip_config.json", "preprocessor_config.json")
_LARGEST_CONFIG = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A foreign checkpoint on disk."""

    weights: Path
    """The file of its tensors."""
    configs: Mapping[str, Mapping[str, JSON]]
    """Content of the configuration files beside it, by name."""


def find_source(path: Path) -> Source:
    """Find the weights of a file, or of a folder as timm, open_clip and transformers write it.

    Raises:
        CheckpointNotFoundError: There is no such file, or the folder holds none of the known names.
        UnsafePathError: A link takes a file out of the folder.
        ConvertError: The weights are split into several files, or a configuration is no JSON object.
    """
    if is_file(path):
        # Beside a single file a config.json may be anybody's: it is read only if the file has the name of a folder's.
        return Source(weights=path, configs=_read_configs(path.parent) if path.name in _WEIGHTS else {})
    if not is_folder(path):
        raise CheckpointNotFoundError(f"{path} does not exist; give a checkpoint, a file of weights or a folder of one")
    split = sorted(entry.name for entry in path.glob("*.index.json"))
    if split:
        raise ConvertError(f"{path} holds weights in several files ({split[0]}); save them as one file")
    found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if found is None:
        raise CheckpointNotFoundError(
            f"{path} holds neither a manifest.json nor one of {', '.join(_WEIGHTS)}; give a checkpoint or the file of "
            "its weights"
        )
    check_inside(path, found.name)
    return Source(weights=found, configs=_read_configs(path))


def _read_configs(folder: Path) -> dict[str, Mapping[str, JSON]]:
    return {name: _read_config(folder, name) for name in _CONFIGS if os.path.lexists(folder / name)}


def _read_config(folder: Path, name: str) -> Mapping[str, JSON]:
    check_inside(folder, name)
    file = folder / name
    if not file.is_file():
        raise ConvertError(f"{file} is no file; take the model's own, or remove it")
    if file.stat().st_size > _LARGEST_CONFIG:
        raise ConvertError(f"{file} has {file.stat().st_size} bytes; a configuration has a few; take the model's own")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{file} is not JSON ({error}); take the model's own") from error
    if not isinstance(content, dict):
        raise ConvertError(f"{file} holds {type(content).__name__}, not an object; take the model's own")
    return content
