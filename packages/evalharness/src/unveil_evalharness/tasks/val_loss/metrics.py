"""From losses of images to the number, its error, and what it may be compared with. No torch here.

The loss is the mean of the column `loss` of the samples. Images of one negative pool share their negatives: with ten
pools or more the standard error is over pools, as in `pretrain`'s validations, else over images.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars

__all__ = ["mean_and_error", "metric_from_samples", "passport_table", "per_image", "views_table"]

_MIN_GROUPS = 10


def per_image(table: polars.DataFrame) -> polars.DataFrame:
    """One row per image, by key: `image`, `loss`, `group` (its negative pool), and a column for every other view.

    Args:
        table: columns `key`, `group`, `view` and `value`, of one split.
    """
    wide = table.pivot("view", index=["key", "group"], values="value", aggregate_function=None).sort("key")
    others = sorted(set(wide.columns) - {"key", "group", "loss"})
    return wide.select(polars.col("key").alias("image"), "loss", "group", *others)


def mean_and_error(values: np.ndarray, groups: np.ndarray) -> tuple[float, float | None]:
    """Mean of `values` [n] and its standard error, over groups where there are ten of them; None for one image.

    Args:
        values: a loss per image.
        groups: the negative pool of each image, all of one size.
    """
    mean = float(values.mean())
    names = np.unique(groups)
    parts = np.array([values[groups == name].mean() for name in names]) if len(names) >= _MIN_GROUPS else values
    if len(parts) < 2:
        return mean, None
    return mean, float(parts.std(ddof=1) / np.sqrt(len(parts)))


def metric_from_samples(samples: polars.DataFrame) -> float:
    """The loss of the images in `samples`: the mean of `loss`."""
    return float(samples["loss"].to_numpy().mean())


def passport_table(summary: Mapping[str, Any]) -> polars.DataFrame:
    """The passport as a table of `field` and `value` (JSON text), its hash first under the field ``hash``."""
    passport: Mapping[str, Any] = summary["passport"]
    fields = {"hash": summary["passport_hash"], **passport}
    values = [value if name == "hash" else json.dumps(value, sort_keys=True) for name, value in fields.items()]
    return polars.DataFrame({"field": list(fields), "value": values})


def views_table(summary: Mapping[str, Any]) -> polars.DataFrame:
    """Every view of the loss and score over the set: `view`, `value`, `standard_error`; what training recorded, too."""
    rows = [("loss", summary["loss"], summary["standard_error"])]
    rows += [(name, one["value"], one["standard_error"]) for name, one in summary["views"].items()]
    recorded = summary["recorded"]
    if recorded is not None:
        same = summary["first_difference"] is None
        name = "recorded" if same else f"recorded, another {summary['first_difference']}"
        rows.append((name, recorded["loss"], recorded["standard_error"]))
    schema = {"view": polars.String, "value": polars.Float64, "standard_error": polars.Float64}
    return polars.DataFrame(rows, schema=schema, orient="row")
