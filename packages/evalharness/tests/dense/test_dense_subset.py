"""Subsets that depend on names alone."""

from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.tasks.dense.subset import keyed_subset

names = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=20)


@given(names, st.integers(0, 20), st.integers(0, 20), st.randoms())
def test_subsets_are_nested_and_do_not_depend_on_the_order(names, first, second, random):
    small, large = sorted((first, second))
    shuffled = list(names)
    random.shuffle(shuffled)
    chosen = [names[index] for index in keyed_subset(names, large)]
    assert [shuffled[index] for index in keyed_subset(shuffled, large)] == chosen
    assert [names[index] for index in keyed_subset(names, small, None, large)] == chosen[:small]
    assert len(chosen) == min(large, len(names))


def test_no_bound_means_all():
    assert sorted(keyed_subset(["a", "b", "c"], None)) == [0, 1, 2]
