"""Reads the published sets that come with the harness.

``xie2023``: 63 runs of SimMIM on SwinV2 at 192 pixels, batch 2048, one run per cell. Source: github.com/microsoft/
Swin-Transformer, MODELHUB.md at commit f82860b ("SimMIM Pretrained Swin-V2 Models", MIT), which accompanies Xie et al.,
On Data Scaling in Masked Image Modeling (arXiv:2206.04664, CVPR 2023). The loss is the pre-training loss on the
ImageNet-1K validation images, the value fine-tuned top-1 on ImageNet-1K in percent. Images of a subset are its share of
1,281,167; those of ImageNet-22K are rounded.

``flip2023``: Li et al., Scaling Language-Image Pre-training via Masking (arXiv:2212.00794, CVPR 2023), Tables 2 to 8
and one value of its repository's README; the column ``table`` says which. No losses were published. Of several
evaluations of one model the authors' own is kept ("our transfer", "our eval"), so that a column holds one protocol;
retrieval is recall in percent, captioning CIDEr and the like. Parameters are those of both towers, where the paper
gives them.
"""

from importlib import resources
from typing import TYPE_CHECKING

from unveil_evalharness.errors import UsageError
from unveil_evalharness.parsing import nearest
from unveil_evalharness.published.overfitting import mark_overfitting

if TYPE_CHECKING:
    import polars

__all__ = ["COLUMNS", "PUBLISHED", "read_published"]

PUBLISHED = {
    "xie2023": "Xie et al., On Data Scaling in Masked Image Modeling (arXiv:2206.04664): 63 runs, loss and top-1",
    "flip2023": "Li et al., Scaling Language-Image Pre-training via Masking (arXiv:2212.00794): zero-shot and transfer",
}
"""Names of the sets and what they are."""

COLUMNS = (
    "run", "model", "params", "data", "source", "fraction", "num_images", "steps", "samples_seen", "loss", "metric",
    "value", "pair", "overfitted", "pair_overfits", "method", "table",
)  # fmt: skip
"""Columns of every set, one row per run and metric; null where the source does not say."""

_XIE_BATCH_SIZE = 2048
_TYPES = {"params": "Float64", "fraction": "Float64", "num_images": "Int64", "steps": "Int64", "samples_seen": "Int64",
          "loss": "Float64", "value": "Float64"}  # fmt: skip


def read_published(name: str) -> "polars.DataFrame":
    """A published set with the columns of `COLUMNS`.

    Args:
        name: a key of `PUBLISHED`.

    Raises:
        UsageError: no set is called so; names the ones there are.
    """
    import polars as pl

    if name not in PUBLISHED:
        raise UsageError(f"no published set {name!r}{nearest(name, list(PUBLISHED))}")
    file = resources.files("unveil_evalharness.published") / f"{name}.csv"
    runs = pl.read_csv(file.read_bytes(), infer_schema=False)
    if name == "xie2023":
        runs = runs.with_columns(
            metric=pl.lit("imagenet_ft.acc1"),
            method=pl.lit("SimMIM"),
            table=pl.lit("MODELHUB.md"),
            samples_seen=pl.col("steps").cast(pl.Int64) * _XIE_BATCH_SIZE,
        )
    else:
        runs = runs.with_columns(fraction=pl.lit(1.0), steps=pl.lit(None), loss=pl.lit(None))
    runs = runs.with_columns(
        *(pl.col(column).cast(getattr(pl, kind)) for column, kind in _TYPES.items()),
        pair=pl.format("{} × {}", "model", "data"),
    )
    return mark_overfitting(runs).select(COLUMNS)
