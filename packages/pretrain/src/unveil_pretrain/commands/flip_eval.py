"""`pretrain flip-eval FLAGS`: retrieval and contrastive loss of an image-text checkpoint, under several views."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.flip_scores import VIEWS, FlipScores, View, score_pair
from unveil_pretrain.run import DeviceName, choose_device
from unveil_pretrain.validate import summarise

__all__ = ["FlipEvalCommand", "report", "run", "summary"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipEvalCommand:
    """Zero-shot retrieval and contrastive loss of a checkpoint, with standard errors (FLIP, table 1d)."""

    ckpt: Path
    """A checkpoint directory, or the folder of a run, whose newest checkpoint is taken."""
    data: str
    """Image-text shards, written as in --train-data."""
    views: tuple[View, ...] = VIEWS
    """How images are seen: whole (full), through one mask (masked), or as the mean of complementary masks that cover
    every patch (ensemble)."""
    mask_ratio: float | None = None
    """Share of patches that masked and ensemble hide at once; that of training unless given."""
    pool: int | None = None
    """Pairs that are compared with each other in the loss; those of the checkpoint's validation unless given."""
    seed: int = 1_000_003
    """Seed of the masks; the default is that of validation during training."""
    batch_size: int = 64
    """Images to encode at once; the scores do not depend on it."""
    num_workers: int = 0
    """Processes that decode images."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    json: bool = False
    """Print JSON instead of a table."""


def run(given: Sequence[str]) -> int:
    """Score the checkpoint and print the table, or JSON."""
    command = parse(FlipEvalCommand, _with_spaces(given), prog="pretrain flip-eval")
    scores = score_pair(
        command.ckpt,
        command.data,
        views=command.views,
        mask_ratio=command.mask_ratio,
        pool=command.pool,
        seed=command.seed,
        batch_size=command.batch_size,
        num_workers=command.num_workers,
        device=choose_device(command.device),
    )
    print(json.dumps(summary(scores), indent=1) if command.json else report(scores))
    return 0


def summary(scores: FlipScores) -> dict[str, object]:
    """Everything but the values of single images, as JSON keeps it."""
    views: dict[str, object] = {}
    for view, recalls in scores.recalls.items():
        named = {"contrastive_loss": scores.losses[view], **recalls}
        views[view] = {
            name: {"value": score.loss, "standard_error": score.standard_error, "num_images": score.num_images}
            for name, score in ((name, summarise(values)) for name, values in named.items())
        }
    return {
        "checkpoint_sha256": scores.checkpoint,
        "step": scores.step,
        "mask_ratio": scores.mask_ratio,
        "pool": scores.pool,
        "num_images": scores.num_images,
        "data_hash": scores.data_hash,
        "views": views,
    }


def report(scores: FlipScores) -> str:
    """A table: a row per view, recalls in per cent and the loss in nats, each ± its standard error."""
    names = list(next(iter(scores.recalls.values())))
    titles = [name.replace("_recall_", " R@") for name in names]
    rows = [["view", *titles, "loss"]]
    for view, recalls in scores.recalls.items():
        cells = [_cell(100.0 * recalls[name], digits=1) for name in names]
        rows.append([view, *cells, _cell(scores.losses[view], digits=3)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    about = (
        f"step {scores.step}, {scores.num_images} images with all their captions; masked and ensemble hide "
        f"{scores.mask_ratio:.0%}; loss in pools of {scores.pool}; ± standard error over images"
    )
    return "\n".join([*lines, about])


def _cell(values: np.ndarray, *, digits: int) -> str:
    score = summarise(values)
    return f"{score.loss:.{digits}f} ± {score.standard_error:.{digits}f}"


def _with_spaces(given: Sequence[str]) -> list[str]:
    """The flags, a list with commas after --views taken apart."""
    words: list[str] = []
    for place, word in enumerate(given):
        after_views = place > 0 and given[place - 1] == "--views"
        words += word.split(",") if after_views else [word]
    return words
