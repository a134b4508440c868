"""Many processes, one run: local workers, torchrun's ranks, and jobs by submitit, all over one output folder.

Each process walks the same list of cells and claims what is free (`unveil_evalharness.cells.claim`), so none waits
for a slower one, and each cell is evaluated exactly as in one process.
"""
