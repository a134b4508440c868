"""Weights that timm or open_clip downloaded earlier, found by the layout of their caches; nothing is downloaded."""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["in_clip_cache", "in_hub_cache", "in_torch_cache"]


def in_hub_cache(repository: str, names: Iterable[str]) -> Path | None:
    """The first of `names` in the newest snapshot of a repository in Hugging Face's cache; None if there is none.

    Args:
        repository: such as ``timm/vit_base_patch16_224.augreg2_in21k_ft_in1k``.
        names: file names, best first.
    """
    folder = _hub() / f"models--{repository.strip('/').replace('/', '--')}"
    reference = folder / "refs" / "main"
    newest = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    snapshots = sorted(folder.glob("snapshots/*"), key=lambda one: (one.name != newest, one.name))
    places = (snapshot / name for snapshot in snapshots for name in names)
    return next((place for place in places if place.is_file()), None)


def in_torch_cache(url: str) -> Path | None:
    """The file of a URL in torch's hub cache; None if it is not there."""
    home = os.environ.get("TORCH_HOME") or str(_cache_home() / "torch")
    return _existing(Path(home) / "hub" / "checkpoints", url)


def in_clip_cache(url: str) -> Path | None:
    """The file of a URL in the cache of open_clip and OpenAI's CLIP; None if it is not there."""
    return _existing(Path("~/.cache/clip").expanduser(), url)


def _existing(folder: Path, url: str) -> Path | None:
    place = folder / url.rpartition("/")[2]
    return place if url and place.is_file() else None


def _hub() -> Path:
    own = os.environ.get("HF_HUB_CACHE")
    return Path(own) if own else Path(os.environ.get("HF_HOME") or _cache_home() / "huggingface") / "hub"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
