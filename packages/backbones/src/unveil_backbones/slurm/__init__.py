"""Jobs on SLURM by submitit, for the sweeps of pre-training and the grids of evaluations alike.

`arrays` hands jobs over and knows which of them SLURM has; `queue` asks SLURM's own commands; `stopping` is a job's
side: how it learns that it is to stop, and how its command does. None of them loads torch.
"""
