"""Shards in a real S3-compatible store on loopback, through a proxy that counts requests and makes them fail."""

import hashlib
import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fsspec.config import conf
from object_store import KEY, SECRET
from s3fs import S3FileSystem
from unveil_pretrain.data import ImageDataset, ShardDataset, open_samples, train_batches, val_batches
from unveil_pretrain.data.opening import open_listed
from unveil_pretrain.data.retrying import ReadPolicy, noting_retries
from unveil_pretrain.errors import DataError, MissingExtraError, SourceError

# Python 3.12 and later say so when a process with threads (the server's, fsspec's) forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

# Time enough for a server that shares its cores with other tests, and little time where it is told to hang.
QUICK = ReadPolicy(timeout=30.0, tries=3, first_wait=0.01)
HANGING = replace(QUICK, timeout=1.0)
URLS = "s3://bucket/train-{00..03}.tar"


def batches_of(urls, policy=QUICK, **changed):
    dataset = ImageDataset(ShardDataset(urls, policy), image_size=(16, 16))
    options = {"batch_size": 5, "start_step": 0, "num_steps": 5, "seed": 2} | changed
    return list(train_batches(dataset, **options))


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(one.images, other.images) and torch.equal(one.sample_ids, other.sample_ids)
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(
    "urls", [URLS, "s3://bucket/train-*.tar", "s3://bucket/train-00.tar::s3://bucket/train-{01..03}.tar"]
)
def test_shards_in_a_store_are_those_on_a_disk(store, folder, urls):
    local, remote = ShardDataset(f"{folder}/train-{{00..03}}.tar"), ShardDataset(urls, QUICK)
    assert remote.shards == tuple(f"s3://bucket/train-{number:02d}.tar" for number in range(4))
    assert (remote.keys, remote.content_hash) == (local.keys, local.content_hash)
    assert list(remote) == list(local)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_workers": 3}, pytest.param({"num_workers": 2, "worker_kind": "processes"}, marks=pytest.mark.slow)],
)
def test_batches_have_the_same_bits_with_any_workers(store, folder, options):
    expected = batches_of(f"{folder}/train-{{00..03}}.tar")
    assert same(batches_of(URLS, QUICK, **options), expected)


def digests(dataset):
    return [hashlib.sha256(b"".join(dataset.read(index).values())).hexdigest() for index in range(0, len(dataset), 7)]


def answer(dataset, queue, environment):
    os.environ.update(environment)  # a server of forks has that of its own beginning
    try:
        queue.put(digests(dataset))
    except Exception as error:
        queue.put(repr(error))


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) for name in ("fork", "spawn", "forkserver")]
)
def test_a_file_system_is_opened_in_the_process_that_reads(store, method):
    dataset = ShardDataset(URLS, QUICK)
    expected = digests(dataset)  # connections, an event loop and its thread are in this process now
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=answer, args=(dataset, queue, dict(os.environ)))
    child.start()
    found = queue.get(timeout=120)
    child.join(30)
    assert found == expected
    assert digests(dataset) == expected


def test_requests_are_counted(store):
    dataset = ShardDataset(URLS, QUICK)
    heads = [one for one in store.seen if one.method == "HEAD"]
    assert len(heads) == 4  # size and ETag
    assert len(store.gets()) == 4  # each shard is smaller than one block of reading on
    store.seen.clear()
    list(dataset)
    assert len(store.seen) == len(store.gets()) == len(dataset)  # one range each
    spans = [one.span.removeprefix("bytes=").split("-") for one in store.seen]
    needed = [sum(len(content) for content in files.values()) for files in dataset]
    assert all(
        size <= int(end) - int(start) + 1 <= size + 2048 for (start, end), size in zip(spans, needed, strict=True)
    )


def test_an_index_is_kept_for_an_object_and_not_for_another(store, changing, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("UNVEIL_INDEX_CACHE", str(tmp_path / "cache"))
    first = ShardDataset(URLS, QUICK)
    store.seen.clear()
    again = ShardDataset(URLS, QUICK)
    assert [one.method for one in store.seen] == ["HEAD"] * 4
    assert (again.keys, list(again)) == (first.keys, list(first))
    assert KEY not in "".join(path.name for path in (tmp_path / "cache").iterdir())
    changing.put_object(Bucket="bucket", Key="train-00.tar", Body=(folder / "train-01.tar").read_bytes())
    assert ShardDataset("s3://bucket/train-00.tar", QUICK).keys == first.keys[6:12]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"damaged")
    assert ShardDataset("s3://bucket/train-{01..03}.tar", QUICK).keys == first.keys[6:]


# What goes wrong, how a try is counted, and what it ends with if it never stops.
PASSING = [
    ("503", "503 SlowDown", SourceError),
    ("500", "500", SourceError),
    ("reset", "short read", DataError),
    ("cut", "short read", DataError),
    ("short", "short read", DataError),
    ("hang", "time-out", SourceError),
]


