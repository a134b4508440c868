"""Nested, class-balanced subsets, their lists, and what a run makes of a list."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones import load
from unveil_pretrain.cli import main
from unveil_pretrain.data import ShardDataset, sample_id_of
from unveil_pretrain.data.balance import balance_of, balanced_subsets, exact_fraction
from unveil_pretrain.data.lists import SampleList, read_list, samples_of_list
from unveil_pretrain.errors import ConfigError, DataError

CLASSES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
FRACTIONS = st.lists(st.fractions(Fraction(1, 20), 1), min_size=1, max_size=4)


def labelled(sizes):
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    ids = np.array([sample_id_of(f"{label}/{place}") for place, label in enumerate(labels)], dtype=np.int64)
    return labels, ids


@given(sizes=CLASSES, fractions=FRACTIONS, seed=st.integers(0, 2**32))
def test_subsets_are_nested_and_balanced(sizes, fractions, seed):
    labels, ids = labelled(sizes)
    fractions = [*sorted(fractions), Fraction(1)]
    try:
        subsets = balanced_subsets(labels, ids, fractions, seed=seed)
    except ConfigError:  # so few samples that a fraction is none of them
        assert min(fractions) * sum(sizes) < 1
        return
    for smaller, larger in pairwise(subsets):
        assert set(smaller) <= set(larger)
    assert subsets[-1] == list(range(len(labels)))
    for fraction, subset in zip(fractions, subsets, strict=True):
        assert subset == sorted(set(subset))
        balance = balance_of(labels, subset, fraction)
        assert balance.largest_deviation < 1
        assert balance.num_classes == len(sizes)


@pytest.mark.parametrize(("num_classes", "size"), [(10, 13), (7, 100), (1000, 3)])
def test_roundings_cancel_over_classes_of_one_size(num_classes, size):
    labels, ids = labelled([size] * num_classes)
    for fraction in (Fraction(1, 10), Fraction(1, 5), Fraction(1, 2), Fraction(77, 100)):
        (subset,) = balanced_subsets(labels, ids, [fraction], seed=1)
        assert abs(len(subset) - fraction * len(labels)) <= 1


def test_the_rule_by_hand():
    """Two classes of 3 and 5: the offsets are 1/4 and 3/4, so a half takes ⌈3/2 − u⌉ and ⌈5/2 − u⌉."""
    labels, ids = labelled([3, 5])
    (subset,) = balanced_subsets(labels, ids, [Fraction(1, 2)], seed=0)
    counts = [sum(labels[index] == name for index in subset) for name in ("class 0", "class 1")]
    allowed = [[math.ceil(1.5 - u), math.ceil(2.5 - v)] for u, v in ((0.25, 0.75), (0.75, 0.25))]
    assert counts in allowed


def test_places_depend_on_keys_and_seed_and_not_on_the_order():
    labels, ids = labelled([20, 30, 7])
    (subset,) = balanced_subsets(labels, ids, [Fraction(1, 3)], seed=5)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    (other,) = balanced_subsets([labels[place] for place in shuffled], ids[shuffled], [Fraction(1, 3)], seed=5)
    assert {int(shuffled[index]) for index in other} == set(subset)
    (changed,) = balanced_subsets(labels, ids, [Fraction(1, 3)], seed=6)
    assert changed != subset


def test_fractions_are_what_was_written():
    assert exact_fraction(".1") == Fraction(1, 10) != Fraction(0.1)
    assert exact_fraction("1/8") == Fraction(1, 8)
    for wrong in ("much", "1/0", "", "1e1000000000", "1E-1_000_000_000", "1e+999"):
        with pytest.raises(ConfigError, match="is no number"):
            exact_fraction(wrong)
    labels, ids = labelled([5])
    for wrong in (Fraction(0), Fraction(3, 2)):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            balanced_subsets(labels, ids, [wrong], seed=0)
    with pytest.raises(ConfigError, match="is empty"):
        balanced_subsets(labels, ids, [Fraction(1, 100)], seed=0)


def test_a_list_comes_back_as_it_was_written(tmp_path):
    listed = SampleList(keys=("a/1", "b c"), about={"seed": "3"})
    path = tmp_path / "S10.txt"
    path.write_text(listed.text(), encoding="utf-8")
    assert read_list(path) == listed
    assert path.read_text().splitlines()[-2:] == ["a/1", "b c"]
    path.write_text("a/1\r\nb c\r\n", encoding="utf-8")  # a list of another hand
    assert read_list(path).hash == listed.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "another\n", "has changed since it was written"),
        (lambda text: text.replace("a/1\n", ""), "has changed since it was written"),
        (lambda text: "", "names no sample"),
        (lambda text: "a/1\na/1\n", "names 'a/1' twice"),
    ],
)
def test_a_list_that_is_wrong_is_named(tmp_path, change, message):
    path = tmp_path / "S10.txt"
    path.write_text(change(SampleList(keys=("a/1", "b c")).text()), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_list(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "nothing.txt")


def test_keys_that_make_no_line_are_refused():
    for key in ("", " a", "#a", "a\nb"):
        with pytest.raises(DataError, match="cannot be written as a line"):
            SampleList(keys=(key,)).text()


def test_a_list_chooses_samples_in_stored_order(shards):
    samples = ShardDataset(shards[0])
    listed = SampleList(keys=(samples.keys[5], samples.keys[2]))
    assert samples_of_list(samples, listed, "l.txt").keys == (samples.keys[2], samples.keys[5])
    with pytest.raises(DataError, match=r"1 of 2 keys of the list 'l\.txt' are not in the data, for example 'foreign'"):
        samples_of_list(samples, SampleList(keys=("foreign", samples.keys[0])), "l.txt")


def test_a_run_on_a_list_says_so(tmp_path, shards, capsys):
    main(["subset", shards[0], "--fractions", ".25", "1", "--out", str(tmp_path / "lists")])
    assert "S25.txt lies in S100.txt: 0 of its 6 samples are outside" in capsys.readouterr().out
    listed = read_list(tmp_path / "lists" / "S25.txt")
    run = [
        "mim", "tiny_mae", "--train-data", shards[0], "--val-data", shards[1], "--steps", "1", "--batch-size", "2",
        "--device", "cpu", "--image-size", "32", "32", "--gap-images", "0", "--warmup-steps", "0",
    ]  # fmt: skip
    main([*run, "--out", str(tmp_path / "run"), "--train-list", str(tmp_path / "lists" / "S25.txt")])
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert identity["train_list_hash"] == listed.hash
    manifest = load(tmp_path / "run" / "checkpoints" / "step_00000001").manifest
    assert manifest.data_hash == identity["train_data_hash"] == listed.about["data"]
    assert manifest.unique_samples == 6
    with pytest.raises(SystemExit) as caught:
        main([*run, "--out", str(tmp_path / "run"), "--train-list", str(tmp_path / "lists" / "S100.txt")])
    assert caught.value.code == 2
    assert "with other settings: " in capsys.readouterr().err


def test_subset_refuses_what_it_cannot_do(tmp_path, shards, shard_writer, capsys):
    def said(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["subset", *arguments])
        assert caught.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert "is not empty" in said(shards[0], "--fractions", "1", "--out", str(tmp_path / "full"))
    assert "is no number" in said(shards[0], "--fractions", "half", "--out", str(tmp_path / "a"))
    assert "--check-leak" in said(shards[0], "--fractions", "1", "--out", str(tmp_path / "b"), "--exclude-leaks")
    some = shard_writer(tmp_path / "some.tar", {"a": {"jpg": b"", "cls": b"1"}, "b": {"jpg": b""}})
    assert "b has no class, 1 of 2 samples have one" in said(some, "--fractions", "1", "--out", str(tmp_path / "c"))
    twice = shard_writer(tmp_path / "twice.tar", {"a": {"jpg": b""}})
    assert "occurs more than once" in said(f"{twice}::{twice}", "--fractions", "1", "--out", str(tmp_path / "d"))
