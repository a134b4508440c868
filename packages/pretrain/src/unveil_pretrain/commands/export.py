"""`pretrain export RUN|CKPT --out DIR`: a checkpoint of the contract from whatever a run wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.exporting import export_checkpoint

__all__ = ["ExportCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportCommand:
    """Write a checkpoint that can be evaluated and handed on, without the state of training.

    The source may be of `--checkpoint-format sharded`, written by any number of processes; one process exports it.
    """

    source: tyro.conf.Positional[Path]
    """A checkpoint directory, or the folder of a run, whose newest checkpoint is taken."""
    out: Path
    """The directory to make."""


def run(given: Sequence[str]) -> int:
    """Export and print the new directory."""
    command = parse(ExportCommand, given, prog="pretrain export")
    print(export_checkpoint(command.source, command.out))
    return 0
