"""`pretrain shards FLAGS`: webdataset shards from a folder of images."""

import sys
from collections.abc import Sequence

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.data.build_shards import ShardsConfig, build_shards

__all__ = ["run"]


def run(given: Sequence[str]) -> int:
    """Build the shards, or continue; print what is there then."""
    config = parse(ShardsConfig, given, prog="pretrain shards")
    index = build_shards(config, log=lambda line: print(line, file=sys.stderr, flush=True))
    left_out = [line for record in index.shards for line in record.left_out]
    for line in left_out:
        print(f"left out: {line}")
    print(
        f"{config.out}: {len(index.shards)} shards, {index.num_samples:,} samples, {len(index.classes)} classes, "
        f"{len(left_out)} left out, content {index.content_hash[:16]}"
    )
    return 0
