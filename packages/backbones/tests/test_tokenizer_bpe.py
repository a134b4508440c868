"""CLIP's byte-pair tokenizer: equal to open_clip's on anything, whole in its JSON, refused by name."""

import gzip
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unveil_backbones import BpeTokenizer, WordPieceTokenizer, ensure_torchvision, tokenizer_from_json
from unveil_backbones.errors import TokenizerError

NEEDS = "needs ftfy, regex and open_clip_torch: pip install 'unveil-backbones[clip]'"
pytest.importorskip("ftfy", reason=NEEDS)
pytest.importorskip("regex", reason=NEEDS)

MERGES = ["l o", "lo w</w>", "e r</w>", "n e"]
START, END = 516, 517  # 256 bytes, 256 ends of words, 4 merges


@pytest.fixture
def merges(tmp_path):
    path = tmp_path / "merges.txt"
    path.write_text("\n".join(["title", *MERGES]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def small(merges) -> BpeTokenizer:
    return BpeTokenizer.from_file(merges, length=7)


@pytest.fixture(scope="module")
def reference():
    """open_clip's own tokenizer."""
    ensure_torchvision()
    return pytest.importorskip("open_clip.tokenizer", reason=NEEDS).SimpleTokenizer()


@pytest.fixture(scope="module")
def clip(reference) -> BpeTokenizer:
    return BpeTokenizer.from_open_clip()


def letter(char: str) -> int:
    """Number of a printable ASCII character: they come first, in order, from "!"."""
    return ord(char) - ord("!")


def test_words_are_merged_by_the_rules_of_the_file(small):
    assert (small.vocab_size, small.length, small.pad_id) == (518, 7, 0)
    low, lower = 513, [512, letter("w"), 514]
    # By hand: "low" merges twice; in "lower" the ending "er" merges and "w" stays.
    assert small(["Low lower"]).tolist() == [[START, low, *lower, END, 0]]
    # A letter that ends a word has its own number, 256 further on.
    assert small(["a b"]).tolist() == [[START, 256 + letter("a"), 256 + letter("b"), END, 0, 0, 0]]


def test_cutting_keeps_the_end_of_text_and_empty_captions_have_one(small):
    rows = small(["low " * 20, "", "low low low low low"])
    assert rows.tolist() == [[START, *[513] * 5, END], [START, END, 0, 0, 0, 0, 0], [START, *[513] * 5, END]]
    assert rows.dtype == torch.int64
    assert small([]).shape == (0, 7)


def test_captions_are_repaired_unescaped_and_lower_cased(small):
    wanted = small(["low & ö"])
    for dressed in ("  LOW \n&amp;\tÖ ", "low &amp;amp; ö", "low & Ã¶"):
        assert torch.equal(small([dressed]), wanted)
    assert not torch.equal(small(["low & o"]), wanted)


def test_json_holds_everything(small):
    again = tokenizer_from_json(small.to_json())
    assert isinstance(again, BpeTokenizer)
    assert (again.vocab_size, again.length) == (518, 7)
    assert torch.equal(again(["lower ö ♥"]), small(["lower ö ♥"]))
    assert again.to_json() == small.to_json()


def test_a_gzipped_file_is_the_same(small, merges, tmp_path):
    packed = tmp_path / "merges.txt.gz"
    packed.write_bytes(gzip.compress(merges.read_bytes()))
    assert BpeTokenizer.from_file(packed, length=7).to_json() == small.to_json()


# Emoji with joiners and skin tones, entities, accents composed and not, broken encodings, numbers of other scripts,
# letters whose case folds oddly, controls, the special tokens themselves, apostrophes, and runs without spaces.
STRINGS = [
    "a photo of a cat",
    "",
    "   ",
    "👩‍👩‍👧‍👦 family 👍🏽 and 🇫🇷!!",
    "&lt;b&gt;bold&lt;/b&gt; &amp;amp; &amp;quot;x&amp;quot; &#9731; &eacute;",
    "Café cafe\u0301 naïve ÅNGSTRÖM Å",
    "schÃ¶n â€œquotedâ€\x9d l’été",
    "½ ⅷ ٣ ४ 三 ２ 10,000.50",
    "İstanbul ıı ſ'ſ ﬁne ﬆ ß ẞ K",
    "tab\tnew\nline\u00a0nbsp\u200bzero\u3000wide\x00\x07",
    "<start_of_text> <end_of_text> <END_OF_TEXT>!! !<end_of_text> a<end_of_text>b",
    "it's I'm you're we'll they'd he'VE don't 'tis o'clock ''s",
    "日本語のテキスト 한국어 العربية हिन्दी ไทย",
    "supercalifragilisticexpialidocious" * 9,
    "word " * 200,
    "?!?!...---___***###",
    "http://example.com/a?b=c&d=e_f #hash @user",
    "\ud83d",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🅰 ⓐ ﷺ",
]


def test_the_published_vocabulary_gives_what_open_clip_gives(clip, reference):
    assert (clip.vocab_size, clip.length) == (49_408, 77)
    for text in STRINGS:
        assert clip([text]).tolist() == reference([text]).tolist(), text
    assert torch.equal(clip(STRINGS), reference(STRINGS))
    assert (clip(STRINGS) == 49_407).any(dim=1).all()


def test_other_lengths_give_what_open_clip_gives(reference):
    for length in (2, 3, 16):
        assert torch.equal(BpeTokenizer.from_open_clip(length)(STRINGS), reference(STRINGS, length))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120) | st.text("abcdefst <>&;'’_ENDart0²é\u0301👍\n", max_size=60))
