"""Masking strategies for masked visual pre-training: stateless, identical on NumPy and PyTorch.

A mask is a pure function of (seed, epoch, sample id). Sampling in a data loader with NumPy and on a GPU with torch
gives the same bits. Importing this package loads NumPy and never torch.
"""

from unveil_masking._base import Share, Strategy
from unveil_masking._captions import TextStrategy
from unveil_masking._noise import noise
from unveil_masking.block import BlockMask
from unveil_masking.counts import Rounding
from unveil_masking.errors import (
    CountError,
    GridError,
    KeyArrayError,
    MaskingError,
    RatioError,
    ScoreError,
    TokenShapeError,
    UnitError,
)
from unveil_masking.grid import Grid
from unveil_masking.grid_mask import GridMask
from unveil_masking.guided import GuidedMask
from unveil_masking.inverse_block import InverseBlockMask
from unveil_masking.multi_block import MultiBlockMask
from unveil_masking.packing import Packed, pack, unpack
from unveil_masking.partition import Partition
from unveil_masking.ratio_range import RatioRange
from unveil_masking.resize import ResizeReduction
from unveil_masking.split import SplitMask
from unveil_masking.strategies import RandomMask, UnitMask
from unveil_masking.text import TextBlock, TextPriority, TextRandom, TextTruncate, take_ids
from unveil_masking.text_priority import TextFrequency, TextSyntax, frequency_weights, syntax_ranks
from unveil_masking.tokens import restore, take, to_pixels
from unveil_masking.video import FrameMask, TubeMask

__all__ = [
    "BlockMask",
    "CountError",
    "FrameMask",
    "Grid",
    "GridError",
    "GridMask",
    "GuidedMask",
    "InverseBlockMask",
    "KeyArrayError",
    "MaskingError",
    "MultiBlockMask",
    "Packed",
    "Partition",
    "RandomMask",
    "RatioError",
    "RatioRange",
    "ResizeReduction",
    "Rounding",
    "ScoreError",
    "Share",
    "SplitMask",
    "Strategy",
    "TextBlock",
    "TextFrequency",
    "TextPriority",
    "TextRandom",
    "TextStrategy",
    "TextSyntax",
    "TextTruncate",
    "TokenShapeError",
    "TubeMask",
    "UnitError",
    "UnitMask",
    "frequency_weights",
    "noise",
    "pack",
    "restore",
    "syntax_ranks",
    "take",
    "take_ids",
    "to_pixels",
    "unpack",
]
