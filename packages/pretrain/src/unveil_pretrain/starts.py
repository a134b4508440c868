"""A name for one start of the processes of a run, in a store that was there before them.

torchrun's agents keep one store for all the times that they start processes (PyTorch 2.13, `dynamic_rendezvous.py`), in
which a new process may find the address of a dead one before that of the process in its place. How often an agent has
restarted its processes is no common name for a start: an agent that joins a run begins to count when it does.
"""

import secrets
import time

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import Store

__all__ = ["name_of_start"]

_PAUSE = 0.05
"""Seconds between looks at who has come."""


def name_of_start(store: Store, *, rank: int, size: int) -> str:
    """What no other start in this store is called, the same in each of the `size` processes; all of them call it.

    The first process makes up the name. Each of the others writes a number that was never there and takes the name
    that is given to this number as its answer, so that only processes which live at the same time agree.

    Args:
        store: One that all processes reach; others may have left their traces in it.
        rank: Which of the processes this is.
        size: How many there are.

    Raises:
        DistStoreError: another process did not come within the time-out of the store.
    """
    if rank > 0:
        number = secrets.token_hex(8)
        store.set(_here(rank), number)
        name = store.get(_answer(number)).decode()
        store.set(_understood(name, rank), "yes")
        return name
    name = f"start_{secrets.token_hex(8)}"
    deadline = time.monotonic() + store.timeout.total_seconds()  # pyright: ignore[reportAttributeAccessIssue]  # in C++
    awaited, answered = set(range(1, size)), dict[int, str]()
    while awaited:
        awaited -= {other for other in awaited if store.check([_understood(name, other)])}
        for other in awaited:
            # A number may be that of a dead process, until the living one writes its own over it.
            if store.check([_here(other)]) and (number := store.get(_here(other)).decode()) != answered.get(other):
                store.set(_answer(number), name)
                answered[other] = number
        if time.monotonic() > deadline:
            raise DistStoreError(f"process {min(awaited)} of {size} did not come")
        if awaited:
            time.sleep(_PAUSE)
    return name


def _here(rank: int) -> str:
    return f"start/here/{rank}"


def _answer(number: str) -> str:
    return f"start/answer/{number}"


def _understood(name: str, rank: int) -> str:
    return f"start/understood/{name}/{rank}"
