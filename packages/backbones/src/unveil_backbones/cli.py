"""``python -m unveil_backbones``: inspect, convert and verify checkpoints, and print the schema of manifests.

Results go to stdout, errors to stderr in one line. Exit codes: 0 done, 1 the checkpoint is not good (``verify``),
2 bad input, 130 interrupted, 141 the reader of what it prints has gone.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from unveil_backbones.errors import BackboneError
from unveil_backbones.terminal import guard_output, quiet_without_reader, whole_output

__all__ = ["main"]

_PROGRAM = "unveil_backbones"
_FOREIGN = ("simmim", "mae", "timm", "open_clip", "dino", "huggingface")
_TARGETS = ("unveil", "timm", "open_clip", "huggingface")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        _fail(f"{message}; see `python -m {_PROGRAM} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; bad input exits with 2 and one line on stderr."""
    if arguments is None:
        guard_output()
    with quiet_without_reader():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(given: list[str]) -> int:
    try:
        with whole_output():
            options = _parser().parse_args(given)
            return _COMMANDS[options.command](options)
    except BackboneError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}; check the path, its permissions and the free space")
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left behind", 130)


def _inspect(options: argparse.Namespace) -> int:
    from unveil_backbones.inspection import inspect

    found = inspect(options.checkpoint)
    print(json.dumps(found.to_json(), indent=1) if options.json else found)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from unveil_backbones.conversion.details import Details
    from unveil_backbones.verification import verify

    details = Details(
        arch=options.arch,
        image_size=_tuple(options.image_size),
        num_heads=options.num_heads,
        decoder_heads=options.decoder_heads,
        window=options.window,
        norm_epsilon=options.norm_epsilon,
        activation=options.activation,
        pooling=options.pooling,
        mean=_tuple(options.mean),
        std=_tuple(options.std),
    )
    found = verify(options.checkpoint, format=options.source_format, details=details)
    print(json.dumps(found.to_json(), indent=1) if options.json else found)
    return 0 if found.ok else 1


def _convert(options: argparse.Namespace) -> int:
    from unveil_backbones.converting import convert

    done = convert(
        options.source,
        options.out,
        format=options.source_format,
        to=options.to,
        arch=options.arch,
        image_size=_tuple(options.image_size),
        num_heads=options.num_heads,
        decoder_heads=options.decoder_heads,
        window=options.window,
        norm_epsilon=options.norm_epsilon,
        activation=options.activation,
        pooling=options.pooling,
        mean=_tuple(options.mean),
        std=_tuple(options.std),
    )
    print(done)
    return 0


def _schema(options: argparse.Namespace) -> int:
    from unveil_backbones.schema import SCHEMA_FILE

    print(SCHEMA_FILE.read_text(encoding="utf-8"), end="")
    return 0


_COMMANDS = {"inspect": _inspect, "convert": _convert, "verify": _verify, "schema": _schema}


def _tuple(values: list[Any] | None) -> Any:
    """Several values of one flag; how many is the parser's business."""
    return None if values is None else tuple(values)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {_PROGRAM}", description="Inspect, convert and verify checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, what in (
        ("inspect", "print what a checkpoint is: ours, a run's newest, a foreign file or folder"),
        ("verify", "check hashes, names, shapes, types, finite weights, coverage; exit code 1 if not good"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument(
            "checkpoint", metavar="CKPT", help="checkpoint or run directory, or foreign file or folder"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        if name == "verify":
            _add_details(command)
    what = "convert a foreign checkpoint to ours, or one to a foreign folder"
    convert = commands.add_parser("convert", help=what, description=what)
    convert.add_argument("source", metavar="SRC", help="checkpoint or run directory, or foreign file or folder")
    convert.add_argument("out", metavar="OUT", help="folder to make")
    convert.add_argument("--to", choices=_TARGETS, default="unveil", help="format of OUT (default: unveil)")
    _add_details(convert)
    what = "print the JSON schema of manifest.json"
    commands.add_parser("schema", help=what, description=what)
    return parser


def _add_details(command: argparse.ArgumentParser) -> None:
    """What shapes and configuration files may not tell."""
    group = command.add_argument_group("details of a foreign model, where its files do not tell them")
    group.add_argument("--from", dest="source_format", choices=_FOREIGN, help="format (found out by default)")
    group.add_argument("--arch", metavar="NAME", help="preset that it is, for example swinv2_b")
    group.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="pixels of pre-training")
    group.add_argument("--num-heads", type=int, metavar="N", help="attention heads of each block")
    group.add_argument("--decoder-heads", type=int, metavar="N", help="those of MAE's decoder (32 channels each)")
    group.add_argument("--window", type=int, metavar="N", help="window side of all stages (Swin)")
    group.add_argument("--norm-epsilon", type=float, metavar="X", help="added to variances")
    group.add_argument("--activation", choices=("gelu", "quick_gelu"), help="of the MLPs")
    group.add_argument("--pooling", choices=("mean", "mean_all", "cls"), help="how tokens become one vector")
    group.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="subtracted from pixels in [0, 1]")
    group.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="pixels are divided by it")


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"{_PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
