"""Text strategies, against a per-caption reference written from the papers, token by token."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    CountError,
    KeyArrayError,
    TextBlock,
    TextFrequency,
    TextPriority,
    TextRandom,
    TextSyntax,
    TextTruncate,
    TokenShapeError,
    noise,
    take_ids,
)

START, END, PAD, BANG = 90, 91, 0, 0  # CLIP's trap: padding is the id of "!"
SPECIAL = (START, END)
FIRST_INDEX = 2**31
DRAWN = (TextTruncate, TextRandom, TextPriority, TextBlock)


@st.composite
def captions(draw, start_and_end=None) -> tuple[list[list[int]], int, list[int]]:
    """Captions padded to one width, a budget that fits, and sample ids."""
    special = draw(st.booleans()) if start_and_end is None else start_and_end
    word = st.integers(1, 9)
    rows = draw(st.lists(st.lists(word, max_size=9), min_size=1, max_size=4))
    rows = [[START, *row, END] if special else row for row in rows]
    width = max(map(len, rows)) + draw(st.integers(0, 3)) or 1
    rows = [row + [PAD] * (width - len(row)) for row in rows]
    ids = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(rows), max_size=len(rows)))
    return rows, draw(st.integers(min(2, width), width)), ids


def kinds_of(row: list[int]) -> list[str]:
    """Special, content or padding, by walking back from the end."""
    last = len(row)
    while last and row[last - 1] == PAD:
        last -= 1
    return ["special" if token in SPECIAL else "content" for token in row[:last]] + ["padding"] * (len(row) - last)


def reference(cls, row: list[int], length: int, bits: list[int]) -> list[int]:
    """Kept places of one caption; `bits` is the noise of its places."""
    places = range(len(row))
    special, content, padding = (
        [place for place in places if kinds_of(row)[place] == kind] for kind in ("special", "content", "padding")
    )
    budget = max(length - len(special), 0)
    if cls is TextBlock and len(content) > budget:
        start = bits[0] * (len(content) - budget + 1) // 2**32
        content = content[start : start + budget]
    if cls in (TextRandom, TextPriority):
        content = sorted(content, key=lambda place: bits[place])[:budget]
    if cls is TextPriority:
        padding = sorted(padding, key=lambda place: bits[place])
    return sorted([*special, *content[:budget], *padding][:length])


@pytest.mark.parametrize("cls", DRAWN)
@given(case=captions(), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32 - 1))
def test_each_caption_is_what_the_reference_makes_of_it(cls, case, seed, epoch):
    rows, length, ids = case
    tokens, sample_ids = np.array(rows), np.array(ids, dtype=np.int64)
    part = cls(length, SPECIAL, PAD).sample(tokens, sample_ids, seed=seed, epoch=epoch)
    bits = noise(seed, epoch, sample_ids, np.arange(tokens.shape[1]) + FIRST_INDEX).tolist()
    expected = [reference(cls, row, length, bits[index]) for index, row in enumerate(rows)]
    assert part.keep.tolist() == expected
    kept = take_ids(tokens, part)
    assert kept.tolist() == [[row[place] for place in places] for row, places in zip(rows, expected, strict=True)]
    assert part.grid.num == tokens.shape[1]
    assert part.num_kept == length


@pytest.mark.parametrize(
    ("cls", "other"), [(TextRandom, TextTruncate), (TextBlock, TextRandom), (TextPriority, TextRandom)]
)
def test_the_reference_can_tell_strategies_apart(cls, other):
    row = [START, 5, 6, 7, 8, 9, END, PAD, PAD, PAD]
    length = 8 if cls is TextPriority else 4
    bits = noise(3, 0, np.arange(20), np.arange(10) + FIRST_INDEX).tolist()
    assert any(reference(cls, row, length, some) != reference(other, row, length, some) for some in bits)


@pytest.mark.parametrize("cls", DRAWN)
@given(case=captions(start_and_end=True))
def test_special_tokens_stay_and_padding_goes_first(cls, case):
    rows, length, ids = case
    kept = take_ids(np.array(rows), cls(length, SPECIAL, PAD).sample(np.array(rows), np.array(ids), seed=1))
    for row, short in zip(rows, kept.tolist(), strict=True):
        words = row.index(END) - 1
        assert short[0] == START
        assert short.count(END) == 1
        assert short.index(END) == min(words, length - 2) + 1
        assert short.count(PAD) == max(length - words - 2, 0)


@pytest.mark.parametrize("cls", DRAWN)
@given(case=captions(), extra=st.integers(1, 20))
def test_content_does_not_depend_on_how_far_a_caption_is_padded(cls, case, extra):
    rows, length, ids = case
    tokens, strategy = np.array(rows), cls(length, SPECIAL, PAD)
    wide = np.pad(tokens, ((0, 0), (0, extra)), constant_values=PAD)
    short, long = (take_ids(x, strategy.sample(x, np.array(ids), seed=5)) for x in (tokens, wide))
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("cls", DRAWN)
def test_a_caption_does_not_depend_on_its_batch(cls):
    tokens = np.random.default_rng(0).integers(1, 80, (6, 12))
    ids, epochs = np.arange(6) * 7 - 9, np.arange(6)
    whole = cls(5, SPECIAL, PAD).sample(tokens, ids, seed=2, epoch=epochs)
    for rows in ([3], [5, 0, 2]):
        part = cls(5, SPECIAL, PAD).sample(tokens[rows], ids[rows], seed=2, epoch=epochs[rows])
        np.testing.assert_array_equal(part.keep, whole.keep[rows])


def test_clip_padding_is_not_clip_exclamation():
    row = [START, 7, BANG, BANG, 8, END, PAD, PAD, PAD]
    part = TextTruncate(6, SPECIAL, PAD).sample(np.array([row]), np.array([1]), seed=0)
    assert part.keep.tolist() == [[0, 1, 2, 3, 4, 5]]
    all_but_last = TextTruncate(4, SPECIAL, PAD).sample(np.array([row]), np.array([1]), seed=0)
    assert take_ids(np.array([row]), all_but_last).tolist() == [[START, 7, BANG, END]]


def test_where_the_end_of_text_pads_its_first_is_special():
    row = np.array([[START, 5, 6, 7, END, END, END]])
    part = TextTruncate(4, SPECIAL, END).sample(row, np.array([1]), seed=0)
    assert part.keep.tolist() == [[0, 1, 2, 4]]
    assert TextTruncate(6, SPECIAL, END).sample(row, np.array([1]), seed=0).keep.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_more_special_tokens_than_budget_stay_from_the_left():
    row = np.array([[START, 5, START, 6, END]])
    for cls in DRAWN:
        assert cls(2, SPECIAL, PAD).sample(row, np.array([1]), seed=0).keep.tolist() == [[0, 2]]


def test_without_a_pad_id_padding_is_drawn_like_content():
    """FLIP's "random": of 8 words and 24 paddings, half stay: 4 words on average (sd 0.02 over 4096; bound 0.1)."""
    tokens = np.zeros((4096, 32), dtype=np.int64)
    tokens[:, :8] = 5
    part = TextRandom(16).sample(tokens, np.arange(4096), seed=0)
    assert abs((take_ids(tokens, part) == 5).sum(1).mean() - 4) < 0.1
    kept = take_ids(tokens, TextPriority(16, pad_id=PAD).sample(tokens, np.arange(4096), seed=0))
    assert ((kept == 5).sum(1) == 8).all()


