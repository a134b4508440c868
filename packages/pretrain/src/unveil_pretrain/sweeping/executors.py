"""Starting cells: submitit's executors for local processes and for SLURM, and the command line of a cell."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.folder import Data, SweepFolder
from unveil_pretrain.sweeping.job import CellJob

__all__ = ["ExecutorName", "Handle", "Resources", "cell_job", "is_active", "start_local", "submit_slurm"]

ExecutorName = Literal["local", "slurm"]

_YEAR_MINUTES = 60 * 24 * 365  # submitit's local processes need a limit; a sweep has none
_ACTIVE = frozenset(
    {"PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SUSPENDED", "COMPLETING", "CONFIGURING", "READY"}
)


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
    )


def start_local(job: CellJob, resources: Resources, *, slot: int) -> Handle:
    """Start a cell as a process of this machine, on the GPUs of its slot.

    Raises:
        SweepError: submitit is missing.
    """
    submitit = _submitit()
    executor = submitit.LocalExecutor(job.folder / "submitit")
    gpus = list(range(slot * resources.gpus, (slot + 1) * resources.gpus))
    executor.update_parameters(timeout_min=_YEAR_MINUTES, gpus_per_node=resources.gpus, visible_gpus=gpus)
    return executor.submit(job)


def submit_slurm(jobs: Sequence[CellJob], resources: Resources, *, at_once: int) -> Sequence[Handle]:
    """Submit cells to SLURM, as one array of which `at_once` run at the same time.

    Raises:
        SweepError: submitit or SLURM is missing, or SLURM refuses the jobs.
    """
    submitit = _submitit()
    folder = jobs[0].folder / "submitit"
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=resources.max_requeues)
        executor.update_parameters(
            name="pretrain",
            timeout_min=resources.timeout_min,
            tasks_per_node=1,
            nodes=1,
            cpus_per_task=resources.cpus or max(1, resources.gpus) + resources.num_workers,
            slurm_array_parallelism=at_once,
            slurm_additional_parameters={"requeue": True},
            **({"gpus_per_node": resources.gpus} if resources.gpus else {}),
            **({"mem_gb": resources.mem_gb} if resources.mem_gb else {}),
            **_named(resources),
        )
        with executor.batch():
            handles = [executor.submit(job) for job in jobs]
    except RuntimeError as error:  # submitit's own, when there is no srun
        raise SweepError(
            f"SLURM cannot be used here ({error}); run it on a login node, or with --executor local"
        ) from error
    except submitit.core.utils.FailedSubmissionError as error:
        raise SweepError(f"SLURM refused the cells ({error}); check partition, account and time limit") from error
    return handles


def is_active(folder: Path, job_id: str) -> bool | None:
    """Whether SLURM still has the job, waiting or running; None where SLURM does not know it.

    Raises:
        SweepError: submitit or SLURM is missing.
    """
    submitit = _submitit()
    try:
        state = submitit.SlurmJob(folder / "submitit", job_id).watcher.get_state(job_id, mode="force")
    except (OSError, RuntimeError) as error:
        raise SweepError(f"SLURM cannot be asked about job {job_id} ({error}); ask on a login node") from error
    return None if state == "UNKNOWN" else state.split()[0].rstrip("+") in _ACTIVE


def _named(resources: Resources) -> dict[str, str]:
    """SLURM's own options, those that are given."""
    options = {
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_qos": resources.qos,
        "slurm_constraint": resources.constraint,
    }
    return {name: value for name, value in options.items() if value}


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError as error:
        raise SweepError(
            "pretrain sweep needs submitit, which is not installed; run: pip install 'unveil-pretrain[cluster]'"
        ) from error
    return submitit
