"""Text strategies with a table: syntax (CLIPA) and word frequency (CLIPF), against independent references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import ScoreError, TextFrequency, TextSyntax, frequency_weights, noise, syntax_ranks, take_ids

START, END, PAD = 90, 91, 0
SPECIAL = (START, END)
TAGS = {"a": "DT", "dog": "NN", "dogs": "NNS", "Rex": "NNP", "red": "JJ", "redder": "JJR", "runs": "VBZ", "run": "VB"}
WORDS = tuple(TAGS)

ranks_and_lengths = st.integers(1, 12).flatmap(
    lambda size: st.tuples(st.lists(st.integers(1, 4), min_size=size, max_size=size), st.integers(1, size))
)


def test_ranks_follow_the_first_two_letters_of_the_tag():
    assert syntax_ranks(WORDS, TAGS.__getitem__).tolist() == [4, 1, 1, 1, 2, 2, 3, 3]
    assert syntax_ranks([], TAGS.__getitem__).shape == (0,)


def test_a_hand_made_caption_keeps_nouns_then_adjectives_then_verbs():
    vocabulary = ["[PAD]", "a", "red", "dog", "runs", "Rex"]
    tags = {**TAGS, "[PAD]": "SYM"}
    table = np.append(syntax_ranks(vocabulary, tags.__getitem__), [4, 4])  # 6 and 7 start and end the text
    caption = np.array([[6, 1, 2, 3, 4, 1, 5, 7, 0, 0]])  # a red dog runs a Rex
    shortened = {
        length: take_ids(caption, TextSyntax(length, (6, 7), 0).sample(caption, np.array([1]), ranks=table)).tolist()
        for length in (3, 4, 5, 6, 7, 9)
    }
    assert shortened == {
        3: [[6, 3, 7]],
        4: [[6, 3, 5, 7]],
        5: [[6, 2, 3, 5, 7]],
        6: [[6, 2, 3, 4, 5, 7]],
        7: [[6, 1, 2, 3, 4, 5, 7]],
        9: [[6, 1, 2, 3, 4, 1, 5, 7, 0]],
    }


@given(case=ranks_and_lengths)
def test_syntax_is_a_stable_sort_by_rank(case):
    ranks, length = case
    tokens = np.arange(1, len(ranks) + 1)[None]
    best = sorted(np.argsort(ranks, kind="stable")[:length].tolist())
    part = TextSyntax(length).sample(tokens, np.array([1]), ranks=np.array([ranks]))
    assert part.keep.tolist() == [best]
    by_vocabulary = TextSyntax(length).sample(tokens, np.array([1]), ranks=np.array([4, *ranks]))
    assert by_vocabulary.keep.tolist() == [best]


def test_an_unstable_sort_would_be_caught():
    """Among equal ranks the first stay; the last would be another selection."""
    ranks = np.array([[1, 1, 1, 1]])
    part = TextSyntax(2).sample(np.ones((1, 4), dtype=np.int64), np.array([1]), ranks=ranks)
    assert part.keep.tolist() == [[0, 1]] != [[2, 3]]


def test_weights_are_the_square_root_rule_in_units_of_two_to_the_minus_32():
    weights = frequency_weights(np.array([96, 3, 1, 0]), 0.03)
    expected = [(0.03 / 0.96) ** 0.5, 1.0, 1.0]
    np.testing.assert_allclose(weights[:3] / 2**32, expected, atol=2**-33)
    assert weights[3] == 0
    assert weights.dtype == np.int64
    rare_first = frequency_weights(np.array([96, 3, 4, 0]), 0.03, min_count=4)
    np.testing.assert_allclose(rare_first / 2**32, [(0.03 / 0.96) ** 0.5, 0, (0.03 / 0.04) ** 0.5, 0], atol=2**-33)


@given(
    table=st.lists(st.integers(0, 2**32), min_size=10, max_size=10),
    words=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_frequency_keeps_the_largest_sums_of_noise_and_weight(table, words, seed, data):
    length = data.draw(st.integers(1, len(words)))
    bits = noise(seed, 3, np.array([8]), np.arange(len(words)) + 2**31)[0].tolist()
    worth = [bits[place] + table[word] for place, word in enumerate(words)]
    best = sorted(sorted(range(len(words)), key=lambda place: (-worth[place], place))[:length])
    part = TextFrequency(length).sample(
        np.array([words]), np.array([8]), weights=np.array(table, dtype=np.int64), seed=seed, epoch=3
    )
    assert part.keep.tolist() == [best]


def test_frequent_words_stay_less_often_and_equal_ones_equally():
    """Against 40,000 draws of the rule with NumPy's generator; sd of the difference at most 0.0086, bound 0.04."""
    counts = np.array([0, 50_000, 5_000, 5_000, 500, 50])
    weights = frequency_weights(counts, 1e-3)
    words = np.array([1, 2, 3, 4, 5])
    tokens = np.tile(words, (4096, 1))
    kept = ~TextFrequency(2).sample(tokens, np.arange(4096), weights=weights, seed=0).mask
    draws = np.random.default_rng(1).random((40_000, 5)) + np.minimum(1, np.sqrt(1e-3 / (counts[words] / counts.sum())))
    expected = (np.argsort(np.argsort(-draws, 1), 1) < 2).mean(0)
    assert np.abs(kept.mean(0) - expected).max() < 0.04
    assert kept.mean(0)[0] < kept.mean(0)[1] < kept.mean(0)[3]
    uniform = ~TextFrequency(2).sample(tokens, np.arange(4096), weights=weights * 0, seed=0).mask
    assert np.abs(uniform.mean(0) - expected).max() > 0.04  # weights that do nothing are caught


