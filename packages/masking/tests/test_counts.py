"""Counts: the papers' numbers by hand, and the algebra of the rounding rules."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, RandomMask, RatioError, UnitMask
from unveil_masking.counts import exact_ratio, num_hidden

ratios = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)


@pytest.mark.parametrize(
    ("total", "ratio", "rounding", "hidden"),
    [
        (196, 0.75, "floor_keep", 147),  # MAE ViT/16 at 224: 49 kept
        (196, 0.5, "floor_keep", 98),  # FLIP
        (100, 0.9, "floor_keep", 90),  # int(100 * (1 - 0.9)) would keep 9
        (400, 0.9, "floor_keep", 360),  # int(400 * (1 - 0.9)) would keep 39
        (49, 0.6, "floor_keep", 30),  # 19.6 kept -> 19
        (36, 0.6, "ceil_hidden", 22),  # SimMIM, 6 x 6 units at 192 pixels: 21.6
        (49, 0.6, "floor_hidden", 29),
        (36, 0.6, "floor_hidden", 21),
        (10, 0, "ceil_hidden", 0),
        (1, 0.0, "floor_keep", 0),
        (4, 0.75, "ceil_hidden", 3),
        (10, 1e-05, "ceil_hidden", 1),
        (2, 0.999, "floor_hidden", 1),
    ],
)
def test_counts_by_hand(total, ratio, rounding, hidden):
    assert num_hidden(total, ratio, rounding) == hidden


def test_a_ratio_is_its_shortest_decimal():
    assert exact_ratio(0.9) == Fraction(9, 10)
    assert exact_ratio(0.1 + 0.2) == Fraction("0.30000000000000004")


@given(total=st.integers(1, 5000), ratio=ratios)
def test_floor_keep_and_ceil_hidden_are_one_number_in_exact_arithmetic(total, ratio):
    try:
        hidden = num_hidden(total, ratio, "ceil_hidden")
    except RatioError:
        with pytest.raises(RatioError):
            num_hidden(total, ratio, "floor_keep")
        return
    assert num_hidden(total, ratio, "floor_keep") == hidden
    assert 0 <= hidden - total * exact_ratio(ratio) < 1


@given(total=st.integers(1, 5000), ratio=ratios)
def test_floor_hidden_always_leaves_a_token(total, ratio):
    hidden = num_hidden(total, ratio, "floor_hidden")
    assert 0 <= total * exact_ratio(ratio) - hidden < 1
    assert hidden < total


@given(total=st.integers(2, 5000))
def test_the_largest_legal_ratio_keeps_exactly_one(total):
    ratio = int((total - 1) / total * 1e6) / 1e6  # a decimal at or just below (total - 1) / total
    assert num_hidden(total, ratio, "ceil_hidden") == total - 1


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None, True])
@pytest.mark.parametrize("make", [RandomMask, lambda ratio: UnitMask(2, ratio)])
def test_an_impossible_ratio_is_refused_at_construction(make, ratio):
    with pytest.raises(RatioError, match=r"is not a number in \[0, 1\)"):
        make(ratio)


def test_an_unknown_rounding_names_the_allowed_ones():
    with pytest.raises(RatioError, match=r"rounding='nearest' is unknown. Allowed: floor_keep, ceil_hidden, floor_hid"):
        RandomMask(0.5, "nearest")


def test_hiding_everything_is_refused_with_the_largest_legal_ratio():
    with pytest.raises(RatioError, match=r"hides all 4 units of this grid.*at most 3/4"):
        RandomMask(0.9).num_hidden(Grid(2, 2))
    with pytest.raises(RatioError, match="hides all 1 units"):
        UnitMask(4, 0.1).num_hidden(Grid(4, 4))


def test_realised_ratio():
    assert UnitMask(8, 0.6).num_hidden(Grid(48, 48)) == 22 * 64
    assert UnitMask(8, 0.6).realised_ratio(Grid(48, 48)) == 22 / 36
    assert RandomMask(0.6).realised_ratio(Grid(7, 7)) == 30 / 49
