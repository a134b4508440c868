"""``python -m unveil_evalharness``."""

import sys

from unveil_evalharness.cli import main

if __name__ == "__main__":
    sys.exit(main())
