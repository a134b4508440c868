"""Masked visual pre-training: SimMIM, MAE and FLIP loops with a validation loss one can trust.

The command is `pretrain` (or `python -m unveil_pretrain`); in Python, `train(recipes.tiny_simmim(), out=..., ...)`.
"""

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError, DataError, DivergedError, OutputError, PretrainError, ResumeError
from unveil_pretrain.loop import train

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "DivergedError",
    "FlipConfig",
    "MimConfig",
    "OutputError",
    "PretrainError",
    "ResumeError",
    "train",
]
