"""Indexing and reading tar shards, and every way in which a shard can be broken."""

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_pretrain.data import ShardDataset, sample_id_of
from unveil_pretrain.errors import ConfigError, DataError
from webdataset.tariterators import group_by_keys, tar_file_iterator


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def numbered(path, count, first=0):
    names = [f"{number:04d}" for number in range(first, first + count)]
    return write_tar(path, [(f"{name}.{ext}", f"{ext} of {name}".encode()) for name in names for ext in ("jpg", "txt")])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        numbered(folder / f"part-{number}.tar", 10, first=10 * number)
    return folder


def test_samples_come_in_shard_order(shards):
    dataset = ShardDataset(f"{shards}/part-{{0..2}}.tar")
    assert dataset.keys == tuple(f"{number:04d}" for number in range(30))
    assert dataset.read(17) == {"jpg": b"jpg of 0017", "txt": b"txt of 0017"}
    assert dataset.extensions(17) == ("jpg", "txt")
    assert dataset.where(17) == f"{shards}/part-1.tar: 0017"
    assert [sample["txt"] for sample in dataset] == [f"txt of {number:04d}".encode() for number in range(30)]


@pytest.mark.parametrize(
    "pattern",
    [
        "{0}/part-{{0..2}}.tar",
        "{0}/part-0.tar::{0}/part-{{1..2}}.tar",
        "{0}/part-*.tar",
        "file://{0}/part-{{0..2}}.tar",
    ],
)
def test_unions_globs_and_urls_name_the_same_samples(shards, pattern):
    expected = ShardDataset(f"{shards}/part-{{0..2}}.tar")
    dataset = ShardDataset(pattern.format(shards))
    assert dataset.keys == expected.keys
    assert dataset.content_hash == expected.content_hash
    assert dataset.read(29) == expected.read(29)


def test_files_are_grouped_as_webdataset_groups_them(tmp_path):
    files = [
        ("__meta__/about.json", b"left out"),
        ("a/b.c/one.JPG", b"1"),
        ("a/b.c/one.seg.png", b"2"),
        ("README", b"no extension"),
        ("two.txt", b"3"),
        ("one.txt", b"4"),
        ("two.txt", b"5"),
    ]
    path = write_tar(tmp_path / "odd.tar", files)
    dataset = ShardDataset(str(path))
    mine = [{"__key__": key, **sample} for key, sample in zip(dataset.keys, dataset, strict=True)]
    with path.open("rb") as stream:
        files_in_order = [record | {"__url__": ""} for record in tar_file_iterator(stream)]
    theirs = [
        {name: value for name, value in sample.items() if name != "__url__"} for sample in group_by_keys(files_in_order)
    ]
    assert mine == theirs
    assert dataset.keys == ("a/b.c/one", "two", "one", "two")


