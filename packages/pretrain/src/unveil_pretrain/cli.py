"""The `pretrain` command. Every flag comes from a frozen dataclass, with the recipe's values as defaults."""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

from unveil_backbones.errors import BackboneError
from unveil_backbones.terminal import guard_output, quiet_without_reader, whole_output
from unveil_masking import MaskingError

from unveil_pretrain.errors import ONE_PROCESS, ConfigError, PretrainError
from unveil_pretrain.interrupts import Interrupted, ending_by_exception

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mim": "RECIPE --out DIR --train-data SHARDS --val-data SHARDS [--steps N] ...\n"
        "masked image modelling; `pretrain mim RECIPE --help` lists every setting",
        "flip": "RECIPE --out DIR --train-data SHARDS --val-data SHARDS [--from CKPT --stage unmasked] ...\n"
        "image-text training with masks, and unmasked tuning after it; likewise",
        "plan": "--recipes RECIPE ... [--fractions ...] [--steps ...] [--gpu-hours H] [--out PLAN.json] ...\n"
        "choose the cells of a study within a budget; says what they cost, where they over-fit and what they will show",
        "sweep": "PLAN.json --out DIR --train-data SHARDS --val-data SHARDS [--jobs N] [--executor slurm] ...\n"
        "run the cells of a plan, as local processes or on SLURM; --status shows where they stand",
        "flip-eval": "--ckpt DIR --data SHARDS [--views full,masked,ensemble] [--json]\n"
        "retrieval and contrastive loss of an image-text checkpoint, seen whole, masked, or as an ensemble of masks",
        "score": "--ckpt DIR --images FOLDER|LIST|SHARDS [--list FILE] [--num-masks K] [--json FILE] ...\n"
        "the validation loss of a finished checkpoint, converted ones too, measured again with its passport",
        "flip-ablation": "RECIPE --out DIR --train-data SHARDS --val-data SHARDS [--cells 0x1 0.5x2 ...] ...\n"
        "train FLIP with several masks and batches, and compare them at equal batch, equal samples and equal time",
        "status": "RUN [RUN ...] [--json] [--csv] [--price-per-hour P]\n"
        "where runs stand: curves, over-fitting, speed, cost, time left",
        "scenes": "--out DIR ...\nbuild the digit scenes: a small data set in the layouts of real ones",
        "shards": "--source DIR --out DIR [--samples-per-shard N] [--num-workers N] ...\n"
        "webdataset shards from a folder of images: parallel, continued after a kill, verified",
        "audit": "DATA [--num-workers N] [--json FILE] ...\n"
        "count samples, check hashes, find broken shards and images and duplicates; exits with 1 if anything is wrong",
        "subset": "DATA --fractions .1 .2 .5 1 --out DIR [--check-leak VALDATA] ...\n"
        "nested, class-balanced lists of samples for --train-list",
        "replay": "RUN [--device cpu]\ncompute a step that failed (failure.json) again and say where its numbers end",
        "verify-resume": "RECIPE --train-data DATA --val-data DATA [--steps N] ...\n"
        "prove that a run which is killed and continued ends with the same bits; names the first difference otherwise",
        "export": "RUN|CKPT --out DIR\n"
        "a checkpoint to hand on: of the contract, without training state, also of --checkpoint-format sharded",
        "ls": "\nlist the recipes",
    }
)
"""Each command's usage and what it does; its module in `unveil_pretrain.commands` has its name, with underscores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with the command's code, or with one line on stderr and 2.

    A signal ends it with 128 and its number, after a line that says how to go on: 130 for SIGINT, 143 for SIGTERM. When
    the reader of what it prints has gone, as of a pipe into `head`, it ends with 141 and says nothing.

    Of the processes that torchrun starts on a machine, the first alone prints what all of them raise.
    """
    if arguments is None:
        guard_output()
    with quiet_without_reader():
        _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(given: list[str]) -> None:
    try:
        with whole_output(), ending_by_exception():
            code = _dispatch(given)
    except (PretrainError, BackboneError, MaskingError) as error:
        if _is_said_by_another(error):
            raise SystemExit(2) from None
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error}; check the path, its permissions and the free space", 2)
    except Interrupted as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(error.exit_code) from None
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what is finished is kept, and the same command goes on from there", 130)
    if code:
        raise SystemExit(code)


def _dispatch(given: Sequence[str]) -> int:
    match given:
        case [] | ["-h" | "--help", *_] | ["mim" | "flip", "-h" | "--help", *_]:
            print(_usage(), end="")
            return 0
        case [command, *rest] if command in COMMANDS:
            module = importlib.import_module(f"unveil_pretrain.commands.{command.replace('-', '_')}")
            return module.run(rest)
        case _:
            near = difflib.get_close_matches(given[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}? It is one of" if near else "give one of"
            raise ConfigError(f"there is no command {given[0]!r}; {hint} {', '.join(COMMANDS)}, or --help")


def _usage() -> str:
    lines = ["usage: pretrain COMMAND ...", ""]
    for command, text in COMMANDS.items():
        flags, what = text.split("\n")
        lines += [f"  pretrain {command} {flags}".rstrip(), f"      {what}"]
    lines += ["", "The same command again continues an interrupted run, and says so if it is finished."]
    return "\n".join(lines) + "\n"


def _is_said_by_another(error: Exception) -> bool:
    """Whether the first process on this machine raises the same: it is of all processes, or of arguments and data."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and ONE_PROCESS not in getattr(error, "__notes__", ())


def _fail(message: str, code: int) -> NoReturn:
    print(f"pretrain: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