@pytest.mark.parametrize(("fault", "cause", "kind"), PASSING)
def test_what_passes_is_tried_again_and_counted(store, folder, fault, cause, kind):
    dataset = ShardDataset(URLS, HANGING if fault == "hang" else QUICK)
    expected = ShardDataset(f"{folder}/train-{{00..03}}.tar").read(7)
    store.begin_anew(lambda request, number: fault if number == 2 else None)
    with noting_retries() as retries:
        found = [dataset.read(7) for _ in range(4)]
    assert found == [expected] * 4
    assert [(one.source, one.cause) for one in retries] == [("s3://bucket/train-01.tar: 000007", cause)]
    assert len(store.seen) == 5


@pytest.mark.parametrize(("fault", "cause", "kind"), PASSING)
def test_what_does_not_pass_ends_in_bounded_time_by_name(store, fault, cause, kind):
    policy = HANGING if fault == "hang" else QUICK
    dataset = ShardDataset(URLS, policy)
    store.fault = lambda request, number: fault
    begin = time.perf_counter()
    with noting_retries() as retries, pytest.raises(DataError) as caught:
        dataset.read(7)
    assert time.perf_counter() - begin < 3 * HANGING.timeout + 10
    assert type(caught.value) is kind
    assert f"s3://bucket/train-01.tar: 000007: not read in 3 tries of at most {policy.timeout:g} s ({cause} 3x)" in str(
        caught.value
    )
    assert [one.cause for one in retries] == [cause] * 3
    store.fault = lambda request, number: None
    assert dataset.read(7)


def test_without_another_try_the_same_fault_is_an_error(store):
    """The meta-test of the two above: it is the tries that cure."""
    dataset = ShardDataset(URLS, replace(QUICK, tries=1))
    store.begin_anew(lambda request, number: "503" if number == 0 else None)
    with pytest.raises(SourceError, match="not read in 1 tries"):
        dataset.read(7)


@pytest.mark.parametrize(
    ("fault", "kind", "said"), [("403", SourceError, "access is denied"), ("404", DataError, "it is gone")]
)
def test_what_stays_wrong_is_not_tried_again(store, fault, kind, said):
    dataset = ShardDataset(URLS, QUICK)
    store.seen.clear()
    store.fault = lambda request, number: fault
    with noting_retries() as retries, pytest.raises(DataError, match=said) as caught:
        dataset.read(7)
    assert type(caught.value) is kind
    assert "s3://bucket/train-01.tar: 000007" in str(caught.value)
    assert len(store.seen) == 1
    assert not retries


@pytest.mark.parametrize(
    ("urls", "fault", "said"),
    [
        ("s3://bucket/none-{0..1}.tar", None, r"shard 's3://bucket/none-0\.tar' does not exist"),
        ("s3://bucket/none-*.tar", None, "matches no file"),
        ("s3://no-such-bucket/a.tar", None, "does not exist"),
        ("s3://bucket", None, "is a folder"),
        (URLS, "403", r"shard 's3://bucket/train-00\.tar': access is denied"),
        (URLS, "hang", r"shard 's3://bucket/train-00\.tar': not read in 1 tries of at most 1 s \(time-out 1x\)"),
        ("s3://bucket/train.zip", None, "is a zip file in a store"),
    ],
)
def test_what_cannot_be_opened_is_named(store, urls, fault, said):
    store.fault = lambda request, number: fault
    with pytest.raises(DataError, match=said):
        open_samples(urls, policy=replace(HANGING if fault == "hang" else QUICK, tries=1))


def test_a_list_in_a_store_is_named():
    with pytest.raises(DataError, match="is a list in a store"):
        open_listed("s3://bucket/list.txt", None)


def test_a_missing_package_is_named(monkeypatch):
    import fsspec.registry

    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'unveil-pretrain\[s3\]'"):
        ShardDataset("s3://bucket/a.tar")


@pytest.mark.parametrize("larger", [False, True])
def test_a_shard_that_changes_under_a_run_is_named(store, changing, folder, larger):
    dataset = ShardDataset(URLS, QUICK)
    body = (folder / "train-00.tar").read_bytes()
    body = body + bytes(10240) if larger else body[:1024] + b"?" + body[1025:]
    changing.put_object(Bucket="bucket", Key="train-00.tar", Body=body)
    with pytest.raises(DataError, match=r"s3://bucket/train-00\.tar: 000000: the shard changed since it was indexed"):
        dataset.read(0)
    assert dataset.read(6)


