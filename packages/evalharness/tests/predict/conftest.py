"""The published runs as known runs, and runs that are made up."""

import numpy as np
import pytest
from unveil_evalharness.predict.known import KnownRuns, Query, known_from_table
from unveil_evalharness.published import read_published


@pytest.fixture(scope="session")
def published() -> KnownRuns:
    return known_from_table(read_published("xie2023"), metric="imagenet_ft.acc1", unit="percent", origin="xie2023")


@pytest.fixture
def made_up() -> KnownRuns:
    """Five models on four data sets; the value is exactly 90 - 20 loss + log parameters."""
    generator = np.random.default_rng(0)
    runs = tuple(
        Query(
            label=f"m{model} d{data}",
            model=f"m{model}",
            pair=f"m{model} d{data}",
            source="",
            params=10.0 ** (6 + model),
            images=1000.0 * (data + 1),
            history=((100, 0.9), (200, float(generator.uniform(0.4, 0.8)))),
        )
        for model in range(5)
        for data in range(4)
    )
    values = np.array([90 - 20 * run.loss + np.log(run.params) for run in runs])
    return KnownRuns(metric="t.m", unit="percent", origin="made up", runs=runs, values=values)
