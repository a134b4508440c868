"""The subcommands of ``evalharness`` that belong to no other package of the harness; a module each, with `main`."""
