"""`python -m unveil_masking`: see `unveil_masking.show`."""

from unveil_masking.show.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
