"""open_clip's names of flags, where they mean the same here; everything else is left as it was typed.

Flags that sound alike and mean something else are refused by name rather than guessed: open_clip's --lr is the rate
itself (ours is given per so many images), --epochs and --train-num-samples count what --steps counts here. --batch-size
exists in both and is not translated: open_clip's is per GPU, ours is the whole batch over all processes.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from unveil_pretrain.errors import ConfigError

__all__ = ["from_open_clip"]

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "--workers": "--num-workers",
        "--warmup": "--warmup-steps",
        "--wd": "--weight-decay",
        "--grad-clip-norm": "--clip-norm",
        "--force-patch-dropout": "--mask-ratio",
        "--grad-checkpointing": "--checkpoint-blocks",
        "--torchcompile": "--compile",
    }
)
_PRECISIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"amp_bf16": "bfloat16", "amp_bfloat16": "bfloat16", "fp32": "float32"}
)
_OTHERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "--lr": "the rate itself; ours is --base-lr for --lr-reference-batch images",
        "--epochs": "passes over the data; give --steps, each of --batch-size images over all processes",
        "--train-num-samples": "the samples of an epoch; give --steps, and --num-unique for a subset of the data",
        "--accum-freq": "batches per update; give --micro-batch-size, which splits the one batch of --batch-size",
        "--model": "both towers by one name; give --encoder and --text, or another recipe",
    }
)


def from_open_clip(given: Sequence[str]) -> list[str]:
    """The words of a command line with open_clip's names replaced by ours.

    Raises:
        ConfigError: a flag is open_clip's and means something that no flag here means; says what to give instead.
    """
    words: list[str] = []
    for word in given:
        name, equals, value = word.partition("=")
        if name in _OTHERS:
            raise ConfigError(f"{name} is open_clip's: {_OTHERS[name]}")
        words.append(_NAMES.get(name, name) + equals + value)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--precision" and equals:
            words[place] = f"{name}={_PRECISIONS.get(value, value)}"
        elif name == "--precision" and place + 1 < len(words):
            words[place + 1] = _PRECISIONS.get(words[place + 1], words[place + 1])
    return words
