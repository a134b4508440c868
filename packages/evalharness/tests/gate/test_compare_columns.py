"""Which column of the outcomes a metric is the mean of."""

import polars as pl
import pytest
from unveil_evalharness.compare.outcomes import mean_outcomes

ONE = {"image": ["a", "b"], "correct": [True, False], "correct5": [True, True]}
SEVERAL = {
    **ONE,
    "acc1@10": [False, False],
    "acc1@20": [True, False],
    "lbfgs_correct": [True, True],
    "lbfgs_correct5": [False, True],
}


@pytest.mark.parametrize(
    ("table", "metric", "mean"),
    [
        (ONE, "t.acc1", 0.5),
        (ONE, "t.acc5", 1.0),
        (SEVERAL, "t.acc1@10", 0.0),
        (SEVERAL, "t.acc1@20", 0.5),
        (SEVERAL, "t.acc5@20", None),
        (SEVERAL, "t.lbfgs_acc1", 1.0),
        (SEVERAL, "t.lbfgs_acc5", 0.5),
        (SEVERAL, "t.acc1@100", None),
        (ONE, "t.other_acc1", None),
    ],
)
def test_a_metric_is_the_mean_of_its_own_column_or_of_none(table, metric, mean):
    found = mean_outcomes(pl.DataFrame(table), metric)
    assert (None if found is None else found.values.mean()) == mean
