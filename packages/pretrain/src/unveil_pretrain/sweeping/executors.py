"""Starting cells on this machine: submitit's local executor, what a cell gets, and the command line of a cell."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from unveil_backbones.slurm.arrays import notice_within

from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.folder import Data, SweepFolder
from unveil_pretrain.sweeping.job import CellJob

__all__ = ["ExecutorName", "Handle", "Resources", "cell_job", "load_submitit", "start_local"]

ExecutorName = Literal["local", "slurm"]

_YEAR_MINUTES = 60 * 24 * 365  # submitit's local processes need a limit; a sweep has none


class Handle(Protocol):
    """A started job."""

    @property
    def job_id(self) -> str:
        """Its number."""
        ...

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What each cell gets."""

    gpus: int = 0
    """GPUs of a cell; with more than one it runs under torchrun. 0 computes on the CPU."""
    threads: int = 0
    """Threads of a cell; 0 divides the cores among the cells that run at once."""
    num_workers: int = 0
    """Decoding processes of a cell."""
    timeout_min: int = 60 * 24
    """SLURM: minutes after which a cell is stopped and put back into the queue, where it continues."""
    max_requeues: int = 100
    """SLURM: how often that may happen."""
    cpus: int = 0
    """SLURM: cores of a cell; 0 takes one per GPU and decoding process."""
    mem_gb: float = 0.0
    """SLURM: main memory of a cell in GB; 0 leaves it to the cluster."""
    partition: str = ""
    """SLURM: partition."""
    account: str = ""
    """SLURM: account."""
    qos: str = ""
    """SLURM: quality of service."""
    constraint: str = ""
    """SLURM: features that a node must have."""
    name: str = ""
    """SLURM: name of the jobs; otherwise pretrain- and the name of the sweep's folder."""
    notice_s: int = 120
    """SLURM: seconds before the time limit at which a cell is asked to save and stop; at most a quarter of it."""
    sbatch: str = ""
    """SLURM: further options of sbatch, as 'reservation=night exclusive nodelist=n[1-4]'; they count last."""
    setup: str = ""
    """SLURM: a shell command that runs before the cell on its node, as 'module load cuda'."""

    @property
    def slurm_cpus(self) -> int:
        """Cores of a cell."""
        return self.cpus or max(1, self.gpus) + self.num_workers

    @property
    def slurm_notice_s(self) -> int:
        """Seconds between the notice and the time limit."""
        return notice_within(self.timeout_min, self.notice_s)


def cell_job(folder: SweepFolder, cell: Cell, data: Data, resources: Resources, *, threads: int) -> CellJob:
    """The job of a cell: `pretrain mim|flip RECIPE ...` in a process of its own, under torchrun for several GPUs."""
    launcher: Sequence[str] = (sys.executable,)
    if resources.gpus > 1:
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={resources.gpus}")
    places = {
        "--out": str(folder.run_path(cell).resolve()),
        "--train-data": data.train_data,
        "--val-data": data.val_data,
        "--device": "cuda" if resources.gpus else "cpu",
        "--num-workers": str(resources.num_workers),
    }
    words = [word for pair in places.items() for word in pair]
    return CellJob(
        name=cell.name,
        command=(
            *launcher,
            "-m",
            "unveil_pretrain",
            cell.command,
            cell.recipe,
            *words,
            *cell.flags(num_images=data.num_images, lists=None if data.lists is None else Path(data.lists).resolve()),
        ),
        folder=folder.path.resolve(),
        threads=threads,
        # SLURM needs some of the notice itself, to put the job into the queue again.
        patience=max(1, resources.slurm_notice_s * 2 // 3),
    )


def start_local(job: CellJob, resources: Resources, *, slot: int) -> Handle:
    """Start a cell as a process of this machine, on the GPUs of its slot.

    Raises:
        SweepError: submitit is missing.
    """
    submitit = load_submitit()
    executor = submitit.LocalExecutor(job.folder / "submitit")
    gpus = list(range(slot * resources.gpus, (slot + 1) * resources.gpus))
    executor.update_parameters(timeout_min=_YEAR_MINUTES, gpus_per_node=resources.gpus, visible_gpus=gpus)
    return executor.submit(job)


def load_submitit() -> ModuleType:
    """The package, which is an extra.

    Raises:
        SweepError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise SweepError(
            "pretrain sweep needs submitit, which is not installed; run: pip install 'unveil-pretrain[cluster]'"
        ) from error
    return submitit
