"""Masked visual pre-training: SimMIM, MAE and FLIP loops with a validation loss one can trust.

The command is `pretrain` (or `python -m unveil_pretrain`); in Python, `train(recipes.tiny_simmim(), out=..., ...)`.
Names are imported when they are first used (PEP 562), so that commands that only read files load no torch.
"""

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unveil_pretrain.comparison import PairedDifference, compare_losses
    from unveil_pretrain.config import FlipConfig, MimConfig
    from unveil_pretrain.errors import ConfigError, DataError, DivergedError, OutputError, PretrainError, ResumeError
    from unveil_pretrain.loop import train
    from unveil_pretrain.val_table import read_losses

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "DivergedError",
    "FlipConfig",
    "MimConfig",
    "OutputError",
    "PairedDifference",
    "PretrainError",
    "ResumeError",
    "compare_losses",
    "read_losses",
    "train",
]

_MODULES = MappingProxyType(
    {
        "comparison": ("PairedDifference", "compare_losses"),
        "config": ("FlipConfig", "MimConfig"),
        "errors": ("ConfigError", "DataError", "DivergedError", "OutputError", "PretrainError", "ResumeError"),
        "loop": ("train",),
        "val_table": ("read_losses",),
    }
)


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, and return the name's value."""
    for module, public in _MODULES.items():
        if name in public:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
