"""Text strategies: torch gives NumPy's bits, compiled too; open_clip's reductions agree where nothing is drawn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import (
    ScoreError,
    TextBlock,
    TextFrequency,
    TextPriority,
    TextRandom,
    TextSyntax,
    TextTruncate,
    TokenShapeError,
    frequency_weights,
    take_ids,
)

torch = pytest.importorskip("torch")

START, END, PAD = 90, 91, 0
TABLES = {
    TextSyntax: ("ranks", np.random.default_rng(1).integers(1, 5, 92)),
    TextFrequency: ("weights", frequency_weights(np.random.default_rng(2).integers(0, 10**6, 92), 1e-3)),
}
ALL = (TextTruncate, TextRandom, TextPriority, TextBlock, TextSyntax, TextFrequency)


def captions(batch: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    tokens = rng.integers(1, 90, (batch, width))
    tokens[:, 0] = START
    for row, end in enumerate(rng.integers(1, width, batch)):
        tokens[row, end], tokens[row, end + 1 :] = END, PAD
    return tokens


def table_of(cls, convert) -> dict:
    return {TABLES[cls][0]: convert(TABLES[cls][1])} if cls in TABLES else {}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("cls", ALL)
def test_text_masks_are_bit_identical(cls, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tokens, ids, epochs = captions(64, 24), np.arange(64) * 3**20 - 7, np.arange(64)

    def there(array: np.ndarray) -> "torch.Tensor":
        return torch.tensor(array, device=device)

    for dtype in (torch.int64, torch.int32):
        strategy, inputs = cls(9, (START, END), PAD), there(tokens).to(dtype)
        keys, theirs_table, epochs_there = there(ids), table_of(cls, there), there(epochs)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            ours = strategy.sample(inputs, keys, seed=2**63, epoch=epochs_there, **theirs_table)
            kept = take_ids(inputs, ours)
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        theirs = strategy.sample(tokens, ids, seed=2**63, epoch=epochs, **table_of(cls, np.asarray))
        for name in ("keep", "hidden", "restore", "mask"):
            np.testing.assert_array_equal(getattr(ours, name).cpu().numpy(), getattr(theirs, name))
        assert kept.dtype == dtype
        np.testing.assert_array_equal(kept.cpu().numpy(), take_ids(tokens, theirs))


@given(width=st.integers(4, 20), length=st.integers(2, 4), seed=st.integers(0, 2**64 - 1))
def test_text_masks_are_bit_identical_for_any_width(width, length, seed):
    tokens, ids = captions(5, width), np.arange(5)
    for cls in ALL:
        strategy = cls(length, (START, END), PAD)
        ours = strategy.sample(torch.tensor(tokens), torch.tensor(ids), seed=seed, **table_of(cls, torch.tensor))
        theirs = strategy.sample(tokens, ids, seed=seed, **table_of(cls, np.asarray))
        np.testing.assert_array_equal(ours.order.numpy(), theirs.order)


@pytest.mark.slow
@pytest.mark.parametrize("cls", ALL)
def test_text_masks_compile_into_one_graph(cls):
    tokens, ids = torch.tensor(captions(8, 24)), torch.arange(8)
    strategy, table = cls(9, (START, END), PAD), table_of(cls, torch.tensor)

    def shorten(tokens: "torch.Tensor", ids: "torch.Tensor") -> "torch.Tensor":
        return take_ids(tokens, strategy.sample(tokens, ids, seed=3, **table))

    compiled = torch.compile(shorten, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, ids), shorten(tokens, ids))


def test_libraries_are_not_mixed():
    tokens, ids = captions(2, 8), np.arange(2)
    with pytest.raises(TokenShapeError, match=r"token_ids is torch on cpu .* but sample_ids is numpy"):
        TextRandom(4).sample(torch.tensor(tokens), ids, seed=0)
    with pytest.raises(ScoreError, match=r"ranks are numpy .*token_ids torch on cpu"):
        TextSyntax(4).sample(torch.tensor(tokens), torch.tensor(ids), ranks=np.ones(92, dtype=np.int64))
    with pytest.raises(TokenShapeError, match="token_ids is numpy"):
        take_ids(tokens, TextRandom(4).sample(torch.tensor(tokens), torch.tensor(ids), seed=0))
    with pytest.raises(TokenShapeError, match="Give one row of integer token ids"):
        TextRandom(4).sample(torch.tensor(tokens) * 0.5, torch.tensor(ids), seed=0)


class TestAgainstOpenClip:
    """open_clip's own functions on lists of ids; they draw otherwise, so the sets of possible captions are compared."""

    @pytest.fixture(scope="class")
    @staticmethod
    def tokenizer():
        """The module by itself: importing the package would need a torchvision that fits this torch."""
        package = importlib.util.find_spec("open_clip")
        if package is None or package.origin is None:
            pytest.skip("open_clip is not installed")
        spec = importlib.util.spec_from_file_location(
            "open_clip_tokenizer", Path(package.origin).with_name("tokenizer.py")
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @staticmethod
    def ours(cls, words: list[int], length: int, sample: int) -> list[int]:
        row = np.array([[START, *words, END] + [PAD] * 3])
        return take_ids(row, cls(length, (START, END), PAD).sample(row, np.array([sample]), seed=0))[0].tolist()

    @pytest.mark.parametrize(("cls", "name"), [(TextRandom, "random"), (TextBlock, "simple")])
    def test_the_same_shortened_captions_are_possible(self, tokenizer, cls, name):
        words, length = [11, 12, 13, 14, 15], 5
        reduce = tokenizer.get_reduction_mask_fn(name)
        theirs = {
            tuple(reduce(["caption"], length, START, END, lambda _: words)[0].tolist()) for _ in range(300)
        }  # 10 subsets or 3 spans: the chance of missing one is below 10 · 0.9³⁰⁰ = 2e-13
        assert {tuple(self.ours(cls, words, length, sample)) for sample in range(300)} == theirs

    @pytest.mark.parametrize(("cls", "name"), [(TextRandom, "random"), (TextBlock, "simple")])
    def test_short_captions_are_the_same(self, tokenizer, cls, name):
        reduce = tokenizer.get_reduction_mask_fn(name)
        theirs = reduce(["caption"], 6, START, END, lambda _: [11, 12, 13])[0].tolist()
        assert self.ours(cls, [11, 12, 13], 6, 1) == theirs == [START, 11, 12, 13, END, PAD]
