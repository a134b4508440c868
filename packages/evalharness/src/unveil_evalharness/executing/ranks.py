"""Which of several processes this one is, as torchrun says it in the environment."""

import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

__all__ = ["RUN_ID_VARIABLE", "Rank", "end_with_parent", "rank_environment", "take_rank", "visible_device"]

RUN_ID_VARIABLE = "UNVEIL_RUN_ID"
"""Set by the harness for processes that it starts; they leave the table to the one that started them."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One of several processes of a run."""

    number: int
    """0 prints the table, unless `started_by_harness`."""
    local: int
    """Which one on this machine: its GPU."""
    run_id: str
    started_by_harness: bool


def take_rank(environment: MutableMapping[str, str]) -> Rank | None:
    """Reads and removes torchrun's variables; None where there are none.

    They are removed because the processes of a run do not train together: webdataset and others would take their share
    of the *data* from them.

    Args:
        environment: of this process; changed.
    """
    given = environment.get(RUN_ID_VARIABLE)
    values = [environment.pop(name, None) for name in _TORCHRUN]
    number, world, local = values[:3]
    if number is None or world is None or local is None:
        return None if given is None else Rank(number=0, local=0, run_id=given, started_by_harness=True)
    # torchrun's own id is "none" unless --rdzv-id is given; its process number is the same for all it starts.
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
    words = [*(environment.get(name, "") for name in names), str(os.getppid())]
    run_id = given or hashlib.sha256("|".join(words).encode()).hexdigest()[:12]
    return Rank(number=int(number), local=int(local), run_id=run_id, started_by_harness=given is not None)


def rank_environment(*, number: int, world: int, run_id: str) -> dict[str, str]:
    """What `take_rank` reads, for a process that this one starts on the same machine."""
    return {
        "RANK": str(number),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(number),
        "LOCAL_WORLD_SIZE": str(world),
        RUN_ID_VARIABLE: run_id,
    }


def visible_device(environment: Mapping[str, str], local: int) -> str:
    """``CUDA_VISIBLE_DEVICES`` for a process: one of those that are visible now, in turn.

    Args:
        environment: of this process.
        local: number of the process on this machine.
    """
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[local % len(visible)] if visible else str(local)


def end_with_parent() -> None:
    """Has this process terminated when the one that started it ends, however it ends; on Linux only.

    Workers of a killed harness would otherwise go on, unseen.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
