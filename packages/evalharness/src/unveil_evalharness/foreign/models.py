"""What timm and open_clip know of a model by its name: configuration, preprocessing, and where its weights are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_evalharness.errors import DependencyError, ForeignCheckpointError, one_line
from unveil_evalharness.foreign.caches import in_clip_cache, in_hub_cache, in_torch_cache
from unveil_evalharness.foreign.reference import Reference

if TYPE_CHECKING:
    from torch import Tensor
    from unveil_backbones.conversion.details import Details

__all__ = ["Known", "know", "random_weights"]

_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "open_clip_pytorch_model.safetensors",
)
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model by its name."""

    format: str
    """Format of its weights, as converters call it."""
    details: "Details"
    """What the name says of it."""
    configs: Mapping[str, Mapping[str, Any]] | None
    """Configuration files by name, which its weights alone do not have; None where none is needed."""
    cached: Path | None
    """Weights that were downloaded earlier."""


def know(reference: Reference, details: "Details", *, allow_download: bool) -> Known:
    """What the program of a reference knows of its model; `details` of the caller go before it.

    Raises:
        ForeignCheckpointError: the program has no such model or tag, or a download failed.
        DependencyError: open_clip is not installed.
    """
    if reference.program == "timm":
        return _know_timm(reference, details, allow_download=allow_download)
    return _know_open_clip(reference, details, allow_download=allow_download)


def random_weights(reference: Reference) -> "dict[str, Tensor]":
    """The state dict of a fresh model from a fixed seed.

    Raises:
        ForeignCheckpointError: the model cannot be made.
        DependencyError: open_clip is not installed.
    """
    import torch
    import unveil_backbones

    unveil_backbones.ensure_torchvision()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        try:
            if reference.program == "timm":
                import timm

                model = timm.create_model(reference.model, pretrained=False, num_classes=0)
            else:
                model = _open_clip().create_model(reference.model, pretrained=None)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise ForeignCheckpointError(f"--ckpt {reference.text}: {one_line(error)}") from error
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def _know_timm(reference: Reference, details: "Details", *, allow_download: bool) -> Known:
    import unveil_backbones
    from unveil_backbones.conversion.details import Details
    from unveil_backbones.errors import UnknownModelError
    from unveil_backbones.timm_encoder import timm_preset

    unveil_backbones.ensure_torchvision()
    import timm

    given = timm.models.get_pretrained_cfg(reference.model, allow_unregistered=True)
    architecture = reference.model.partition(".")[0]
    if not timm.is_model(architecture) or given is None:
        near = ", ".join(timm.list_models(f"*{architecture[:12]}*")[:4]) or "see timm.list_models()"
        raise ForeignCheckpointError(f"--ckpt {reference.text}: timm has no model {reference.model!r} (near: {near})")
    try:
        timm_preset(reference.model)
        arch, configs = f"timm:{reference.model}", None
    except UnknownModelError:
        # Not one of timm's plain Vision Transformers; converters may read its weights as a SwinV2 of their own.
        arch, configs = None, {"config.json": {"architecture": architecture}}
    known = Details(
        arch=arch,
        mean=_colour(given.mean),
        std=_colour(given.std),
        interpolation=given.interpolation,
        crop_fraction=given.crop_pct,
    )
    cached = None
    if reference.weights is None and not reference.random:
        cached = _timm_weights(given)
        if cached is None and allow_download:
            _download(reference, lambda: timm.create_model(reference.model, pretrained=True))
            cached = _timm_weights(given)
    return Known(format="timm", details=details.completed(known), configs=configs, cached=cached)


def _timm_weights(given: Any) -> Path | None:
    found = in_hub_cache(given.hf_hub_id, _TIMM_FILES) if given.hf_hub_id else None
    return found or in_torch_cache(given.url or "")


def _know_open_clip(reference: Reference, details: "Details", *, allow_download: bool) -> Known:
    open_clip = _open_clip()
    model = open_clip.get_model_config(reference.model)
    if model is None:
        near = ", ".join(open_clip.list_models()[:6])
        raise ForeignCheckpointError(
            f"--ckpt {reference.text}: open_clip has no {reference.model!r}; open_clip.list_models() has {near}, …"
        )
    tags = open_clip.list_pretrained_tags_by_model(reference.model)
    if reference.tag and reference.tag not in tags:
        raise ForeignCheckpointError(
            f"--ckpt {reference.text}: {reference.tag!r} is neither a file nor a tag of {reference.model} "
            f"({', '.join(tags) or 'it has none'})"
        )
    pretrained = open_clip.pretrained.get_pretrained_cfg(reference.model, reference.tag) if reference.tag else {}
    if pretrained.get("quick_gelu"):
        model = {**model, "quick_gelu": True}
    wanted = {name: pretrained[name] for name in ("mean", "std", "interpolation") if name in pretrained}
    preprocess = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    cached = None
    if reference.weights is None and not reference.random and reference.tag:
        cached = _clip_weights(pretrained)
        if cached is None and allow_download:
            _download(reference, lambda: open_clip.create_model(reference.model, pretrained=reference.tag))
            cached = _clip_weights(pretrained)
    configs = {"open_clip_config.json": {"model_cfg": model, "preprocess_cfg": preprocess}}
    return Known(format="open_clip", details=replace(details), configs=configs, cached=cached)


def _clip_weights(pretrained: Mapping[str, Any]) -> Path | None:
    repository, _, name = str(pretrained.get("hf_hub", "")).rpartition("/")
    found = in_hub_cache(repository, (name,) if name else _CLIP_FILES) if repository else None
    return found or in_clip_cache(str(pretrained.get("url", "")))


def _download(reference: Reference, fetch: Any) -> None:
    try:
        fetch()
    except Exception as error:  # whatever a library raises on the way to the network
        raise ForeignCheckpointError(f"--ckpt {reference.text}: the download failed: {one_line(error)}") from error


def _open_clip() -> Any:
    import unveil_backbones

    unveil_backbones.ensure_torchvision()
    try:
        import open_clip
        import open_clip.pretrained
    except ImportError as error:
        raise DependencyError(
            f"open_clip: models need open_clip_torch ({one_line(error)}); "
            "install it with: pip install 'unveil-evalharness[zeroshot]'"
        ) from error
    return open_clip


def _colour(values: Any) -> tuple[float, float, float] | None:
    channels = tuple(float(value) for value in values or ())
    return (channels[0], channels[1], channels[2]) if len(channels) == 3 else None
