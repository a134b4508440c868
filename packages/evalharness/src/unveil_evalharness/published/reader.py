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

import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from unveil_evalharness.errors import ResultsError, UsageError
from unveil_evalharness.parsing import nearest
from unveil_evalharness.published.overfitting import mark_overfitting

if TYPE_CHECKING:
    import polars

__all__ = ["COLUMNS", "PUBLISHED", "UNITS", "read_published"]

PUBLISHED = {
    "xie2023": "Xie et al., On Data Scaling in Masked Image Modeling (arXiv:2206.04664): 63 runs, loss and top-1",
    "flip2023": "Li et al., Scaling Language-Image Pre-training via Masking (arXiv:2212.00794): zero-shot and transfer",
}
"""Names of the sets and what they are."""

UNITS = {"xie2023": "percent"}
"""Of the values of a set, where all have one."""

COLUMNS = (
    "run", "model", "params", "data", "source", "fraction", "num_images", "steps", "samples_seen", "loss", "metric",
    "value", "pair", "overfitted", "pair_overfits", "method", "table",
)  # fmt: skip
"""Columns of every set, one row per run and metric; null where the source does not say."""

_SHA256 = {
    "xie2023": "a60f02e7459c2a4cf7a532a5858c1564e29cc6262f064790f5216c1963738112",
    "flip2023": "a08e0b9dbbc1fa126cd0a94616e9860999b7ee1cf31a251b9d7d4a29d8643841",
}
"""Of each file with lines that end as on Unix: a digit that became another one would be another result."""
_XIE_BATCH_SIZE = 2048
_TYPES = {"params": "Float64", "fraction": "Float64", "num_images": "Int64", "steps": "Int64", "samples_seen": "Int64",
          "loss": "Float64", "value": "Float64"}  # fmt: skip


def read_published(name: str) -> "polars.DataFrame":
    """A published set with the columns of `COLUMNS`.

    Args:
        name: a key of `PUBLISHED`.

    Raises:
        UsageError: no set is called so; names the ones there are.
        ResultsError: its file in this installation is missing or was changed.
    """
    import polars as pl

    if name not in PUBLISHED:
        raise UsageError(f"no published set {name!r}{nearest(name, list(PUBLISHED))}")
    runs = pl.read_csv(_content(name), infer_schema=False)
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


def _content(name: str) -> bytes:
    """The bytes of a set's file, which are those that were published.

    Raises:
        ResultsError: they are not, or cannot be read.
    """
    file = resources.files("unveil_evalharness.published") / f"{name}.csv"
    again = "install unveil-evalharness again"
    try:
        content = file.read_bytes().replace(b"\r\n", b"\n")
    except OSError as error:
        raise ResultsError(f"cannot read {file} ({error.strerror or error}); {again}") from error
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise ResultsError(f"{file} is not the table of {name} that comes with this version: it was changed; {again}")
    return content
