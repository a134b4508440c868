"""Whether two checkpoints differ, paired by evaluation item; needs no torch."""

from unveil_evalharness.compare.difference import Contrast, contrast
from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.sides import Side, read_side

__all__ = ["Contrast", "Measured", "Side", "contrast", "read_side"]
