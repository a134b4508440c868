"""Numbers recorded from reference implementations: how weights and inputs are made, and how tensors are compared.

Weights, images and probes are integer hashes of a name and an index, so that the reference on the one side and the
package on the other are filled alike without a file of tensors and without a random generator. Used by
``record_golden.py``, which runs the references, and by the tests, which do not need them.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "bound",
    "gradient_difference",
    "gradient_numbers",
    "noise",
    "output_difference",
    "output_numbers",
    "pictures",
    "probed",
    "read_golden",
    "weight",
    "weights",
]

NUM_PICKED = 16
"""Entries of a tensor that are written down as they are."""


def noise(name: str, shape: Sequence[int]) -> Tensor:
    """Return float64 numbers in (-1, 1) that are multiples of 2^-24: a hash (SplitMix64) of name and index."""
    with np.errstate(over="ignore"):
        index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(1)
        key = np.uint64(zlib.crc32(name.encode())) * np.uint64(0xD1B54A32D192ED03)
        bits = index * np.uint64(0x9E3779B97F4A7C15) + key
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    numbers = ((bits >> np.uint64(41)).astype(np.float64) + 0.5) / 2**22 - 1
    return torch.from_numpy(numbers).reshape(tuple(shape))


def pictures(shape: Sequence[int]) -> Tensor:
    """Return float64 images [b, c, h, w] of slopes and noise, whose mean and variance depend on the place."""
    _, channels, height, width = shape
    row, col = torch.arange(height).double()[:, None] / height, torch.arange(width).double() / width
    slope = torch.arange(1, channels + 1).double()[:, None, None]
    return 2 * row**2 - slope * col * row + (0.2 + 0.5 * col) * noise("images", shape)


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """Return the float32 weight of a name in a reference's state dict.

    Temperatures are ``log(10) + 0.3 u``, gains (vectors called weight or gamma) ``1 + 0.2 u``, other vectors ``0.2 u``,
    everything else ``sqrt(3 / fan_in) u``, which keeps variances, where ``u`` is the noise of the name and axes of
    length 1 before the others do not count.
    """
    drawn = noise(name, shape)
    sides = list(shape)
    while sides and sides[0] == 1:
        del sides[0]
    if name.endswith("logit_scale"):
        filled = math.log(10) + 0.3 * drawn
    elif len(sides) <= 1:
        filled = 0.2 * drawn + float(name.endswith(("weight", "gamma")))
    else:
        filled = math.sqrt(3 / math.prod(sides[1:])) * drawn
    return filled.float()


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return the weights of all names."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def probed(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return a scalar whose gradient reaches every number of every output differently."""
    return torch.stack([(value * _probe(name, value)).sum() for name, value in outputs.items()]).sum()


def output_numbers(name: str, value: Tensor) -> dict[str, Any]:
    """Return what is recorded of an output: some entries, the norm, and the scalar product with a noise."""
    value = value.detach()
    return {
        "shape": list(value.shape),
        "norm": value.double().norm().item(),
        "probe": (value.double() * _probe(name, value).double()).sum().item(),
        "picked": _picked(value).tolist(),
    }


def gradient_numbers(name: str, gradient: Tensor) -> list[float]:
    """Return what is recorded of a gradient: the norm, and the scalar product with a noise."""
    gradient = gradient.detach().double()
    return [gradient.norm().item(), (gradient * _probe(f"gradient of {name}", gradient)).sum().item()]


def output_difference(name: str, found: Tensor, recorded: Mapping[str, Any]) -> float:
    """Return the largest difference of an output to the recorded one.

    Entries count as they are, which is what a bound on a largest absolute difference means; norm and scalar product,
    which see all entries, are divided by the norm.

    Raises:
        ValueError: The shapes differ.
    """
    if list(found.shape) != recorded["shape"]:
        raise ValueError(f"{name} is {list(found.shape)} and was recorded as {recorded['shape']}; compare the same")
    numbers = output_numbers(name, found)
    scale = max(recorded["norm"], 1.0)
    entries = [abs(a - b) for a, b in zip(numbers["picked"], recorded["picked"], strict=True)]
    return max(*entries, *(abs(numbers[part] - recorded[part]) / scale for part in ("norm", "probe")))


def gradient_difference(found: Mapping[str, Tensor], recorded: Mapping[str, Sequence[float]]) -> float:
    """Return the largest relative difference of gradients to the recorded ones.

    Each is divided by its recorded norm plus a thousandth of the largest one: a gradient that is nothing but rounding
    has no relative size of its own.

    Raises:
        ValueError: There are others than the recorded ones.
    """
    if found.keys() != recorded.keys():
        differing = sorted(found.keys() ^ recorded.keys())
        raise ValueError(f"gradients of {differing[:4]} are on one side only; compare the same parameters")
    floor = 1e-3 * max(norm for norm, _ in recorded.values())
    worst = 0.0
    for name, gradient in found.items():
        pairs = zip(gradient_numbers(name, gradient), recorded[name], strict=True)
        worst = max(worst, max(abs(a - b) for a, b in pairs) / (recorded[name][0] + floor))
    return worst


def bound(case: Mapping[str, Any], part: str, dtype: torch.dtype) -> float:
    """Return how far from a case's numbers its outputs ("forward") or gradients ("backward") may be.

    In float64 it is the rounding of the recorded digits. In float32 it is 1e-5, or four times what the reference itself
    is away in float32 where that is more: gradients add the rounding of thousands of tokens.
    """
    return 1e-10 if dtype == torch.float64 else max(1e-5, 4 * case["float32"][part])


def read_golden(path: Path) -> dict[str, Any]:
    """Return what ``record_golden.py`` wrote, with the shapes of each case's model in the case itself."""
    content = json.loads(path.read_text())
    for case in content["cases"].values():
        case |= content["models"][case["model"]]
    return content


def _probe(name: str, like: Tensor) -> Tensor:
    return noise(f"probe of {name}", like.shape).to(like.dtype)


def _picked(value: Tensor) -> Tensor:
    flat = value.flatten().double()
    return flat[torch.linspace(0, len(flat) - 1, min(NUM_PICKED, len(flat))).long()]
