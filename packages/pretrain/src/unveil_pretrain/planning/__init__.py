"""Planning before the first step: costs in operations and memory, over-fitting to expect, cells that fit a budget."""
