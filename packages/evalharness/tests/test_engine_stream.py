"""Sample order and augmentation depend on seed and position only."""

import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.engine.stream import Purpose, SampleStream, StreamBatches, derive_seed, keyed_loader


class Jittered:
    """Returns the index and one draw of each global generator."""

    metainfo = {"classes": ("a", "b")}  # noqa: RUF012

    def __init__(self, size=7):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index, random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def batches(count, *, start=0, num_workers=0, seed=3):
    loader = keyed_loader(Jittered(), batch_size=3, seed=seed, num_workers=num_workers, collate=list)
    loader.batch_sampler.start = start
    iterator = iter(loader)
    with warnings.catch_warnings():
        # Python 3.12 and later warn that a fork of a threaded process may deadlock.
        warnings.simplefilter("ignore", DeprecationWarning)
        return [next(iterator) for _ in range(count)]


@given(st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
def test_every_epoch_of_the_stream_is_a_permutation(size, seed, epoch):
    stream = SampleStream(Jittered(size), seed)
    assert sorted(stream.index(epoch * size + offset) for offset in range(size)) == list(range(size))


def test_epochs_differ_in_order():
    stream = SampleStream(Jittered(30), 0)
    first, second = ([stream.index(epoch * 30 + offset) for offset in range(30)] for epoch in range(2))
    assert first != second


def test_batches_run_across_epoch_borders_and_never_end_short():
    assert [len(batch) for batch in batches(6)] == [3] * 6
    assert sorted(index for batch in batches(7) for index, *_ in batch) == sorted(list(range(7)) * 3)


def test_a_stream_started_later_continues_with_the_same_augmentation():
    assert batches(6)[4:] == batches(2, start=4)


def test_workers_do_not_change_the_batches():
    assert batches(3, num_workers=2) == batches(3)


def test_another_seed_gives_other_batches():
    assert batches(2) != batches(2, seed=4)


def test_uses_of_one_seed_draw_from_different_generators():
    values = [derive_seed(0, purpose, index) for purpose in Purpose for index in range(3)]
    assert len(set(values)) == len(values)


def test_the_seed_of_a_use_is_pinned():
    assert derive_seed(0, Purpose.ORDER, 0) == int(np.random.SeedSequence([0, 1, 0]).generate_state(1)[0])


def test_class_names_reach_mmengine_through_the_stream():
    assert SampleStream(Jittered(), 0).metainfo == {"classes": ("a", "b")}


def test_the_length_of_the_sampler_is_one_pass():
    assert len(StreamBatches(3, 7)) == 3


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="empty dataset"):
        SampleStream(Jittered(0), 0)
