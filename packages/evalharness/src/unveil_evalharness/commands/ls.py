"""``evalharness ls [tasks|suites|protocols|metrics]``."""

from unveil_evalharness.listing import ListOptions, describe

__all__ = ["ListOptions", "main"]


def main(options: ListOptions) -> int:
    """Prints the listing; 0."""
    print(describe(options.what, options))
    return 0
