"""A plan: the cells of a study, as a JSON file that `pretrain plan` writes and `pretrain sweep` runs.

A cell is one run: a recipe, a share of the training images, a number of steps, a seed, and whatever else differs from
the recipe. A plan may be written by hand; `{"cells": [{"recipe": "tiny_mae", "steps": 100}]}` is one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import PlanError

__all__ = ["Cell", "Plan", "read_plan"]

Setting = str | int | float
_LARGEST: Final = 1e300
_COMMANDS: Final = ("mim", "flip")
_OWN_FLAGS: Final = (
    "out",
    "train_data",
    "train_list",
    "val_data",
    "device",
    "num_workers",
    "num_unique",
    "steps",
    "seed",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of a study."""

    recipe: str
    """Name of the recipe."""
    steps: int
    """Optimiser updates."""
    command: str = "mim"
    """The command that knows the recipe, "mim" or "flip"."""
    fraction: float = 1.0
    """Share of the training images, above 0 and at most 1."""
    seed: int = 0
    """Seed of the run and of its subset."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Further settings that differ from the recipe, by their names without dashes."""
    name: str = ""
    """Name of the cell and of its folder; made from the rest where it is empty."""
    flops: float | None = None
    """Predicted operations."""
    seconds: float | None = None
    """Predicted seconds of one device."""
    verdict: str | None = None
    """What the published runs say about over-fitting here."""

    def __post_init__(self) -> None:
        if self.command not in _COMMANDS:
            raise PlanError(f"a cell has the command {self.command!r}; give one of {', '.join(_COMMANDS)}")
        if not 0.0 < self.fraction <= 1.0:
            raise PlanError(f"a cell of {self.recipe} has the fraction {self.fraction}; give a number above 0, up to 1")
        if self.steps < 1 or self.seed < 0:
            raise PlanError(
                f"a cell of {self.recipe} has {self.steps} steps and the seed {self.seed}; give at least 1 step and a "
                "seed that is not negative"
            )
        taken = sorted({name.replace("-", "_") for name in self.settings} & set(_OWN_FLAGS))
        if taken:
            raise PlanError(
                f"a cell of {self.recipe} sets {taken[0]} among its settings; give steps, seed and fraction as fields "
                "of the cell, and the places to `pretrain sweep`"
            )
        if not self.name:
            object.__setattr__(self, "name", self._made_name())
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise PlanError(f"a cell is named {self.name!r}; give letters, digits, '_', '.', '+' and '-' only")

    def _made_name(self) -> str:
        encoder = self.settings.get("encoder")
        model = self.recipe if encoder is None else f"{self.recipe}-{str(encoder).replace(':', '-')}"
        return f"{model}-f{self.fraction:g}-s{self.steps}-r{self.seed}"

    def flags(self, *, num_images: int, lists: Path | None = None) -> list[str]:
        """The words after the recipe's name on the command line, places left out.

        Args:
            num_images: Training images there are; a fraction becomes a number of them.
            lists: Folder of `pretrain subset`; a fraction becomes the list of its name.
        """
        unique = 0 if self.fraction == 1.0 else max(1, round(self.fraction * num_images))
        words = ["--steps", str(self.steps), "--seed", str(self.seed)]
        if lists is not None:
            words += ["--train-list", str(self.list_file(lists))]
        elif unique:
            words += ["--num-unique", str(unique)]
        for name, value in self.settings.items():
            # A value with several parts, such as an image size, is several words.
            words += [f"--{name.replace('_', '-')}", *str(value).split()]
        return words

    def list_file(self, lists: Path) -> Path:
        """The list of this cell's fraction in a folder of `pretrain subset`, as that names it."""
        return lists / f"S{float(Fraction(str(self.fraction)) * 100):g}.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The cells of a study, and how they were chosen."""

    cells: tuple[Cell, ...]
    """In the order in which they are run."""
    num_images: int | None = None
    """Training images the plan was made for."""
    notes: tuple[str, ...] = ()
    """How the cells were chosen, and what was assumed."""

    def __post_init__(self) -> None:
        if not self.cells:
            raise PlanError("a plan has no cells; give at least one, or a larger budget")
        names = [cell.name for cell in self.cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PlanError(f"two cells are named {twice[0]}; give each a name of its own")

    def to_json(self) -> str:
        """The text of the plan's file; equal plans give equal text."""
        record = {**asdict(self), "format_version": 1}
        return json.dumps(record, indent=1, allow_nan=False) + "\n"


def read_plan(file: Path) -> Plan:
    """The plan in a JSON file.

    Raises:
        PlanError: the file is missing, no JSON, or no plan.
    """
    try:
        record = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{file} cannot be read as a plan ({error}); write one with `pretrain plan --out FILE`"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("cells"), list):
        raise PlanError(f'{file} is no plan; give {{"cells": [{{"recipe": ..., "steps": ...}}, ...]}}')
    unknown = sorted(set(record) - {field.name for field in fields(Plan)} - {"format_version"})
    if unknown or record.get("format_version", 1) != 1:
        what = f"the field {unknown[0]!r}" if unknown else f"format {record['format_version']}"
        raise PlanError(f"{file} has {what}, which this version does not know; upgrade unveil-pretrain, or remove it")
    try:
        return _plan_of(record, file)
    except PlanError as error:  # of a cell or of the cells together, which do not know where they were read
        raise PlanError(str(error) if str(file) in str(error) else f"{file}: {error}") from error


def _plan_of(record: Mapping[str, Any], file: Path) -> Plan:
    num_images, notes = record.get("num_images"), record.get("notes", [])
    if not isinstance(num_images, int | None) or not (
        isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    ):
        raise PlanError(f"{file} has num_images or notes of another kind; give a whole number, and a list of texts")
    cells = tuple(_cell(row, f"{file}, cell {number}") for number, row in enumerate(record["cells"], start=1))
    return Plan(cells=cells, num_images=num_images, notes=tuple(notes))


def _cell(row: object, where: str) -> Cell:
    known = {field.name: field for field in fields(Cell)}
    if not isinstance(row, dict):
        raise PlanError(f"{where} is {row!r}; give an object with at least recipe and steps")
    values = cast(Mapping[str, object], row)
    missing = [name for name in ("recipe", "steps") if name not in values]
    unknown = sorted(set(values) - set(known))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown field {unknown[0]!r}"
        raise PlanError(f"{where} {what}; the fields are {', '.join(known)}")
    _check_types(values, where)
    settings = cast(Mapping[str, object], values.get("settings", {}))
    odd = next((name for name, value in settings.items() if not _is_setting(value)), None)
    if odd is not None:
        raise PlanError(f"{where} has the setting {odd} {str(settings[odd])[:40]}; give text or a finite number")
    if not json.dumps(values, ensure_ascii=False).isprintable():
        raise PlanError(f"{where} holds text with control characters or halves of letters; write it in plain text")
    return Cell(**values)  # pyright: ignore[reportArgumentType]


def _is_setting(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) < 2**63)


def _check_types(values: Mapping[str, object], where: str) -> None:
    """Refuse values of other types than the fields have."""
    optional: Sequence[type] = (int, float, type(None))
    allowed: dict[str, Sequence[type]] = {
        "steps": (int,),
        "seed": (int,),
        "fraction": (int, float),
        "settings": (dict,),
        "flops": optional,
        "seconds": optional,
        "verdict": (str, type(None)),
    }
    for name, value in values.items():
        kinds = tuple(allowed.get(name, (str,)))
        if (
            not isinstance(value, kinds)
            or isinstance(value, bool)
            or (isinstance(value, int | float) and not abs(value) < _LARGEST)
        ):
            raise PlanError(f"{where} has {name} {value!r}; give {' or '.join(kind.__name__ for kind in kinds)}")
