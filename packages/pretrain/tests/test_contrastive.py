"""Losses between pairs against values worked out by hand, the formulas written out, and open_clip."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from unveil_pretrain import contrastive
from unveil_pretrain.contrastive import info_nce, sigmoid_loss

PAIRS = st.integers(1, 9)
CHUNKS = st.integers(1, 12)
SCALES = st.sampled_from([0.0, 1.0, 14.3, 69.0, 71.0, 100.0])


def plain_info_nce(images, texts, scale):
    """CLIP's loss on the whole matrix, which PyTorch's own cross-entropy reads."""
    logits = scale * images @ texts.T
    partner = torch.arange(len(logits))
    one, other = (F.cross_entropy(table, partner, reduction="none") for table in (logits, logits.T))
    return (one + other) / 2


def plain_sigmoid(images, texts, scale, bias):
    """SigLIP's loss as its paper writes it, labels of ±1 and all."""
    logits = scale * images @ texts.T + bias
    return -F.logsigmoid((2 * torch.eye(len(logits), dtype=logits.dtype) - 1) * logits).sum(1)


def towers(num, seed, *, scale=14.3, bias=-2.0, dtype=torch.float64, width=6):
    """Unit embeddings, a scale and a bias, all of which have gradients."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, num, width, generator=generator, dtype=torch.float64)
    images, texts = F.normalize(drawn, dim=-1).to(dtype).unbind()
    numbers = (torch.tensor(value, dtype=dtype) for value in (scale, bias))
    return [value.detach().clone().requires_grad_() for value in (images, texts, *numbers)]


def value_and_gradients(loss, given, weights):
    """Per-sample values, and the gradients of their weighted sum: every sample's own gradient has to be right."""
    found = loss(*given)
    gradients = torch.autograd.grad((found * weights.to(found.dtype)).sum(), given)
    return [found.detach(), *gradients]


def same(loss, plain, given, **settings):
    weights = torch.linspace(0.5, 2.0, len(given[0]))
    found = value_and_gradients(lambda *values: loss(*values, **settings), given, weights)
    expected = value_and_gradients(plain, given, weights)
    # A logit of 100 is known to 1e-7 of itself in float32, and its exponential no better than that.
    rounding = (1e-14 if given[0].dtype == torch.float64 else 2e-7) * max(5.0, given[2].detach().item())
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        tolerance = rounding * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(mine, theirs, rtol=1e-9 if mine.dtype == torch.float64 else 1e-5, atol=tolerance)


class TestInfoNCE:
    def test_two_orthogonal_pairs(self):
        pairs = torch.eye(2)
        expected = math.log(1 + math.exp(-3.0))  # −log(e³ / (e³ + e⁰))
        torch.testing.assert_close(info_nce(pairs, pairs, torch.tensor(3.0)), torch.full((2,), expected))

    def test_the_two_directions_of_a_batch_that_is_not_symmetric(self):
        images = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        # Rows: (2, 0) and (2, 0). Columns: (2, 2) and (0, 0). Pair 0 to text log(1 + e⁻²), pair 1 log(1 + e²).
        to_text = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))]
        expected = [(loss + math.log(2)) / 2 for loss in to_text]
        assert info_nce(images, texts, torch.tensor(2.0)).tolist() == pytest.approx(expected)

    def test_equal_embeddings_give_the_logarithm_of_the_batch(self):
        equal = F.normalize(torch.ones(9, 4), dim=-1)
        assert info_nce(equal, equal, torch.tensor(10.0)).tolist() == pytest.approx([math.log(9)] * 9)

    def test_a_softmax_written_out(self):
        images, texts, scale, _ = towers(5, 0, dtype=torch.float32)
        table = np.exp(scale.item() * images.detach().numpy().astype(float) @ texts.detach().numpy().T)
        rows, columns = table / table.sum(1, keepdims=True), table / table.sum(0)
        expected = -0.5 * (np.log(np.diag(rows)) + np.log(np.diag(columns)))
        np.testing.assert_allclose(info_nce(images, texts, scale).detach().numpy(), expected, rtol=1e-5)

    @given(PAIRS, CHUNKS, SCALES, st.integers(0, 99))
    def test_is_cross_entropy_with_its_gradients(self, num, chunk, scale, seed):
        given_ = towers(num, seed, scale=scale)[:3]
        same(info_nce, plain_info_nce, given_, chunk_size=chunk)
        same(info_nce, plain_info_nce, towers(num, seed, scale=scale, dtype=torch.float32)[:3], chunk_size=chunk)

    @given(st.integers(2, 8), st.integers(0, 99))
    def test_follows_a_permutation_of_the_pairs(self, num, seed):
        images, texts, scale, _ = towers(num, seed)
        order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(info_nce(images[order], texts[order], scale), info_nce(images, texts, scale)[order])

    def test_both_ways_of_summing_are_the_plain_one(self, monkeypatch):
        monkeypatch.setattr(contrastive, "_fast_sums", lambda *_: None)
        same(info_nce, plain_info_nce, towers(7, 1)[:3], chunk_size=3)

    @pytest.mark.parametrize("scale", [100.0, 400.0, 3000.0])
    def test_pairs_that_nobody_resembles_are_not_lost(self, scale):
        """A text opposite to every image: exp() of its column is below the smallest number of float32."""
        images = torch.eye(4)[:1].repeat(3, 1).requires_grad_()
        texts = torch.stack([torch.eye(4)[0], -torch.eye(4)[0], torch.eye(4)[0]]).requires_grad_()
        given_ = [images, texts, torch.tensor(scale, requires_grad=True)]
        assert info_nce(*given_).isfinite().all()
        same(info_nce, plain_info_nce, given_, chunk_size=2)

    def test_embeddings_that_are_no_numbers_give_a_loss_that_is_none(self):
        broken = torch.full((3, 4), math.nan)
        assert info_nce(broken, torch.eye(4)[:3], torch.tensor(3.0)).isnan().all()


