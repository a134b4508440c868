"""Processes agree on a name for their start in a store full of traces of earlier ones."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist
from unveil_pretrain.starts import name_of_start


def names_of(store, size):
    """What each of several processes, here threads, calls the start; the first one comes last."""
    found = {}

    def come(rank):
        found[rank] = name_of_start(store, rank=rank, size=size)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in reversed(range(size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[rank] for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_have_one_name_and_no_two_starts_the_same(size):
    store = dist.HashStore()
    starts = [names_of(store, size) for _ in range(3)]
    assert all(len(set(names)) == 1 for names in starts)
    assert len({names[0] for names in starts}) == 3


def test_what_dead_processes_wrote_misleads_nobody():
    """One wrote its number and died before the answer; the one in its place comes when that was answered already."""
    store = dist.HashStore()
    store.set("start/here/1", "of one that is dead")
    found = []
    first = threading.Thread(target=lambda: found.append(name_of_start(store, rank=0, size=2)))
    first.start()
    store.wait(["start/answer/of one that is dead"], timedelta(seconds=60))
    assert found == []
    found.append(name_of_start(store, rank=1, size=2))
    first.join(60)
    assert found[0] == found[1]
    assert names_of(store, 3)[0] != found[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_does_not_come_is_waited_for_no_longer_than_the_store_says(rank):
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(dist.DistStoreError):
        name_of_start(store, rank=rank, size=2)