def test_a_dataset_can_be_sent_to_a_worker(shards):
    dataset = ShardDataset(f"{shards}/part-{{0..2}}.tar").subset(7, seed=0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(copy) == list(dataset)
    assert copy.content_hash == dataset.content_hash


def test_sample_ids_are_the_digest_of_the_key(shards):
    dataset = ShardDataset(f"{shards}/part-0.tar")
    expected = int.from_bytes(hashlib.blake2b(b"0003", digest_size=8).digest(), "big") // 2
    assert dataset.sample_ids[3] == expected == sample_id_of("0003")
    assert dataset.sample_ids.dtype == np.int64
    assert (dataset.sample_ids >= 0).all()


def test_the_content_hash_follows_the_samples_not_the_files(shards, tmp_path):
    whole = numbered(tmp_path / "whole.tar", 30)
    assert ShardDataset(str(whole)).content_hash == ShardDataset(f"{shards}/part-{{0..2}}.tar").content_hash
    assert ShardDataset(f"{shards}/part-0.tar").content_hash != ShardDataset(f"{shards}/part-1.tar").content_hash
    longer = write_tar(tmp_path / "longer.tar", [("0000.jpg", b"ab")])
    shorter = write_tar(tmp_path / "shorter.tar", [("0000.jpg", b"a")])
    assert ShardDataset(str(longer)).content_hash != ShardDataset(str(shorter)).content_hash


@settings(deadline=None, max_examples=25)
@given(small=st.integers(1, 30), large=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_subsets_are_nested(shards, small, large, seed):
    small, large = sorted((small, large))
    dataset = ShardDataset(f"{shards}/part-{{0..2}}.tar")
    inner, outer = dataset.subset(small, seed=seed), dataset.subset(large, seed=seed)
    assert (len(inner), len(outer)) == (small, large)
    assert set(inner.keys) <= set(outer.keys)
    assert inner.keys == tuple(sorted(inner.keys))  # stored order is kept
    assert [sample["txt"].decode()[-4:] for sample in inner] == list(inner.keys)


def test_subsets_depend_on_the_seed_and_not_on_the_sharding(shards, tmp_path):
    dataset = ShardDataset(f"{shards}/part-{{0..2}}.tar")
    assert dataset.subset(10, seed=0).keys != dataset.subset(10, seed=1).keys
    whole = ShardDataset(str(numbered(tmp_path / "whole.tar", 30)))
    assert whole.subset(10, seed=0).keys == dataset.subset(10, seed=0).keys
    assert dataset.subset(30, seed=0).content_hash == dataset.content_hash


@pytest.mark.parametrize("num_unique", [0, -1, 31])
def test_a_subset_must_fit(shards, num_unique):
    with pytest.raises(ConfigError, match="give 1 to 30"):
        ShardDataset(f"{shards}/part-{{0..2}}.tar").subset(num_unique, seed=0)


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("", "no shards were named"),
        ("{0}/part-{{0..3}}.tar", r"part-3\.tar' does not exist"),
        ("{0}/nothing-*.tar", "matches no file"),
        ("{0}", "is a folder"),
        ("{0}/part-{{0..2.tar", "cannot be expanded"),
        ("{0}/part-{{0..99999999}}.tar", "more than 1,000,000 shards"),
        ("{0}/a.tar::{0}/{{000..999}}/{{0000..1000}}.tar", "more than 1,000,000 shards"),
        ("{0}/part-{{" + "9" * 400 + "..2}}.tar", "more than 1,000,000 shards"),
        ("{0}/part-{{000000000001..2}}.tar", "does not exist"),
        ("{0}/part-{{5000000..0..1000000}}.tar", r"part-5000000\.tar' does not exist"),
        ("pipe:cat {0}/part-0.tar", "is a pipe"),
        ("nosuchscheme://bucket/part-0.tar", "cannot be opened"),
    ],
)
def test_shards_that_cannot_be_found_are_named(shards, urls, message):
    with pytest.raises(DataError, match=message):
        ShardDataset(urls.format(shards))


def test_broken_shards_are_named(shards, tmp_path):
    intact = (shards / "part-0.tar").read_bytes()
    header_of_third = 4 * 1024  # each member takes a header and a block
    damaged = bytearray(intact)
    damaged[header_of_third : header_of_third + 512] = b"\xff" * 512
    cases = {
        "empty": (b"", "is empty"),
        "text": (b"this is not a tar file " * 50, "not a tar file"),
        "compressed": (gzip.compress(intact), "compressed"),
        "no-samples": (bytes(10240), "holds no sample"),
        "in-a-header": (intact[: header_of_third + 100], "cut off or damaged after 0001.txt"),
        "in-a-file": (intact[: header_of_third + 515], "cut off inside 0002.jpg"),
        "between-files": (intact[:header_of_third], "cut off or damaged after 0001.txt"),
        "damaged-header": (bytes(damaged), "cut off or damaged after 0001.txt"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            ShardDataset(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_extension_twice_in_a_sample_is_refused(tmp_path):
    path = write_tar(tmp_path / "twice.tar", [("0001.jpg", b"a"), ("0001.JPG", b"b")])
    with pytest.raises(DataError, match=r"twice\.tar: 0001: two files end in \.jpg"):
        ShardDataset(str(path))


def test_a_shard_that_changes_after_indexing_is_noticed(tmp_path):
    path = numbered(tmp_path / "part.tar", 10)
    dataset = ShardDataset(str(path))
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(DataError, match=r"part\.tar: 0009: the shard changed"):
        dataset.read(9)
    path.unlink()
    with pytest.raises(DataError, match="can no longer be read"):
        dataset.read(0)
