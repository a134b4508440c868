"""``python -m unveil_backbones``."""

import sys

from unveil_backbones.cli import main

if __name__ == "__main__":
    sys.exit(main())
