"""Captions as the web has them: nothing ends a run, nothing is changed without a count."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_pretrain import run
from unveil_pretrain.cli import main
from unveil_pretrain.data import CaptionCounts, PairDataset, ShardDataset, train_batches
from unveil_pretrain.data.audit import audit
from unveil_pretrain.data.captions import captions_of, read_captions
from unveil_pretrain.data.pairs import inspect_captions
from unveil_pretrain.errors import ConfigError, DataError
from unveil_pretrain.loop import train
from unveil_pretrain.sources import open_data


def listed(*captions, **more):
    return {"json": json.dumps({"captions": list(captions), **more}).encode()}


def test_captions_come_from_the_json_or_else_the_text():
    assert captions_of({**listed(" one ", "", "two"), "txt": b"three"}, "w") == ("one", "two")
    assert captions_of({"json": b'{"width": 3}', "txt": b"drei\n"}, "w") == ("drei",)
    assert captions_of({"json": b'{"captions": "single"}'}, "w") == ("single",)


def test_img2dataset_writes_its_caption_into_the_json_too():
    assert captions_of({"json": b'{"caption": "in the record"}'}, "w") == ("in the record",)
    assert captions_of({"json": b'{"caption": "record"}', "txt": b"file"}, "w") == ("file",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"json": b"{"}, "cannot be read as JSON"),
        ({"json": b"[" * 100_000}, "cannot be read as JSON"),
        ({"txt": b"  \n"}, "has no text"),
        ({"txt": b"\xff\xfe"}, "has no text"),
        ({"json": b'{"captions": []}'}, "has no text"),
        ({"json": b'{"captions": null}'}, "has no text"),
        ({"json": b'{"captions": {"en": "a"}}'}, "has no text"),
        ({"json": b"[1]"}, "has no text"),
        ({}, "has neither"),
    ],
)
def test_samples_without_a_caption_are_named(files, message):
    with pytest.raises(DataError, match=rf"s\.tar: k: no caption.*{message}"):
        captions_of(files, "s.tar: k")
    assert read_captions(files).captions == ()


@pytest.mark.parametrize(
    ("files", "texts", "counts"),
    [
        (listed("a dog"), ("a dog",), CaptionCounts(shown=1)),
        ({"txt": "caf\u00e9".encode("latin-1")}, ("caf\ufffd",), CaptionCounts(shown=1, repaired=1)),
        ({"json": b"{", "txt": b"a dog"}, ("a dog",), CaptionCounts(shown=1, repaired=1)),
        (listed("<b>a</b> dog &amp;amp; cat"), ("a dog & cat",), CaptionCounts(shown=1, cleaned=1)),
        (listed("a\x00b\x1b[0m"), ("a b [0m",), CaptionCounts(shown=1, cleaned=1)),
        (listed("\ufeffa dog"), ("a dog",), CaptionCounts(shown=1, cleaned=1)),
        ({"json": b'{"captions": ["half \\ud83d pair"]}'}, ("half pair",), CaptionCounts(shown=1, cleaned=1)),
        (listed("I <3 dogs, 2 < 3"), ("I <3 dogs, 2 < 3",), CaptionCounts(shown=1)),
        (listed(7, None, "", ["a"], {"b": 1}, "a dog"), ("a dog",), CaptionCounts(shown=1, dropped=5)),
        (listed("abcde fghij"), ("abcde",), CaptionCounts(shown=1, cut=1)),
        (listed("two\nlines\t"), ("two lines",), CaptionCounts(shown=1)),
    ],
)
def test_repairs_are_done_and_counted(files, texts, counts):
    limit = 6 if counts.cut else 1000
    reading = read_captions(files, max_characters=limit)
    assert reading.texts == texts
    assert reading.counts_of(0) == counts
    assert bool(counts) == (counts != CaptionCounts(shown=counts.shown))


def test_a_caption_of_megabytes_is_cut_without_reading_it_all():
    reading = read_captions({"txt": b"word " * 2_000_000}, max_characters=20)
    assert reading.texts == ("word word word word",)
    assert reading.captions[0].cut


@given(st.dictionaries(st.sampled_from(["txt", "json", "jpg"]), st.binary(max_size=80)))
def test_no_bytes_raise_anything_else(files):
    reading = read_captions(files)
    assert bool(reading.captions) == (reading.problem == "")
    for text in reading.texts:
        assert text == text.strip()
        assert text.isprintable() or "\n" not in text
        text.encode("utf-8")  # no lone surrogates


@given(st.lists(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text(), max_size=2)), max_size=6))
def test_every_entry_is_shown_or_counted(entries):
    reading = read_captions(listed(*entries), max_characters=5)
    assert len(reading.captions) + reading.dropped == len(entries)
    assert all(0 < len(text) <= 5 for text in reading.texts)


def test_counts_add_up():
    one, two = CaptionCounts(1, 1, 0, 1, 2), CaptionCounts(1, 0, 1, 0, 0)
    assert one + two == CaptionCounts(2, 1, 1, 1, 2)
    assert sum([one, two], CaptionCounts()) == one + two


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="max_caption_characters is 0"):
        read_captions({"txt": b"a"}, max_characters=0)


@pytest.fixture
def hostile(tmp_path, shards, shard_writer):
    """Five good images with captions of every kind, the last without any."""
    good = ShardDataset(shards[0])
    texts = [listed("plain"), listed("<i>marked</i> up", 3), {"txt": b"broken \xff bytes"}, listed("long " * 400), {}]
    samples = {f"{number}": {"jpg": good.read(number)["jpg"], **files} for number, files in enumerate(texts)}
    return ShardDataset(shard_writer(tmp_path / "hostile.tar", samples))


def test_shards_are_inspected_without_decoding(hostile):
    report = inspect_captions(hostile)
    assert report.num_samples == 5
    assert [where.split(": ")[1] for where in report.missing] == ["4"]
    assert report.counts == CaptionCounts(shown=4, repaired=1, cleaned=1, cut=1, dropped=1)
    assert (report.num_distinct, report.longest) == (4, 999)  # the cut falls on a space


def test_batches_carry_the_counts_of_the_captions_they_show(hostile, tmp_path, shard_writer):
    usable = ShardDataset(
        shard_writer(tmp_path / "usable.tar", {hostile.keys[index]: hostile.read(index) for index in range(4)})
    )
    pairs = PairDataset(usable, image_size=(16, 16))
    batches = list(train_batches(pairs, batch_size=4, start_step=0, num_steps=2, seed=0))
    assert [batch.caption_counts for batch in batches] == [CaptionCounts(4, 1, 1, 1, 1)] * 2
    shorter = PairDataset(usable, image_size=(16, 16), max_characters=8)
    assert {len(caption) for caption in next(train_batches(
        shorter, batch_size=4, start_step=0, num_steps=1, seed=0)).captions} <= {5, 6, 7, 8}  # fmt: skip


def test_a_sample_without_a_caption_is_an_error_of_that_sample(hostile):
    pairs = PairDataset(hostile, image_size=(16, 16))
    assert pairs.captions(4) == ()
    for read in (pairs.val_example, lambda index: pairs.train_example(index, seed=0, epoch=0)):
        with pytest.raises(DataError, match=r"hostile\.tar: 4: no caption"):
            read(4)


def test_a_run_says_what_it_did_to_captions(tmp_path, shards, shard_writer, flip_config):
    good = ShardDataset(shards[0])
    samples = {
        key: {"jpg": good.read(number)["jpg"], **listed(f"<b>a</b> field {number}", 7)}
        for number, key in enumerate(good.keys)
    }
    path, said = shard_writer(tmp_path / "marked.tar", samples), []
    config = replace(flip_config, steps=2, validate_every=2, checkpoint_every=0)
    train(config, out=tmp_path / "run", train_data=path, val_data=shards[1], log=said.append, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["captions_cleaned"], row["captions_dropped"]) for row in rows] == [(6, 6), (6, 6)]
    assert "captions_cut" not in rows[0]
    assert any("captions as they were shown: 12 cleaned, 12 dropped" in line for line in said)


def test_an_audit_counts_them(hostile, tmp_path, capsys):
    main(["audit", str(hostile.shards[0]), "--json", str(tmp_path / "audit.json")])
    said = capsys.readouterr().out
    assert "captions  4, 4 different; 1 samples without one; 1 repaired, 1 cleaned, 1 cut, 1 dropped" in said
    assert "the first sample without one: " in said
    written = json.loads((tmp_path / "audit.json").read_text())["captions"]
    assert written["counts"] == {"shown": 4, "repaired": 1, "cleaned": 1, "cut": 1, "dropped": 1}
    assert [where.split(": ")[1] for where in written["missing"]] == ["4"]


def test_an_audit_of_images_alone_says_nothing_of_captions(shards, tmp_path, shard_writer):
    good = ShardDataset(shards[0])
    path = shard_writer(tmp_path / "images.tar", {"a": {"jpg": good.read(0)["jpg"], "json": b'{"class": "x"}'}})
    assert audit(path).captions is None


def test_the_flag_reaches_training_validation_and_the_gap_set(shards, flip_config):
    config = replace(flip_config, objective=replace(flip_config.objective, max_caption_characters=4))
    data = open_data(config, train_data=shards[0], val_data=shards[1])
    gap = run._uncropped(data.train, data.train.shards, config)
    for pairs in (data.train, data.val, gap):
        assert max(len(caption) for index in range(len(pairs)) for caption in pairs.captions(index)) <= 4
    longer = open_data(flip_config, train_data=shards[0], val_data=shards[1]).train
    assert max(len(caption) for caption in longer.captions(0)) > 4


def test_a_limit_that_leaves_nothing_is_refused(flip_config):
    with pytest.raises(ConfigError, match="max_caption_characters is 0"):
        replace(flip_config.objective, max_caption_characters=0)