def test_a_truncated_object_counts_as_unreadable_samples(store, changing, folder):
    samples = ShardDataset(URLS, QUICK)
    body = (folder / "train-00.tar").read_bytes()
    changing.put_object(Bucket="bucket", Key="train-00.tar", Body=body[: len(body) // 2])
    dataset = ImageDataset(samples, image_size=(16, 16))
    options = {"batch_size": 24, "start_step": 0, "num_steps": 1, "seed": 0}
    with pytest.raises(DataError, match=r"train-00\.tar: 00000\d: the shard changed"):
        list(train_batches(dataset, **options))
    (batch,) = train_batches(dataset, **options, tolerate=True)
    assert {message.split(": ")[1] for message in batch.skipped} == set(samples.keys[:6])
    assert not set(batch.sample_ids.tolist()).intersection(samples.sample_ids[:6].tolist())


def test_a_body_that_is_always_short_counts_as_unreadable_and_a_store_that_fails_does_not(store):
    dataset = ImageDataset(ShardDataset(URLS, QUICK), image_size=(16, 16))
    options = {"batch_size": 24, "start_step": 0, "num_steps": 1, "seed": 0, "tolerate": True, "num_workers": 4}
    store.fault = lambda request, number: "short" if request.path.endswith("train-02.tar") else None
    with noting_retries() as retries:
        (batch,) = train_batches(dataset, **options)
    assert {message.split(": ")[1] for message in batch.skipped} == set(dataset.shards.keys[12:18])
    assert len(retries) == 3 * len(batch.skipped)  # noted in another thread, heard here
    store.fault = lambda request, number: "503" if request.path.endswith("train-02.tar") else None
    with pytest.raises(SourceError, match=r"train-02\.tar.*503 SlowDown 3x"):
        list(train_batches(dataset, **options))


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_faults_change_no_batch_and_are_heard_from_workers(store, folder, kind):
    expected = batches_of(f"{folder}/train-{{00..03}}.tar")
    policy = QUICK
    dataset = ImageDataset(ShardDataset(URLS, policy), image_size=(16, 16))
    store.begin_anew(lambda request, number: ("503", "short", None, None)[number % 4])
    with noting_retries() as retries:
        options = {"batch_size": 5, "start_step": 0, "num_steps": 5, "seed": 2, "num_workers": 2}
        found = list(train_batches(dataset, worker_kind=kind, **replace_tries(dataset, options)))
    assert same(found, expected)
    assert len(retries) >= 10
    assert {one.cause for one in retries} == {"503 SlowDown", "short read"}


def replace_tries(dataset, options):
    """Faults come by number of the request, so that one sample may meet several in a row."""
    sources = [replace(source, policy=replace(source.policy, tries=12)) for source in dataset.shards._sources]
    dataset.shards._sources = tuple(sources)
    return options


def test_a_slow_object_does_not_stall_the_others(store):
    dataset = ImageDataset(ShardDataset(URLS, QUICK), image_size=(16, 16))
    store.fault = lambda request, number: "slow:0.8" if request.path.endswith("train-00.tar") else None
    begin = time.perf_counter()
    num_slow = 6
    alone = list(val_batches(dataset, batch_size=2))
    one_by_one = time.perf_counter() - begin
    begin = time.perf_counter()
    ahead = list(val_batches(dataset, batch_size=2, num_workers=4))
    at_once = time.perf_counter() - begin
    assert one_by_one > num_slow * 0.8
    assert at_once < 0.75 * one_by_one
    assert same(ahead, alone)


def test_settings_of_fsspec_are_taken(store, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    settings = {"key": KEY, "secret": SECRET, "endpoint_url": store.endpoint, "config_kwargs": {"user_agent": "mine"}}
    monkeypatch.setitem(conf, "s3", settings)
    assert len(ShardDataset("s3://bucket/train-00.tar", QUICK)) == 6


def test_nobody_is_denied_by_name(store, monkeypatch, request):
    request.addfinalizer(S3FileSystem.clear_instance_cache)
    S3FileSystem.clear_instance_cache()  # those of other tests know their credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match=r"access is denied.*AWS_ACCESS_KEY_ID"):
        ShardDataset("s3://bucket/train-00.tar", QUICK)


def test_waits_depend_on_sample_and_try_alone_and_double():
    policy = ReadPolicy(first_wait=1.0, longest_wait=6.0, seed=3)
    waits = np.array([[policy.wait(key, attempt) for attempt in range(1, 6)] for key in range(200)])
    assert (waits == [[replace(policy).wait(key, attempt) for attempt in range(1, 6)] for key in range(200)]).all()
    full = np.array([1, 2, 4, 6, 6])
    assert (waits >= full / 2).all()
    assert (waits <= full).all()
    assert np.allclose(waits.mean(0), 0.75 * full, rtol=0.06)
    assert policy.wait(1, 1) != replace(policy, seed=4).wait(1, 1)
