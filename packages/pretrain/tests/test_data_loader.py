"""Batches: the same for any number of workers and any restart, with errors that name shard and key."""

import io
import json
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from unveil_pretrain.data import ImageDataset, PairDataset, ShardDataset, step_indices, train_batches, val_batches
from unveil_pretrain.data.order import permuted
from unveil_pretrain.errors import ConfigError, DataError

# Python 3.12 and later say so when a process with threads (a progress bar's, a thread pool's) forks its workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def jpeg(number):
    pixels = np.random.default_rng(number).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def sample(number, **changed):
    captions = {"captions": [f"caption {number} {letter}" for letter in "abc"]}
    files = {"jpg": jpeg(number), "json": json.dumps(captions).encode(), "txt": b"unused"} | changed
    return {ext: content for ext, content in files.items() if content is not None}


def write_shard(path, samples):
    with tarfile.open(path, "w") as archive:
        for key, files in samples.items():
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "train-0.tar"
    return ShardDataset(write_shard(path, {f"{number:03d}": sample(number) for number in range(13)}))


@pytest.fixture(scope="module")
def pairs(shards):
    return PairDataset(shards, image_size=(24, 16))


def same(first, second):
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.sample_ids, second.sample_ids)
        and torch.equal(first.epochs, second.epochs)
        and first.captions == second.captions
    )


def test_a_batch_holds_the_samples_of_its_step(shards, pairs):
    (batch,) = train_batches(pairs, batch_size=9, start_step=4, num_steps=1, seed=5)
    epochs, indices = step_indices(13, 9, 4, seed=5)
    assert batch.images.shape == (9, 3, 24, 16)
    assert batch.images.dtype == torch.uint8
    assert batch.sample_ids.tolist() == shards.sample_ids[indices].tolist()
    assert batch.epochs.tolist() == epochs.tolist()
    assert [caption.split()[1] for caption in batch.captions] == [str(index) for index in indices]
    for row, (index, epoch) in enumerate(zip(indices, epochs, strict=True)):
        assert torch.equal(batch.images[row], pairs.train_example(int(index), seed=5, epoch=int(epoch)).image)


def test_batches_do_not_depend_on_workers_or_restarts(pairs):
    straight = list(train_batches(pairs, batch_size=5, start_step=0, num_steps=6, seed=1))
    workers = list(train_batches(pairs, batch_size=5, start_step=0, num_steps=6, seed=1, num_workers=2))
    restarted = list(train_batches(pairs, batch_size=5, start_step=4, num_steps=2, seed=1))
    assert len(straight) == len(workers) == 6
    assert all(same(first, second) for first, second in zip(straight, workers, strict=True))
    assert all(same(first, second) for first, second in zip(straight[4:], restarted, strict=True))


def test_loading_leaves_the_global_generator_alone(pairs):
    before = torch.get_rng_state()
    list(train_batches(pairs, batch_size=2, start_step=0, num_steps=2, seed=1))
    list(val_batches(pairs, batch_size=8))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_change_order_and_crops(pairs):
    (first,), (second,) = (
        list(train_batches(pairs, batch_size=13, start_step=0, num_steps=1, seed=seed)) for seed in (0, 1)
    )
    assert sorted(first.sample_ids.tolist()) == sorted(second.sample_ids.tolist())
    assert first.sample_ids.tolist() != second.sample_ids.tolist()


def test_epochs_bring_other_crops_and_captions(pairs):
    epochs = range(12)
    assert {pairs.train_example(0, seed=0, epoch=epoch).caption for epoch in epochs} == set(pairs.captions(0))
    views = {pairs.train_example(0, seed=0, epoch=epoch).image.numpy().tobytes() for epoch in epochs}
    assert len(views) == 12


def test_validation_sees_every_sample_once_and_always_the_same(shards, pairs):
    batches = list(val_batches(pairs, batch_size=5))
    assert [len(batch.images) for batch in batches] == [5, 5, 3]
    assert torch.cat([batch.sample_ids for batch in batches]).tolist() == shards.sample_ids.tolist()
    assert [caption for batch in batches for caption in batch.captions] == [f"caption {n} a" for n in range(13)]
    assert torch.cat([batch.epochs for batch in batches]).tolist() == [0] * 13
    whole = list(val_batches(pairs, batch_size=100, num_workers=1))
    assert torch.equal(torch.cat([batch.images for batch in batches]), whole[0].images)


def test_images_alone_have_no_captions(shards):
    images = ImageDataset(shards, image_size=(16, 16))
    (batch,) = train_batches(images, batch_size=20, start_step=0, num_steps=1, seed=0)
    assert batch.captions is None
    assert next(val_batches(images, batch_size=4)).captions is None
    assert len(images) == 13
    assert images.content_hash == shards.content_hash


def test_mirroring_is_for_images_alone(shards, pairs):
    images = ImageDataset(shards, image_size=(24, 16))
    plain = [pairs.train_example(index, seed=0, epoch=0).image for index in range(13)]
    crops = [images.train_example(index, seed=0, epoch=0).image for index in range(13)]
    mirrored = [torch.equal(crop, view.flip(-1)) for crop, view in zip(crops, plain, strict=True)]
    assert 0 < sum(mirrored) < 13
    assert all(torch.equal(crop, view) for crop, view, turned in zip(crops, plain, mirrored, strict=True) if not turned)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_image_stops_the_run_with_one_line(tmp_path, num_workers):
    samples = {f"{number:03d}": sample(number) for number in range(4)}
    samples["002"]["jpg"] = samples["002"]["jpg"][:300]
    images = ImageDataset(ShardDataset(write_shard(tmp_path / "bad.tar", samples)), image_size=(16, 16))
    for batches in (
        train_batches(images, batch_size=4, start_step=0, num_steps=1, seed=0, num_workers=num_workers),
        val_batches(images, batch_size=2, num_workers=num_workers),
    ):
        with pytest.raises(DataError, match=r"bad\.tar: 002: the image cannot be decoded.*remove the sample") as caught:
            list(batches)
        assert "\n" not in str(caught.value)


