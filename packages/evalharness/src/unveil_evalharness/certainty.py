"""Values whose standard error is zero because every item came out alike, and what a table says of them."""

__all__ = ["ALIKE_NOTE", "all_alike"]

ALIKE_NOTE = (
    "± 0 at exactly 0 or 1: every item came out alike, and a standard error tells nothing there; a proportion of n "
    "independent items may lie up to 3/n away (95 %)."
)
"""Of no success in n the exact one-sided upper end p, (1 - p)^n = 0.05, is below -ln(0.05)/n: the rule of three (Hanley
and Lippman-Hand 1983, JAMA 249)."""


def all_alike(value: float | None, standard_error: float | None, unit: str) -> bool:
    """Whether a fraction is 0 or 1 with a standard error of 0."""
    return unit == "fraction" and value in (0.0, 1.0) and standard_error == 0.0
