"""How others draw masks: SimMIM's and BEiT's generators, one sample a call, and random keep sets by sorting noise.

The two generators come from clones whose paths are given. Without one, the algorithm is written out here from its
paper's definition in the plain way, so that the comparison needs no network; the report says which of both it was.
"""

import importlib.util
import math
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._compare import Absent

__all__ = [
    "BEIT_URL",
    "SIMMIM_URL",
    "Generator",
    "beit_generator",
    "patch_dropouts",
    "simmim_generator",
    "sorted_noise",
]

SIMMIM_URL = "github.com/microsoft/SimMIM"
BEIT_URL = "github.com/microsoft/unilm"

Generator = Callable[[], np.ndarray]
"""Draws the mask of one sample, [rows, cols], 1 = hidden."""


def simmim_generator(clone: Path | None, *, image: int, unit: int, patch: int, ratio: float) -> tuple[str, Generator]:
    """Return what it is and SimMIM's generator of masks for images of ``image`` pixels.

    Raises:
        FileNotFoundError: The clone has no such file.
    """
    if clone is not None:
        module = _module(clone / "data" / "data_simmim.py", SIMMIM_URL)
        return "SimMIM's clone", module.MaskGenerator(image, unit, patch, ratio)
    side, repeats = image // unit, unit // patch
    hidden = math.ceil(side * side * ratio)

    def draw() -> np.ndarray:
        """SimMIM (arXiv:2111.09886), section 3.2: some units of a random order, each repeated over its patches."""
        units = np.zeros(side * side, dtype=np.int64)
        units[np.random.permutation(side * side)[:hidden]] = 1  # noqa: NPY002  the global generator is the peer's
        return units.reshape(side, side).repeat(repeats, axis=0).repeat(repeats, axis=1)

    return "SimMIM's algorithm", draw


def beit_generator(clone: Path | None, *, side: int, hidden: int, min_block: int) -> tuple[str, Generator]:
    """Return what it is and BEiT's generator of block masks on ``side`` × ``side`` patches.

    Raises:
        FileNotFoundError: The clone has no such file.
    """
    if clone is not None:
        module: Any = _module(clone / "beit" / "masking_generator.py", BEIT_URL)
        module.np = SimpleNamespace(**{**vars(np), "int": int})  # NumPy dropped the name, which is Python's
        return "BEiT's clone", module.MaskingGenerator((side, side), hidden, min_num_patches=min_block)
    return "BEiT's algorithm", lambda: _blocks(side, hidden, min_block)


def sorted_noise(batch: int, num: int, kept: int, device: torch.device) -> Tensor:
    """Keep sets [b, k] of MAE (arXiv:2111.06377, section 3): the first of the tokens in the order of uniform noise."""
    return torch.argsort(torch.rand(batch, num, device=device), dim=1)[:, :kept]


def patch_dropouts(ratio: float) -> dict[str, nn.Module | Absent]:
    """Return the modules of timm and open_clip that drop tokens; none of the tokens is a prefix."""
    found: dict[str, nn.Module | Absent] = {}
    try:
        from timm.layers import PatchDropout as TimmDropout

        found["timm"] = TimmDropout(ratio, num_prefix_tokens=0).train()
    except ImportError as error:
        found["timm"] = Absent(name="timm", reason=f"{error}; pip install timm")
    try:
        from open_clip.transformer import PatchDropout as ClipDropout

        # Its way without a class token is broken (the token is put in front all the same): it gets one token more.
        found["open_clip"] = ClipDropout(ratio, exclude_first_token=True).train()
    except ImportError as error:
        found["open_clip"] = Absent(name="open_clip", reason=f"{error}; pip install open_clip_torch")
    return found


def _blocks(side: int, hidden: int, min_block: int) -> np.ndarray:
    """BEiT (arXiv:2106.08254), algorithm 1, with the ten attempts at each block that papers after it describe."""
    mask = np.zeros((side, side), dtype=np.int64)
    wanted = hidden
    while wanted > 0:
        added = next((new for new in (_attempt(mask, wanted, min_block) for _ in range(10)) if new), 0)
        if not added:
            break
        wanted -= added
    return mask


def _attempt(mask: np.ndarray, wanted: int, min_block: int) -> int:
    """Place one block if it fits; return the number of newly hidden patches."""
    rows, cols = mask.shape
    area = random.uniform(min_block, wanted)
    aspect = math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if height >= rows or width >= cols:
        return 0
    top, left = random.randint(0, rows - height), random.randint(0, cols - width)
    block = mask[top : top + height, left : left + width]
    added = height * width - int(block.sum())
    if not 0 < added <= wanted:
        return 0
    block[:] = 1
    return added


def _module(path: Path, url: str) -> ModuleType:
    """Import one file of a clone under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"_reference_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is not there; give the root of a clone of {url}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
