"""Learning rates at the steps where something happens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_pretrain.recipes import flip_b16, mae_vit_b16, simmim_swinv2_s
from unveil_pretrain.schedule import Schedule


def test_multi_step_warms_up_and_drops_once_at_seven_eighths():
    rate = Schedule(kind="multi_step", peak=1.0, steps=80, warmup_steps=4)
    assert [rate(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert [rate(69), rate(70), rate(79)] == pytest.approx([1.0, 0.1, 0.1])


def test_cosine_halves_in_the_middle_and_ends_at_zero():
    rate = Schedule(kind="cosine", peak=2.0, steps=110, warmup_steps=10)
    assert rate(9) == rate(10) == pytest.approx(2.0)
    assert rate(60) == pytest.approx(1.0)
    assert rate(35) == pytest.approx(1.0 + math.cos(math.pi / 4))
    assert rate(110) == pytest.approx(0.0)


@given(
    kind=st.sampled_from(["multi_step", "cosine"]),
    steps=st.integers(1, 300),
    warmup=st.integers(0, 400),
    data=st.data(),
)
def test_rates_are_positive_and_never_above_the_peak(kind, steps, warmup, data):
    rate = Schedule(kind=kind, peak=0.3, steps=steps, warmup_steps=warmup)
    step = data.draw(st.integers(0, steps - 1))
    assert 0.0 < rate(step) <= 0.3 * (1 + 1e-12)
    if step >= warmup:
        assert rate(step + 1) <= rate(step)


def test_published_learning_rates():
    assert simmim_swinv2_s().lr == pytest.approx(4e-4)
    assert mae_vit_b16().lr == pytest.approx(2.4e-3)
    assert flip_b16().lr == pytest.approx(1.024e-3)


def test_the_paper_recipe_drops_at_437500_of_500000_steps():
    rate = Schedule(kind="multi_step", peak=4e-4, steps=500_000, warmup_steps=6250)
    assert rate(437_499) == pytest.approx(4e-4)
    assert rate(437_500) == pytest.approx(4e-5)
