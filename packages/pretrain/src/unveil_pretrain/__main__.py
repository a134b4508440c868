"""`python -m unveil_pretrain`: the `pretrain` command."""

from unveil_pretrain.cli import main

if __name__ == "__main__":
    main()
