"""`pretrain scenes FLAGS`: a small data set in the layouts of real ones."""

from collections.abc import Sequence

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.scenes import ScenesConfig, build_scenes

__all__ = ["run"]


def run(given: Sequence[str]) -> int:
    """Build the digit scenes and print their folder."""
    print(build_scenes(parse(ScenesConfig, given, prog="pretrain scenes")))
    return 0
