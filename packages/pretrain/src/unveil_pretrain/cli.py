"""The `pretrain` command. Every flag comes from a frozen dataclass, with the recipe's values as defaults."""

import contextlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro
from unveil_backbones import BackboneError
from unveil_masking import MaskingError

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError, PretrainError
from unveil_pretrain.loop import train
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.run import DeviceName
from unveil_pretrain.scenes import ScenesConfig, build_scenes

__all__ = ["FlipCommand", "MimCommand", "Place", "main"]

_Config = TypeVar("_Config", MimConfig, FlipConfig)
_Options = TypeVar("_Options")

_USAGE = """\
usage: pretrain COMMAND ...

  pretrain mim RECIPE --out DIR --train-data SHARDS --val-data SHARDS [--steps N] ...
      masked image modelling; `pretrain mim RECIPE --help` lists every setting
  pretrain flip RECIPE --out DIR --train-data SHARDS --val-data SHARDS [--steps N] ...
      image-text training with masks; likewise
  pretrain scenes --out DIR ...
      build the digit scenes: a small data set in the layouts of real ones
  pretrain ls
      list the recipes

The same command again continues an interrupted run, and says so if it is finished.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run reads, writes and computes; none of it changes the result beyond rounding."""

    out: Path
    """Folder of the run: run.json, metrics.jsonl, val.jsonl, checkpoints/."""
    train_data: str
    """Training shards: path or fsspec URL with braces, as in 'train-{00000..00007}.tar'; join several with '::'."""
    val_data: str
    """Validation shards, written in the same way."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    num_workers: int = 0
    """Processes that decode images; 0 decodes in the training process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MimCommand:
    """Masked image modelling. The same command again continues an interrupted run."""

    place: Place
    config: MimConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipCommand:
    """Masked image-text training. The same command again continues an interrupted run."""

    place: Place
    config: FlipConfig


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, or with 2 and one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(given)
    except (PretrainError, BackboneError, MaskingError) as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error}; check the path, its permissions and the free space", 2)
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues from the last checkpoint", 130)


def _dispatch(given: Sequence[str]) -> None:
    match given:
        case [] | ["-h" | "--help", *_] | ["mim" | "flip", "-h" | "--help", *_]:
            print(_USAGE, end="")
        case ["mim", *rest]:
            mim = MimCommand(place=_required(), config=_recipe("mim", MIM_RECIPES, rest))
            _train("mim", mim, rest)
        case ["flip", *rest]:
            flip = FlipCommand(place=_required(), config=_recipe("flip", FLIP_RECIPES, rest))
            _train("flip", flip, rest)
        case ["scenes", *rest]:
            folder = build_scenes(_parsed(lambda: tyro.cli(ScenesConfig, args=list(rest), prog="pretrain scenes")))
            print(folder)
        case ["ls", *_]:
            _list_recipes()
        case [command, *_]:
            raise ConfigError(f"there is no command {command!r}; give mim, flip, scenes or ls, or --help")


def _recipe(name: str, recipes: Mapping[str, Callable[[], _Config]], given: Sequence[str]) -> _Config:
    """The settings of the recipe that the first argument names."""
    if given and given[0] in recipes:
        return recipes[given[0]]()
    what = f"there is no recipe {given[0]!r}" if given else f"pretrain {name} needs a recipe"
    raise ConfigError(f"{what}; give one of {', '.join(recipes)}; `pretrain {name} RECIPE --help` lists its settings")


def _required() -> Place:
    """A place whose three required flags are still open."""
    return Place(out=tyro.MISSING, train_data=tyro.MISSING, val_data=tyro.MISSING)


def _train(name: str, default: MimCommand | FlipCommand, given: Sequence[str]) -> None:
    """Run the command line `pretrain NAME RECIPE FLAGS`."""
    command = _parsed(
        lambda: tyro.cli(
            type(default),
            default=default,
            args=list(given[1:]),
            prog=f"pretrain {name} {given[0]}",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    )
    place = command.place
    checkpoint = train(
        command.config,
        out=place.out,
        train_data=place.train_data,
        val_data=place.val_data,
        device=place.device,
        num_workers=place.num_workers,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        command=("pretrain", name, *given),
    )
    print(checkpoint)


def _parsed(parse: Callable[[], _Options]) -> _Options:
    """What `parse` makes of the flags.

    Raises:
        PretrainError: a value that the dataclass itself refuses. tyro would show it in a frame of several lines.
        SystemExit: help was asked for, or the flags are wrong; tyro has said so.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse()
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, PretrainError):
                raise cause from None
            cause = cause.__context__
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _list_recipes() -> None:
    for command, recipes in (("mim", MIM_RECIPES), ("flip", FLIP_RECIPES)):
        for name, recipe in recipes.items():
            summary = (recipe.__doc__ or "").splitlines()[0]
            print(f"{command:5s} {name:17s} {summary}")


def _fail(message: str, code: int) -> NoReturn:
    print(f"pretrain: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
