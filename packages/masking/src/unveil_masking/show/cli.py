"""The command line: `python -m unveil_masking show` and `ls`. Ends with 0, or with 2 and one line on stderr.

Where the reader of what it prints has gone, as of a pipe into `head`, it ends with 141, as by SIGPIPE.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from unveil_masking.errors import MaskingError
from unveil_masking.grid import Grid
from unveil_masking.show.errors import ChoiceError, MissingPillowError
from unveil_masking.show.names import ALL, check_name, listing

__all__ = ["main"]

_PROGRAM = "python -m unveil_masking"
_MOST_TOKENS = 512
_READER_GONE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        try:
            return _main(arguments)
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]  closed by whoever started this
                    stream.flush()
    except OSError as error:  # of stdout or stderr: what is written elsewhere has errors of its own
        if isinstance(error, BrokenPipeError):
            _to_nowhere(1, 2)
            return _READER_GONE
        _to_nowhere(1)
        return _fail(f"the output cannot be written: {error}")


def _to_nowhere(*descriptors: int) -> None:
    """Let what is still in the buffers go, or Python would try it again when it ends, and print that it cannot."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 0
    if chosen.command == "ls":
        for name, rule, source in listing():
            print(f"{name:15s} {rule:55s} {source}")
        return 0
    try:
        _show(chosen)
    except MaskingError as error:
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(message: str) -> int:
    print(f"unveil_masking: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _show(chosen: argparse.Namespace) -> None:
    check_name(chosen.strategy)
    grid = _grid(chosen.grid)
    try:
        from unveil_masking.show.gallery import Wish, gallery
        from unveil_masking.show.picture import write_picture
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise MissingPillowError(
            "pictures are drawn with Pillow, which is not installed. Run: pip install 'unveil-masking[show]'"
        ) from None
    wish = Wish(strategy=chosen.strategy, image=chosen.image, ratio=chosen.ratio, grid=grid, seed=chosen.seed)
    write_picture(gallery(wish), chosen.output)
    print(chosen.output)


def _grid(text: str) -> Grid:
    """The grid that "14x14" says.

    Raises:
        ChoiceError: it says none, or one that is too large for a figure.
        GridError: a side of 0.
    """
    sides = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if sides is None:
        raise ChoiceError(f"--grid {text!r} is not ROWSxCOLS. Give the number of tokens along both sides, as in 14x14.")
    rows, cols = int(sides[1]), int(sides[2])
    if max(rows, cols) > _MOST_TOKENS:
        raise ChoiceError(
            f"--grid {text} is more than a figure can show. Give at most {_MOST_TOKENS} tokens along a side."
        )
    return Grid(rows, cols)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Pictures of masks for masked visual pre-training.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    show = commands.add_parser("show", help="draw masks over a picture", description="Draw masks over a picture.")
    show.add_argument("--image", type=Path, metavar="FILE", help="the picture; text strategies need none")
    show.add_argument("--strategy", default=ALL, metavar="NAME", help=f'a name that "ls" lists, or {ALL} (default)')
    show.add_argument("--ratio", type=float, metavar="R", help="share to hide, for strategies that have one")
    show.add_argument("--grid", default="14x14", metavar="ROWSxCOLS", help="tokens of the picture (default 14x14)")
    show.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the masks (default 0)")
    show.add_argument("-o", "--output", type=Path, default=Path("masks.png"), metavar="FILE", help="where to write")
    commands.add_parser("ls", help="list the strategies", description="List the strategies.")
    return parser
