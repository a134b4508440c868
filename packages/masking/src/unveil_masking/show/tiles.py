"""The masks that stand side by side in a card: of samples and epochs, of a clip's slots, of halves, of settings."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unveil_masking._base import Strategy
from unveil_masking.grid import Grid
from unveil_masking.guided import GuidedMask
from unveil_masking.multi_block import MultiBlockMask
from unveil_masking.partition import Partition

__all__ = [
    "Scene",
    "Shown",
    "contexts_and_targets",
    "counts_in_words",
    "halves",
    "samples_and_epochs",
    "slots_of_a_clip",
    "ways_to_be_guided",
]

_SLOTS = 4
_EASY = 0.4

Masks = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What masks are drawn for. Shapes: b masks, n tokens."""

    grid: Grid
    """Tokens of the picture."""
    sample_ids: np.ndarray
    """int64 [b]."""
    epochs: np.ndarray
    """int64 [b]."""
    seed: int
    ratio: float | None
    """Share of tokens to hide; None for each exhibit's own."""
    scores: np.ndarray
    """Float [n]: how much there is to see in each token, for guided masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Masks that are to be painted."""

    masks: Masks
    """Bool [tiles, n], True = hidden."""
    caption: str
    """What was drawn, in plain ASCII, which is all that the font has."""
    tiles: tuple[str, ...]
    """What each tile is."""


def counts_in_words(hidden: np.ndarray, total: int) -> str:
    """How many tokens are hidden, as a number or a range, and which share of all it is."""
    fewest, most = int(hidden.min()), int(hidden.max())
    if fewest == most:
        return f"hides {most} of {total} tokens ({most / total:.1%})"
    return f"hides {fewest} to {most} of {total} tokens ({fewest / total:.1%} to {most / total:.1%})"


def samples_and_epochs(strategy: Strategy, scene: Scene) -> Shown:
    """A tile for each key."""
    part = _sample(strategy, scene)
    keys = zip(scene.sample_ids.tolist(), scene.epochs.tolist(), strict=True)
    return Shown(masks=part.mask, caption=_said(part), tiles=tuple(f"sample {i}, epoch {e}" for i, e in keys))


def slots_of_a_clip(strategy: Strategy, scene: Scene) -> Shown:
    """The temporal slots of a clip, that of the first key."""
    part = _sample(strategy, scene, num_slots=_SLOTS)
    slots = part.mask[0].reshape(_SLOTS, scene.grid.num)
    labels = tuple(f"slot {number}" for number in range(_SLOTS))
    return Shown(masks=slots, caption=f"{_said(part)}; {_SLOTS} slots of one clip", tiles=labels)


def halves(strategy: Strategy, scene: Scene) -> Shown:
    """Two samples, each with the half that is kept and the half that is hidden."""
    part = _sample(strategy, scene)
    both = np.stack([part.mask, part.complement().mask], 1)[:2].reshape(-1, scene.grid.num)
    labels = tuple(f"sample {i}, half {half}" for i in scene.sample_ids[:2].tolist() for half in "AB")
    return Shown(masks=both, caption=f"{_said(part)}; both halves of two samples", tiles=labels)


def contexts_and_targets(strategy: Strategy, scene: Scene) -> Shown:
    """Two samples, each with its context and with its targets."""
    part = _sample(strategy, scene)
    assert isinstance(strategy, MultiBlockMask)
    targets: Any = strategy.targets(scene.grid, scene.sample_ids, seed=scene.seed, epoch=scene.epochs)
    both = np.stack([part.mask, ~targets.any(1)], 1)[:2].reshape(-1, scene.grid.num)
    labels = tuple(f"sample {i}, {what}" for i in scene.sample_ids[:2].tolist() for what in ("context", "targets"))
    return Shown(masks=both, caption=_said(part), tiles=labels)


def ways_to_be_guided(strategy: Strategy, scene: Scene) -> Shown:
    """The largest scores, then with some easy tokens, then two draws by chance."""
    assert isinstance(strategy, GuidedMask)
    by_chance = replace(strategy, choice="gumbel", temperature=float(np.std(scene.scores)) or 1.0)
    ways = (strategy, replace(strategy, easy=_EASY), by_chance)
    parts = [_sample(way, scene) for way in ways]
    masks = np.stack([parts[0].mask[0], parts[1].mask[0], *parts[2].mask[:2]])
    numbers = scene.sample_ids[:2].tolist()
    labels = ("top", f"top, {_EASY:.0%} easy", *(f"gumbel, sample {i}" for i in numbers))
    return Shown(masks=masks, caption=_said(parts[0]), tiles=labels)


def _sample(strategy: Strategy, scene: Scene, num_slots: int = 1) -> Partition[Any]:
    grid = Grid(scene.grid.rows, scene.grid.cols, num_slots)
    if isinstance(strategy, GuidedMask):
        scores = np.broadcast_to(scene.scores, (len(scene.sample_ids), grid.num))
        return strategy.sample(grid, scene.sample_ids, seed=scene.seed, epoch=scene.epochs, scores=scores)
    return strategy.sample(grid, scene.sample_ids, seed=scene.seed, epoch=scene.epochs)


def _said(part: Partition[Any]) -> str:
    return counts_in_words(part.mask.sum(1), part.grid.num)
