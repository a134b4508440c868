"""Digit scenes: real handwritten digits composed into pictures, in the file formats of real data sets."""

from unveil_pretrain.scenes.build import build_scenes
from unveil_pretrain.scenes.config import ScenesConfig

__all__ = ["ScenesConfig", "build_scenes"]
