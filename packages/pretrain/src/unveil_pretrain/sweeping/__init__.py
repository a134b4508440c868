"""Running the cells of a plan, through submitit, as local processes or on a SLURM cluster.

A cell is a `pretrain` command of its own, so that whatever holds for a run holds for a cell: it continues exactly, and
it says in one line why it failed. A sweep only decides which cells to start, and keeps books.
"""