@example("<end_of_text>")
def test_any_text_gives_what_open_clip_gives(clip, reference, text):
    assert clip([text]).tolist() == reference([text]).tolist()


def test_these_comparisons_would_notice_another_cleaning(clip, reference):
    changed = [text.replace("'", "") for text in STRINGS]
    assert not torch.equal(clip(changed), reference(STRINGS))


def test_known_rows_of_the_published_vocabulary(clip):
    # Computed once with open_clip_torch 3.3.0: open_clip.tokenize("a photo of a cat")[0, :7].
    assert clip(["a photo of a cat"])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]


def test_the_vocabulary_is_read_without_importing_open_clip(reference):
    code = (
        "import sys; from unveil_backbones.tokenizer_bpe import BpeTokenizer; BpeTokenizer.from_open_clip();"
        "print('open_clip' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_absent_packages_are_named_with_the_command_that_brings_them(monkeypatch, small):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        TokenizerError, match=r"open_clip_torch, which is not installed; pip install 'unveil-backbones\["
    ):
        BpeTokenizer.from_open_clip()
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(TokenizerError, match=r"ftfy and regex .*; pip install 'unveil-backbones\[clip\]'"):
        tokenizer_from_json(small.to_json())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title\nl o w\n", r"has the line \['l', 'o', 'w'\]"),
        ("title\n", "has the line None"),
        ("title\nlo w</w>\n", "merges 'lo' and 'w</w>', which are not both known"),
        ("title\nl o\nl o\n", "or make 'lo' twice"),
    ],
)
def test_files_that_are_no_merges_are_refused(merges, content, message):
    merges.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        BpeTokenizer.from_file(merges)


def test_files_that_cannot_be_read_are_refused(tmp_path, merges):
    with pytest.raises(TokenizerError, match="could not be read"):
        BpeTokenizer.from_file(tmp_path / "absent.txt")
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(merges.read_bytes() * 100)[:-30])
    with pytest.raises(TokenizerError, match="could not be read"):
        BpeTokenizer.from_file(torn)
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(65 * 2**20), 1))
    with pytest.raises(TokenizerError, match="more than 67108864 bytes"):
        BpeTokenizer.from_file(bomb)
    with pytest.raises(TokenizerError, match="length 1; start and end of text are two pieces"):
        BpeTokenizer.from_file(merges, length=1)


def test_json_of_other_tokenizers_finds_its_class_or_is_refused(small):
    words = WordPieceTokenizer.train(["a red zero"], 40, length=4)
    assert isinstance(tokenizer_from_json(words.to_json()), WordPieceTokenizer)
    content = json.loads(small.to_json())
    with pytest.raises(TokenizerError, match="is a Unigram model; there are WordPiece, BPE"):
        tokenizer_from_json(json.dumps({**content, "model": {"type": "Unigram"}}))
    with pytest.raises(TokenizerError, match="names no model type"):
        tokenizer_from_json("[]")
    with pytest.raises(TokenizerError, match="not complete JSON"):
        tokenizer_from_json(small.to_json()[:-9])
    with pytest.raises(TokenizerError, match=r"makes .* of an empty caption"):
        tokenizer_from_json(json.dumps({**content, "post_processor": None}))
    with pytest.raises(TokenizerError, match="no fixed length"):
        tokenizer_from_json(json.dumps({**content, "padding": None}))
