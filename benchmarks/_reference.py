"""Reference implementations from clones whose paths are given on the command line. Nothing of them is copied here.

They ask for older versions of their requirements; what has changed since is bridged while they are imported and built.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from benchmarks._compare import Absent

__all__ = ["MAE_URL", "SWIN_URL", "load_mae", "load_swin_simmim", "missing"]

MAE_URL = "github.com/facebookresearch/mae"
SWIN_URL = "github.com/microsoft/Swin-Transformer"

_PACKAGE = "_reference_swin_models"


def missing(name: str, option: str, url: str, path: Path | None, needed: str) -> Absent | None:
    """Return what the report says of a clone that is not there; None if it is there."""
    if path is None:
        return Absent(name=name, reason=f"clone {url} and give {option} PATH")
    if not (path / needed).is_file():
        return Absent(name=name, reason=f"{option} {path} holds no {needed}; give the root of a clone of {url}")
    return None


def load_mae(path: Path, *, fused_attention: bool, norm_pix_loss: bool, tiny: bool = False) -> nn.Module:
    """Return MAE ViT-B/16 of the clone at ``path``.

    Args:
        path: Root of the clone.
        fused_attention: Whether blocks use the fused kernel of today's timm; else separate products, as in timm 0.3.2,
            which the clone was written for.
        norm_pix_loss: Whether patches are normalised.
        tiny: A small model of the same code for a quick run.
    """
    names = ("models_mae", "util", "util.pos_embed")
    with _on_path(path, names):
        module = importlib.import_module("models_mae")
        positions = importlib.import_module("util.pos_embed")
    block = module.Block
    # timm dropped `qk_scale`, which the clone passes as None; NumPy dropped `np.float`, which is Python's.
    module.Block = lambda *args, qk_scale=None, **more: block(*args, **more)
    positions.np = SimpleNamespace(**{**vars(np), "float": float})
    size: dict[str, Any] = (
        {
            "img_size": 64,
            "embed_dim": 128,
            "depth": 4,
            "num_heads": 4,
            "patch_size": 8,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        }
        if tiny
        else {}
    )
    build: Callable[..., nn.Module] = module.MaskedAutoencoderViT if tiny else module.mae_vit_base_patch16
    model = build(norm_pix_loss=norm_pix_loss, **size)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused_attention
    return model


def load_swin_simmim(path: Path, *, target_window: int, **shape: Any) -> tuple[nn.Module, ModuleType]:
    """Return SimMIM around SwinV2 of the clone at ``path``, and the module it is from.

    Args:
        path: Root of the clone.
        target_window: Window that normalises the target; 0 for raw pixels.
        **shape: Arguments of the clone's encoder.
    """
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(path / "models")]  # without running its __init__, which imports every other model
    sys.modules[_PACKAGE] = package
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            _import_swin(f"{_PACKAGE}.swin_transformer_v2", path / "models" / "swin_transformer_v2.py")
            module = importlib.import_module(f"{_PACKAGE}.simmim")
            encoder = module.SwinTransformerV2ForSimMIM(num_classes=0, **shape)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
    target = SimpleNamespace(ENABLE=target_window > 0, PATCH_SIZE=target_window)
    config = SimpleNamespace(NORM_TARGET=target)
    stride = shape["patch_size"] * 8
    return module.SimMIM(config, encoder, stride, 3, shape["patch_size"]), module


class _NumberForTensor(importlib.machinery.SourceFileLoader):
    """Reads a bound that the clone makes as a tensor on the CPU as the number it is; today's PyTorch asks for that."""

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        source = self.get_data(self.path)
        number = str(math.log(1 / 0.01)).encode()
        return self.source_to_code(source.replace(b"torch.log(torch.tensor(1. / 0.01))", number), self.path)


def _import_swin(name: str, file: Path) -> None:
    loader = _NumberForTensor(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)


@contextlib.contextmanager
def _on_path(path: Path, names: tuple[str, ...]) -> Iterator[None]:
    """Import from ``path`` first, and forget what was imported under these all too common names."""
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(path))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