def test_samples_without_image_or_caption_are_named(tmp_path):
    some = ShardDataset(write_shard(tmp_path / "a.tar", {"000": sample(0), "001": sample(1, jpg=None)}))
    with pytest.raises(DataError, match=r"a\.tar: 001: a sample must hold one image"):
        ImageDataset(some, image_size=(16, 16)).val_example(1)
    none = ShardDataset(write_shard(tmp_path / "b.tar", {"000": sample(0, png=b"x")}))
    with pytest.raises(DataError, match=r"this one holds \.jpg, \.json, \.txt, \.png.*no other sample"):
        ImageDataset(none, image_size=(16, 16))
    no_caption = ShardDataset(write_shard(tmp_path / "c.tar", {"000": sample(0, json=None, txt=None)}))
    with pytest.raises(DataError, match=r"c\.tar: 000: no caption"):
        PairDataset(no_caption, image_size=(16, 16))


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Thirteen samples, of which 2 and 7 cannot be decoded and 9 has no image."""
    samples = {f"{number:03d}": sample(number) for number in range(13)}
    samples["002"]["jpg"] = samples["002"]["jpg"][:300]
    samples["007"]["jpg"] = b"no image"
    del samples["009"]["jpg"]
    path = tmp_path_factory.mktemp("broken") / "bad.tar"
    return ImageDataset(ShardDataset(write_shard(path, samples)), image_size=(16, 16))


@pytest.mark.parametrize("batch_size", [4, 13])
def test_a_broken_sample_is_replaced_by_the_next_of_its_epoch(broken, batch_size):
    ids = broken.sample_ids.tolist()
    order = [permuted(13, np.arange(13), np.full(13, epoch), seed=3).tolist() for epoch in range(8)]
    wanted, num_skipped = [], 0
    for rank in range(26):
        epoch, position = divmod(rank, 13)
        while order[epoch][position % 13] in (2, 7, 9):
            position += 1
            num_skipped += 1
        wanted.append(ids[order[epoch][position % 13]])
    batches = list(train_batches(
        broken, batch_size=batch_size, start_step=0, num_steps=-(-26 // batch_size), seed=3, tolerate=True
    ))  # fmt: skip
    assert torch.cat([batch.sample_ids for batch in batches]).tolist()[:26] == wanted
    messages = [message for batch in batches for message in batch.skipped]
    assert len(messages) >= num_skipped > 0
    assert {message.split(": ")[1] for message in messages} == {"002", "007", "009"}
    assert all(len(batch.images) == batch_size for batch in batches)


def test_replacements_depend_on_no_worker_and_on_no_share(broken):
    options = {"batch_size": 6, "start_step": 1, "num_steps": 5, "seed": 0, "tolerate": True}
    alone = list(train_batches(broken, **options))
    for changed in ({"num_workers": 2}, {"num_workers": 3, "worker_kind": "threads"}):
        others = list(train_batches(broken, **options, **changed))
        assert all(same(first, second) for first, second in zip(alone, others, strict=True))
        assert [batch.skipped for batch in alone] == [batch.skipped for batch in others]
    halves = [list(train_batches(broken, **options, share=part)) for part in (slice(0, 3), slice(3, 6))]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        assert whole.sample_ids.tolist() == first.sample_ids.tolist() + second.sample_ids.tolist()
        assert whole.skipped == first.skipped + second.skipped


def test_nothing_is_replaced_unless_the_caller_allows_it(broken):
    with pytest.raises(DataError, match=r"bad\.tar: 00[279]"):
        list(train_batches(broken, batch_size=13, start_step=0, num_steps=1, seed=0))
    with pytest.raises(DataError, match=r"bad\.tar: 00[279]"):
        list(val_batches(broken, batch_size=13))


def test_no_readable_sample_is_an_error(tmp_path):
    samples = {f"{number:03d}": sample(number, jpg=b"no image") for number in range(3)}
    images = ImageDataset(ShardDataset(write_shard(tmp_path / "bad.tar", samples)), image_size=(16, 16))
    with pytest.raises(DataError, match=r"none of 3 samples can be read; the first: .*bad"):
        list(train_batches(images, batch_size=2, start_step=0, num_steps=1, seed=0, tolerate=True))


def test_threads_stop_when_the_caller_does(pairs):
    batches = train_batches(
        pairs, batch_size=2, start_step=0, num_steps=1000, seed=0, num_workers=2, worker_kind="threads"
    )
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_impossible_numbers_are_refused(pairs):
    for wrong in ({"batch_size": 0}, {"start_step": -1}, {"num_steps": -1}):
        with pytest.raises(ConfigError, match="at least one image"):
            train_batches(pairs, **({"batch_size": 1, "start_step": 0, "num_steps": 1, "seed": 0} | wrong))
    with pytest.raises(ConfigError, match="at least one image"):
        val_batches(pairs, batch_size=0)