class TestSigmoid:
    def test_two_orthogonal_pairs(self):
        pairs = torch.eye(2)
        # Own pair: 3 − 1 = 2, −log σ(2). The other: 0 − 1 = −1 with the label −1, −log σ(1).
        expected = math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-1.0))
        found = sigmoid_loss(pairs, pairs, torch.tensor(3.0), torch.tensor(-1.0))
        torch.testing.assert_close(found, torch.full((2,), expected))

    @given(PAIRS, CHUNKS, SCALES, st.sampled_from([-10.0, 0.0, 3.0]), st.integers(0, 99))
    def test_is_the_formula_with_its_gradients(self, num, chunk, scale, bias, seed):
        same(sigmoid_loss, plain_sigmoid, towers(num, seed, scale=scale, bias=bias), chunk_size=chunk)
        same(
            sigmoid_loss,
            plain_sigmoid,
            towers(num, seed, scale=scale, bias=bias, dtype=torch.float32),
            chunk_size=chunk,
        )


@pytest.mark.parametrize(("loss", "num"), [(info_nce, 3), (sigmoid_loss, 4)])
def test_gradients_are_those_of_finite_differences(loss, num):
    images, texts, scale, bias = towers(5, 3, width=3)
    assert gradcheck(lambda *values: loss(*values, chunk_size=2), (images, texts, scale, bias)[:num])


@pytest.mark.parametrize("loss", [info_nce, sigmoid_loss])
def test_a_wrong_gradient_is_noticed(loss, monkeypatch):
    right = contrastive._Blocks.gradients

    def wrong(*values):
        of_images, of_texts = right(*values)
        return of_images * 1.001, of_texts

    monkeypatch.setattr(contrastive._Blocks, "gradients", wrong)
    plain = plain_info_nce if loss is info_nce else plain_sigmoid
    with pytest.raises(AssertionError):
        same(loss, plain, towers(5, 3)[: 3 if loss is info_nce else 4])


@pytest.mark.parametrize("loss", [info_nce, sigmoid_loss])
def test_half_precision_is_compared_in_float32(loss):
    images, texts, scale, bias = (value.detach() for value in towers(6, 4, dtype=torch.float32, width=32))
    given_ = [images, texts, scale, bias][: 3 if loss is info_nce else 4]
    low = [value.bfloat16() for value in given_[:2]]
    expected = loss(*(value.float() for value in low), *given_[2:])
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*low, *given_[2:])
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("loss", [info_nce, sigmoid_loss])
def test_no_table_of_all_pairs_is_ever_made(loss):
    """The largest tensor that is saved or made has chunk · pairs values, not pairs²."""
    num, chunk, largest = 64, 4, 0
    given_ = towers(num, 5)[: 3 if loss is info_nce else 4]

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.numel())
            return made

    with Sizes():
        loss(*given_, chunk_size=chunk).sum().backward()
    assert chunk * num <= largest <= max(chunk * num, num * 6)


class TestOpenClip:
    """Against open_clip's own losses, and with 2 ways of handing them the same numbers."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

    @pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
    def test_info_nce(self, scale):
        from open_clip.loss import ClipLoss

        given_ = towers(40, 6, scale=scale, dtype=torch.float32, width=16)[:3]
        mine = value_and_gradients(lambda *v: info_nce(*v, chunk_size=16).mean()[None], given_, torch.ones(1))
        theirs = value_and_gradients(lambda *v: ClipLoss()(*v)[None], given_, torch.ones(1))
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)

    def test_sigmoid(self):
        from open_clip.loss import SigLipLoss

        given_ = towers(40, 7, scale=10.0, bias=-10.0, dtype=torch.float32, width=16)
        mine = value_and_gradients(lambda *v: sigmoid_loss(*v, chunk_size=16).mean()[None], given_, torch.ones(1))
        theirs = value_and_gradients(lambda *v: SigLipLoss()(*v)[None], given_, torch.ones(1))
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