def test_random_content_stays_equally_often():
    """5 of 12 words stay: frequency 0.4167, sd 0.0077 over 4096 captions; the bound is 0.035 (4.5 sd)."""
    tokens = np.arange(1, 13) + np.zeros((4096, 1), dtype=np.int64)
    for cls in (TextRandom, TextPriority):
        kept = ~cls(5, pad_id=PAD).sample(tokens, np.arange(4096), seed=0).mask
        assert np.abs(kept.mean(0) - 5 / 12).max() < 0.035


def test_every_start_of_a_block_is_equally_likely():
    """8 starts: frequency 1/8, sd 0.0052 over 4096 captions; the bound is 0.023 (4.5 sd)."""
    tokens = np.arange(1, 13) + np.zeros((4096, 1), dtype=np.int64)
    keep = TextBlock(5, pad_id=PAD).sample(tokens, np.arange(4096), seed=0).keep
    assert (np.diff(keep, axis=1) == 1).all()
    assert np.abs(np.bincount(keep[:, 0], minlength=8) / 4096 - 1 / 8).max() < 0.023


def test_text_and_image_masks_of_a_sample_are_not_the_same_draw():
    """Correlation over 4096 samples of the first noise words of both, sd 0.016; the bound is 0.07."""
    ids = np.arange(4096)
    image, text = noise(0, 0, ids, np.array([0])), noise(0, 0, ids, np.array([FIRST_INDEX]))
    assert abs(np.corrcoef(image[:, 0], text[:, 0])[0, 1]) < 0.07


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.int64])
def test_ids_keep_their_dtype(dtype):
    tokens = np.array([[START, 1, 2, 3, END]], dtype=dtype)
    kept = take_ids(tokens, TextTruncate(3, SPECIAL, PAD).sample(tokens, np.array([1]), seed=0))
    assert kept.dtype == dtype
    assert kept.tolist() == [[START, 1, END]]


