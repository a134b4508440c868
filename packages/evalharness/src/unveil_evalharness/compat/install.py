"""The entry point of the compatibility layer; see the package docstring for what it does."""

import importlib
import importlib.util

import unveil_backbones

from unveil_evalharness.compat.checkpoints import allow_mmengine_checkpoints
from unveil_evalharness.compat.extension import install_operators
from unveil_evalharness.compat.formatter import import_yapf
from unveil_evalharness.compat.noise import third_party_warnings
from unveil_evalharness.errors import DependencyError

__all__ = ["install"]


def install() -> None:
    """Readies torchvision, mmengine, ``torch.load`` and, where mmcv is installed, mmcv's operators.

    Image classification trains on mmengine alone, so a missing mmcv is not an error here; the tasks that need it
    say so by ``requires``.

    Raises:
        DependencyError: mmengine is not installed, a compiled mmcv does not load, or yapf's cache is damaged.
    """
    if importlib.util.find_spec("mmengine") is None:
        raise DependencyError("mmengine is not installed; run: pip install 'unveil-evalharness[all]'")
    unveil_backbones.ensure_torchvision()
    with third_party_warnings():
        import_yapf()
        importlib.import_module("mmengine.runner")
    allow_mmengine_checkpoints()
    if importlib.util.find_spec("mmcv") is None:
        return
    install_operators()
    with third_party_warnings():
        importlib.import_module("mmcv.ops")
        importlib.import_module("mmcv.cnn")
