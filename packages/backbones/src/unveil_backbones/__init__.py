"""Encoders for masked visual pre-training (ViT, SwinV2, Hiera, timm's ViTs, text towers) and the checkpoint contract.

Names are imported when they are first used (PEP 562), so that ``import unveil_backbones.manifest`` loads no torch.
"""

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unveil_backbones._torchvision import ensure_torchvision
    from unveil_backbones.checkpoint import Checkpoint, load, load_pair, save, train_state
    from unveil_backbones.converting import Converted, convert, load_foreign
    from unveil_backbones.coverage import CoverageReport
    from unveil_backbones.encoder import Encoder, build, create, names, rebuild
    from unveil_backbones.errors import (
        BackboneError,
        CheckpointError,
        ConvertError,
        CoverageError,
        FormatVersionError,
        HashMismatchError,
        ImageSizeError,
        KeepError,
        NonFiniteError,
        NotAPairError,
        NotExpressibleError,
        TensorMismatchError,
        TruncatedError,
        UnknownModelError,
        UnsafeFileError,
        UnsafePathError,
    )
    from unveil_backbones.hiera import HieraConfig, HieraEncoder
    from unveil_backbones.inspection import Inspection, inspect
    from unveil_backbones.manifest import (
        FORMAT_VERSION,
        EncoderSpec,
        Manifest,
        Passport,
        Preprocessing,
        TextSpec,
        ValPoint,
        checkpoint_sha256,
        read_manifest,
        resolve_checkpoint,
    )
    from unveil_backbones.pair import ImageTextPair
    from unveil_backbones.patches import with_patch_size
    from unveil_backbones.pyramid import FeaturePyramid
    from unveil_backbones.schema import manifest_schema
    from unveil_backbones.swin import SwinConfig, SwinEncoder
    from unveil_backbones.text import TextConfig, TextTower, build_text, create_text
    from unveil_backbones.timm_encoder import TimmConfig, TimmEncoder
    from unveil_backbones.tokenizer import WordPieceTokenizer
    from unveil_backbones.tokenizer_base import CaptionTokenizer
    from unveil_backbones.tokenizer_bpe import BpeTokenizer
    from unveil_backbones.tokenizer_json import tokenizer_from_json
    from unveil_backbones.verification import Verification, verify
    from unveil_backbones.vit import VitConfig, VitEncoder
    from unveil_backbones.vit_video import VideoVitConfig, VideoVitEncoder

__version__ = "0.1.0"

__all__ = [
    "FORMAT_VERSION",
    "BackboneError",
    "BpeTokenizer",
    "CaptionTokenizer",
    "Checkpoint",
    "CheckpointError",
    "ConvertError",
    "Converted",
    "CoverageError",
    "CoverageReport",
    "Encoder",
    "EncoderSpec",
    "FeaturePyramid",
    "FormatVersionError",
    "HashMismatchError",
    "HieraConfig",
    "HieraEncoder",
    "ImageSizeError",
    "ImageTextPair",
    "Inspection",
    "KeepError",
    "Manifest",
    "NonFiniteError",
    "NotAPairError",
    "NotExpressibleError",
    "Passport",
    "Preprocessing",
    "SwinConfig",
    "SwinEncoder",
    "TensorMismatchError",
    "TextConfig",
    "TextSpec",
    "TextTower",
    "TimmConfig",
    "TimmEncoder",
    "TruncatedError",
    "UnknownModelError",
    "UnsafeFileError",
    "UnsafePathError",
    "ValPoint",
    "Verification",
    "VideoVitConfig",
    "VideoVitEncoder",
    "VitConfig",
    "VitEncoder",
    "WordPieceTokenizer",
    "build",
    "build_text",
    "checkpoint_sha256",
    "convert",
    "create",
    "create_text",
    "ensure_torchvision",
    "inspect",
    "load",
    "load_foreign",
    "load_pair",
    "manifest_schema",
    "names",
    "read_manifest",
    "rebuild",
    "resolve_checkpoint",
    "save",
    "tokenizer_from_json",
    "train_state",
    "verify",
    "with_patch_size",
]

_MODULES = MappingProxyType(
    {
        "_torchvision": ("ensure_torchvision",),
        "checkpoint": ("Checkpoint", "load", "load_pair", "save", "train_state"),
        "converting": ("Converted", "convert", "load_foreign"),
        "coverage": ("CoverageReport",),
        "encoder": ("Encoder", "build", "create", "names", "rebuild"),
        "errors": (
            "BackboneError",
            "CheckpointError",
            "ConvertError",
            "CoverageError",
            "FormatVersionError",
            "HashMismatchError",
            "ImageSizeError",
            "KeepError",
            "NonFiniteError",
            "NotAPairError",
            "NotExpressibleError",
            "TensorMismatchError",
            "TruncatedError",
            "UnknownModelError",
            "UnsafeFileError",
            "UnsafePathError",
        ),
        "inspection": ("Inspection", "inspect"),
        "hiera": ("HieraConfig", "HieraEncoder"),
        "manifest": (
            "FORMAT_VERSION",
            "EncoderSpec",
            "Manifest",
            "Passport",
            "Preprocessing",
            "TextSpec",
            "ValPoint",
            "checkpoint_sha256",
            "read_manifest",
            "resolve_checkpoint",
        ),
        "pair": ("ImageTextPair",),
        "patches": ("with_patch_size",),
        "pyramid": ("FeaturePyramid",),
        "schema": ("manifest_schema",),
        "swin": ("SwinConfig", "SwinEncoder"),
        "text": ("TextConfig", "TextTower", "build_text", "create_text"),
        "timm_encoder": ("TimmConfig", "TimmEncoder"),
        "tokenizer": ("WordPieceTokenizer",),
        "tokenizer_base": ("CaptionTokenizer",),
        "tokenizer_bpe": ("BpeTokenizer",),
        "tokenizer_json": ("tokenizer_from_json",),
        "verification": ("Verification", "verify"),
        "vit": ("VitConfig", "VitEncoder"),
        "vit_video": ("VideoVitConfig", "VideoVitEncoder"),
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
