"""The tokenizer: the same from the same captions in every process, fixed length, BERT's lower-casing."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer
from unveil_backbones import WordPieceTokenizer
from unveil_backbones.errors import TokenizerError

CAPTIONS = [
    f"A {colour} {digit} stands on a {ground} background, near the {place}."
    for colour in ("red", "blue", "green")
    for digit in ("zero", "one", "two", "seven", "eight")
    for ground in ("striped", "checkered")
    for place in ("left", "bottom", "corner")
]


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer.train(CAPTIONS, 120, length=16)


def test_rows_have_one_length_and_padding_is_zero(tokenizer):
    ids = tokenizer(["a red zero", " ".join(CAPTIONS), ""])
    assert ids.shape == (3, 16)
    assert ids.dtype == torch.int64
    assert (ids[0, -8:] == tokenizer.pad_id).all()
    assert (ids[1] != tokenizer.pad_id).all()
    assert (ids[2] == tokenizer.pad_id).all()
    assert tokenizer([]).shape == (0, 16)


def test_case_and_accents_do_not_matter_and_punctuation_stands_alone(tokenizer):
    plain, dressed, spaced = tokenizer(["a red zero.", "A RÉD Zero.", "a red zero ."])
    assert torch.equal(plain, dressed)
    assert torch.equal(plain, spaced)


def test_unknown_letters_become_the_unknown_piece(tokenizer):
    assert tokenizer(["zéro 字"])[0, :3].tolist().count(1) == 1


def test_frequent_words_become_single_pieces(tokenizer):
    assert (tokenizer(["background near the"])[0] != 0).sum() == 3
    assert tokenizer.vocab_size <= 120


def test_json_keeps_everything(tokenizer):
    again = WordPieceTokenizer.from_json(tokenizer.to_json())
    assert (again.length, again.vocab_size) == (16, tokenizer.vocab_size)
    assert torch.equal(again(CAPTIONS), tokenizer(CAPTIONS))
    assert again.to_json() == tokenizer.to_json()


def test_order_of_captions_does_not_matter(tokenizer):
    assert WordPieceTokenizer.train(CAPTIONS[::-1], 120, length=16).to_json() == tokenizer.to_json()


def test_other_processes_learn_the_same(tokenizer):
    """The library alone does not: it numbers letters in the order of a hash map that differs between processes."""
    code = (
        "import json, sys; from unveil_backbones.tokenizer import WordPieceTokenizer as W;"
        "sys.stdout.write(W.train(json.load(sys.stdin), 120, length=16).to_json())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(CAPTIONS), capture_output=True, text=True, check=True
    )
    assert done.stdout == tokenizer.to_json()


BERT = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "un",
    "##aff",
    "##able",
    "##a",
    "a",
    ",",
    "cafe",
    "中",
]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(BERT) + "\n", encoding="utf-8")
    return path


def test_a_vocabulary_file_numbers_pieces_by_line_and_the_longest_piece_wins(vocabulary):
    tokenizer = WordPieceTokenizer.from_vocabulary(vocabulary, length=6)
    assert (tokenizer.vocab_size, tokenizer.length, tokenizer.pad_id) == (14, 6, 0)
    rows = tokenizer(["Unaffable, a CAFÉ", "a 中a a", "unb", "unaffable unaffable a"])
    # By hand: no [CLS] or [SEP]; a character of CJK is a word; a word that cannot be spelt is one unknown piece.
    assert rows.tolist() == [[6, 7, 8, 11, 10, 12], [10, 13, 10, 10, 0, 0], [2, 0, 0, 0, 0, 0], [6, 7, 8, 6, 7, 8]]


def test_a_vocabulary_file_gives_what_the_librarys_bert_tokenizer_gives(vocabulary):
    reference = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    texts = ["Unaffable, a CAFÉ", "a,a , a\tunaffableable", "ünaffa", "", "中中 a", "\u0000a\u200b b"]
    rows = WordPieceTokenizer.from_vocabulary(vocabulary, length=40)(texts)
    for text, row in zip(texts, rows.tolist(), strict=True):
        pieces = reference.encode(text, add_special_tokens=False).ids
        assert row == pieces + [0] * (40 - len(pieces))


def test_a_vocabulary_with_windows_line_ends_is_the_same(vocabulary):
    plain = WordPieceTokenizer.from_vocabulary(vocabulary)
    vocabulary.write_bytes("\r\n".join(BERT).encode())
    assert WordPieceTokenizer.from_vocabulary(vocabulary).to_json() == plain.to_json()
    assert WordPieceTokenizer.from_json(plain.to_json())(["unaffable"]).tolist() == plain(["unaffable"]).tolist()


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["[UNK]", "[PAD]"], r"begins with \['\[UNK\]'\], has \[UNK\]"),
        (["[PAD]", "a"], r"lacks \[UNK\]"),
        (["[PAD]", "[UNK]", "a", "b", "a"], r"repeats \['a'\]"),
    ],
)
def test_files_that_are_no_vocabulary_are_refused(vocabulary, pieces, message):
    vocabulary.write_text("\n".join(pieces), encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        WordPieceTokenizer.from_vocabulary(vocabulary)


def test_vocabulary_files_that_cannot_be_read_are_refused(vocabulary, tmp_path):
    with pytest.raises(TokenizerError, match="could not be read"):
        WordPieceTokenizer.from_vocabulary(tmp_path / "absent.txt")
    with pytest.raises(TokenizerError, match="length 0"):
        WordPieceTokenizer.from_vocabulary(vocabulary, length=0)
    vocabulary.write_bytes(b"[PAD]\n\xff")
    with pytest.raises(TokenizerError, match="could not be read"):
        WordPieceTokenizer.from_vocabulary(vocabulary)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.integers(3, 40))
@example(["00"], 3)  # no room for the second letter
def test_any_captions_give_pieces_inside_the_vocabulary(captions, vocab_size):
    trained = WordPieceTokenizer.train([*captions, "word"], vocab_size, length=5)
    ids = trained([*captions, "word"])
    assert trained.vocab_size <= vocab_size
    assert ids.shape == (len(captions) + 1, 5)
    assert ids.min() >= 0
    assert ids.max() < trained.vocab_size


def test_rare_letters_leave_room_for_pieces():
    captions = ["seven seven seven"] * 20 + ["".join(chr(0x4E00 + index) for index in range(300))]
    trained = WordPieceTokenizer.train(captions, 50, length=4)
    assert trained.vocab_size <= 50
    assert trained(["seven"])[0, 0] != 1


def test_training_needs_words_and_room():
    with pytest.raises(TokenizerError, match="no caption holds a word"):
        WordPieceTokenizer.train(["", "  "], 50)
    with pytest.raises(TokenizerError, match="vocabulary of 2 pieces, length 32"):
        WordPieceTokenizer.train(["a"], 2)
    with pytest.raises(TokenizerError, match="length 0"):
        WordPieceTokenizer.train(["a"], 50, length=0)


def test_json_that_is_no_tokenizer_of_ours_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="not complete JSON"):
        WordPieceTokenizer.from_json(tokenizer.to_json()[:-20])
    with pytest.raises(TokenizerError, match="the JSON is no tokenizer"):
        WordPieceTokenizer.from_json('{"model": 3}')
    endless = json.loads(tokenizer.to_json())
    with pytest.raises(TokenizerError, match="pads and cuts to no fixed length"):
        WordPieceTokenizer.from_json(json.dumps({**endless, "truncation": None}))
    padding = {**endless["padding"], "pad_id": 3}
    with pytest.raises(TokenizerError, match=r"\[PAD\] is not piece 0"):
        WordPieceTokenizer.from_json(json.dumps({**endless, "padding": padding}))
