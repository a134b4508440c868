"""Paired bootstrap of a metric that is no mean over items, such as mean IoU or average precision."""

import numpy as np
from jaxtyping import Float

from unveil_evalharness.compare.pairing import PairedTables

__all__ = ["bootstrap_metric"]


def bootstrap_metric(tables: PairedTables, *, num_resamples: int, seed: int) -> Float[np.ndarray, " r"]:
    """Second side minus first, each the mean over its runs, for resamples of the items (Efron).

    The same items are drawn on both sides. A resample on which the metric is not defined (no item of any class) is
    left out.
    """
    generator = np.random.default_rng(seed)
    n = tables.before[0].height
    differences = np.empty(num_resamples)
    for number in range(num_resamples):
        drawn = generator.integers(0, n, size=n)
        before, after = (
            float(np.mean([tables.function(table[drawn])[tables.name] for table in side]))
            for side in (tables.before, tables.after)
        )
        differences[number] = after - before
    return differences[np.isfinite(differences)]
