"""`pretrain status RUN [RUN ...]`: where runs stand, from their files alone; no torch is loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.status import curves_csv, status_of, words_of

__all__ = ["StatusCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusCommand:
    """Curves, gap, alarm, speed, cost and time left of runs, which may be working."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    json: bool = False
    """Print a JSON object per line and run instead of words."""
    csv: bool = False
    """Print the validation curves as CSV instead of words."""
    price_per_hour: float | None = None
    """Price of one device for an hour, in any currency; the cost so far is then a price too."""


def run(given: Sequence[str]) -> int:
    """Print where each run stands."""
    command = parse(StatusCommand, given, prog="pretrain status")
    if not command.runs:
        raise ConfigError("pretrain status needs a run; give the --out of one or several")
    for number, path in enumerate(command.runs):
        if command.csv:
            print(curves_csv(path), end="")
            continue
        status = status_of(path, price_per_hour=command.price_per_hour)
        if command.json:
            print(json.dumps(status))
        else:
            print("\n".join([*([""] if number else []), *words_of(status)]))
    return 0
