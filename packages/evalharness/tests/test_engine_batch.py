"""`--batch-size` splits a step and never changes how many images it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.engine.batch import BatchPlan, plan_batch
from unveil_evalharness.errors import ProtocolError


def test_auto_takes_the_whole_batch_at_once():
    assert plan_batch(total=16, requested=None) == BatchPlan(size=16, accumulate=1)


def test_a_request_above_the_total_takes_the_whole_batch():
    assert plan_batch(total=16, requested=64) == BatchPlan(size=16, accumulate=1)


@given(st.integers(1, 200), st.integers(1, 200))
def test_size_times_accumulate_is_the_total(size, accumulate):
    plan = plan_batch(total=size * accumulate, requested=size)
    assert plan.size * plan.accumulate == size * accumulate
    assert plan.size == size


@pytest.mark.parametrize("requested", [5, 0, -1])
def test_a_request_that_does_not_divide_names_the_ones_that_do(requested):
    with pytest.raises(ProtocolError, match=r"--batch-size -?\d does not divide .* of 12; .*\[1, 2, 3, 4, 6, 12\]"):
        plan_batch(total=12, requested=requested)


def test_a_protocol_without_images_is_refused():
    with pytest.raises(ProtocolError, match="at least 1"):
        plan_batch(total=0, requested=None)