def test_an_empty_batch_stays_empty():
    tokens, ids = np.zeros((0, 8), dtype=np.int64), np.zeros(0, dtype=np.int64)
    for cls in DRAWN:
        assert cls(3, SPECIAL, PAD).sample(tokens, ids, seed=0).keep.shape == (0, 3)


def test_illegal_budgets_and_ids_are_named():
    for bad in (0, -1, True, 2.5):
        with pytest.raises(CountError, match="Give the number of tokens that stay"):
            TextRandom(bad)
    with pytest.raises(TokenShapeError, match="token id -1 in special_ids or pad_id"):
        TextRandom(4, pad_id=-1)
    with pytest.raises(TokenShapeError, match="needs pad_id"):
        TextPriority(4)


def test_illegal_captions_are_named():
    tokens, ids = np.ones((2, 6), dtype=np.int64), np.array([1, 2])
    with pytest.raises(TokenShapeError, match="has 6 tokens a caption, from which length=7 cannot be kept"):
        TextRandom(7).sample(tokens, ids, seed=0)
    for bad in (tokens[0], tokens.astype(float), tokens == 1, [[1, 2]]):
        with pytest.raises(TokenShapeError, match="Give one row of integer token ids per caption"):
            TextRandom(2).sample(bad, ids, seed=0)
    with pytest.raises(TokenShapeError, match="with 2 captions but sample_ids is numpy with 1"):
        TextRandom(2).sample(tokens, ids[:1], seed=0)
    with pytest.raises(KeyArrayError, match="Give one integer per sample"):
        TextRandom(2).sample(tokens, ids * 0.5, seed=0)
    part = TextRandom(2).sample(tokens, ids, seed=0)
    with pytest.raises(TokenShapeError, match=r"This partition needs \[2, 6\] on numpy"):
        take_ids(tokens[:, :5], part)


def test_text_strategies_are_values_with_a_json_record():
    for cls in (*DRAWN, TextSyntax, TextFrequency):
        strategy = cls(16, SPECIAL, PAD)
        assert strategy == cls(16, (START, END), 0)
        assert len({strategy, cls(8, SPECIAL, PAD)}) == 2
        record = strategy.describe()
        assert json.loads(json.dumps(record)) == record
        assert record["length"] == 16
    names = {cls(16, SPECIAL, PAD).describe()["strategy"] for cls in (*DRAWN, TextSyntax, TextFrequency)}
    assert len(names) == 6