def test_special_tokens_and_padding_are_no_content():
    caption = np.array([[START, 1, 2, 3, END, PAD, PAD]])
    table = np.zeros(92, dtype=np.int64)
    table[PAD] = 2**32  # the best weight, and a rank no word has
    for length, kept in ((4, 2), (6, 3)):
        drawn = TextFrequency(length, SPECIAL, PAD).sample(caption, np.array([1]), weights=table, seed=0)
        ranked = TextSyntax(length, SPECIAL, PAD).sample(caption, np.array([1]), ranks=(table == 0).astype(np.int64))
        for part in (drawn, ranked):
            short = take_ids(caption, part)[0].tolist()
            assert short[0] == START
            assert short[kept + 1] == END
            assert all(word in (1, 2, 3) for word in short[1 : kept + 1])


def test_tables_that_do_not_fit_are_named():
    tokens, ids = np.array([[1, 2, 9]]), np.array([1])
    with pytest.raises(ScoreError, match=r"token_ids lie in \[1, 9\], but ranks have 4 entries"):
        TextSyntax(2).sample(tokens, ids, ranks=np.ones(4, dtype=np.int64))
    with pytest.raises(ScoreError, match=r"ranks have shape \(2, 3\)"):
        TextSyntax(2).sample(tokens, ids, ranks=np.ones((2, 3), dtype=np.int64))
    with pytest.raises(ScoreError, match=r"ranks lie in \[-1, -1\]"):
        TextSyntax(2).sample(tokens, ids, ranks=-np.ones((1, 3), dtype=np.int64))
    with pytest.raises(ScoreError, match="ranks are empty"):
        TextSyntax(2).sample(tokens, ids, ranks=np.ones(0, dtype=np.int64))
    for bad in (np.ones(10), [1] * 10):
        with pytest.raises(ScoreError, match="Give integers in"):
            TextFrequency(2).sample(tokens, ids, weights=bad, seed=0)
    with pytest.raises(ScoreError, match="weights lie in"):
        TextFrequency(2).sample(tokens, ids, weights=np.full(10, 2**33), seed=0)


def test_counts_that_are_no_counts_are_named():
    for bad in (np.array([0.5]), np.array([[1]]), np.array([-1])):
        with pytest.raises(ScoreError, match="Give a one-dimensional array of integers"):
            frequency_weights(bad, 1e-6)
    with pytest.raises(ScoreError, match="reaches min_count=5"):
        frequency_weights(np.array([4, 0]), 1e-6, min_count=5)
    for threshold in (0, 1.5, -1e-6):
        with pytest.raises(ScoreError, match="is not a frequency in"):
            frequency_weights(np.array([4]), threshold)
