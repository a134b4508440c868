"""Which runs over-fitted, told from the table alone: a longer run whose validation loss is higher than a shorter one's.

Xie et al. call a run over-fitted when its training loss falls while its validation loss rises with more training, but
published no training losses (arXiv:2206.04664). This rule needs validation losses only.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

__all__ = ["mark_overfitting"]


def mark_overfitting(runs: "polars.DataFrame") -> "polars.DataFrame":
    """Adds ``overfitted`` and ``pair_overfits``, both null where a loss or a length is not known.

    Args:
        runs: columns ``pair`` (model and data), ``steps`` and ``loss``; one or more rows per run.
    """
    import polars as pl

    known = runs.filter(pl.col("loss").is_not_null() & pl.col("steps").is_not_null())
    shorter = (
        known.group_by("pair", "steps")
        .agg(pl.col("loss").min())
        .sort("pair", "steps")
        .select("pair", "steps", lowest=pl.col("loss").cum_min().shift(1).over("pair"))
    )
    marked = runs.join(shorter, on=["pair", "steps"], how="left", maintain_order="left")
    rose = pl.when(pl.col("loss").is_not_null() & pl.col("steps").is_not_null()).then(
        (pl.col("loss") > pl.col("lowest")).fill_null(value=False)
    )
    return (
        marked.with_columns(overfitted=rose)
        .with_columns(pair_overfits=pl.col("overfitted").any(ignore_nulls=True).over("pair"))
        .drop("lowest")
        .with_columns(pair_overfits=pl.when(pl.col("overfitted").is_not_null()).then(pl.col("pair_overfits")))
    )
