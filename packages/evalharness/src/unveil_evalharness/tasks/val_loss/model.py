"""`pretrain score` in a process of its own: the harness knows its command line and its files, and no module of it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import HarnessError
from unveil_evalharness.executing.bound import bound
from unveil_evalharness.tasks.val_loss.config import ValLossProtocol

if TYPE_CHECKING:
    import polars

__all__ = ["ScoreError", "Scored", "score"]

_LAST_LINES = 3


class ScoreError(HarnessError):
    """`pretrain score` could not measure the loss; its own message."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What `pretrain score` wrote."""

    summary: dict[str, Any]
    """Loss, standard error, passport, views and settings."""
    table: "polars.DataFrame"
    """A row per view and image: `key`, `group`, `view`, `value`."""


def score(
    checkpoint: Path,
    images: str,
    protocol: ValLossProtocol,
    *,
    contrastive: bool,
    seed: int,
    batch_size: int,
    device: str,
    work: Path,
    log: Callable[[str], None],
) -> Scored:
    """Measures the loss of a checkpoint.

    The process ends when this one does, however it ends.

    Args:
        checkpoint: its folder.
        images: a folder, a list or shards, as ``--images`` takes them.
        protocol: how.
        contrastive: whether the objective compares pairs, so that the protocol's pool counts.
        seed: added to the protocol's mask seed.
        batch_size: images to encode at once.
        device: ``"cpu"`` or ``"cuda"``.
        work: an existing folder for the files, of this call alone.
        log: takes what the process says.

    Raises:
        ScoreError: the process ended with an error; its last words.
    """
    import polars

    summary, table = work / "score.json", work / "score.parquet"
    words = [
        *("--ckpt", str(checkpoint)),
        *("--images", images),
        *("--num-images", str(protocol.num_images)),
        *("--num-masks", str(protocol.num_masks)),
        *("--mask-seed", str(protocol.mask_seed + seed)),
        *("--precision", protocol.precision),
        *("--batch-size", str(batch_size)),
        *("--device", device),
        *("--json", str(summary)),
        *("--table", str(table)),
        *(("--pool", str(protocol.negative_pool)) if contrastive else ()),
    ]
    log(f"pretrain score {' '.join(words)}")
    done = subprocess.run(
        bound([sys.executable, "-m", "unveil_pretrain", "score", *words]), capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        log(line)
    if done.returncode:
        said = " ".join(done.stderr.split("\n")[-1 - _LAST_LINES :]).strip()
        raise ScoreError(f"pretrain score ended with code {done.returncode}: {said or 'it said nothing'}")
    return Scored(summary=parse_json(summary.read_text(encoding="utf-8")), table=polars.read_parquet(table))
