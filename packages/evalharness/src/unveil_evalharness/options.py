"""What ``evalharness run`` is asked: the options, and the same options as a command line again."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unveil_backbones.slurm.arrays import notice_within

from unveil_evalharness.errors import UsageError
from unveil_evalharness.foreign.reference import ForeignFormat
from unveil_evalharness.task import Suite
from unveil_evalharness.tasks import DEFAULT_TASKS, expand

__all__ = ["ClusterOptions", "RunOptions", "as_record", "command_line", "named_protocols"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """What SLURM gives each job; nothing of it matters elsewhere."""

    partition: str = ""
    """Partition."""
    account: str = ""
    """Account."""
    qos: str = ""
    """Quality of service."""
    constraint: str = ""
    """Features that a node must have."""
    gpus: int = 1
    """GPUs of a job; a task uses one, 0 computes on the CPU."""
    cpus: int = 8
    """Cores of a job."""
    mem_gb: float = 0.0
    """Main memory of a job in GB; 0 leaves it to the cluster."""
    timeout_min: int = 60 * 24
    """Minutes after which a job is stopped and put back into the queue, where it goes on."""
    notice_s: int = 120
    """Seconds before that at which a task is asked to stop; at most a quarter of the limit."""
    name: str = ""
    """Name of the jobs; otherwise evalharness- and the name of the output folder."""
    sbatch: str = ""
    """Further options of sbatch, as 'reservation=night exclusive nodelist=n[1-4]'; they count last."""
    setup: str = ""
    """A shell command that runs before the task on its node, as 'module load cuda'."""

    @property
    def effective_notice_s(self) -> int:
        """Seconds between the notice and the time limit."""
        return notice_within(self.timeout_min, self.notice_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Evaluate checkpoints on downstream tasks.

    Finished tasks are kept in OUT/results.jsonl and skipped when the same command runs again; failed ones are retried,
    and interrupted ones go on from their last interim checkpoint. Under torchrun each process takes tasks from the
    same list.
    """

    ckpt: tuple[Path, ...]
    """Checkpoint folders, run folders (their last checkpoint), and models of other programs, separated by commas: files
    and folders of weights (see --format), timm:MODEL, open_clip:MODEL/TAG; the two also as ...=FILE and ...@random."""
    data_root: Path
    """Folder with imagenet/, coco/, ade20k/ and captions/."""
    output_path: Path
    """Folder for results.jsonl, manifests, per-sample outcomes and logs."""
    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Tasks, or groups (retrieval, robustness), separated by commas; see `evalharness ls tasks`."""
    suite: Suite = "quick"
    """Protocol: quick takes minutes on a CPU, short about an hour on one GPU, full is the papers'."""
    protocol: tuple[str, ...] = ()
    """Other protocols for some tasks, as TASK=NAME separated by commas: coco_det=1x or 3x, ade20k_seg=80k."""
    seeds: tuple[int, ...] = (0,)
    """Seeds separated by commas; each is one evaluation of its own."""
    repeats: int = 1
    """Evaluate everything so many times with the same seed; the spread over repeats is the noise of the measurement."""
    limit: int | float | None = None
    """Only the first N evaluation images, or with 0 < X < 1 that share of them; such results are marked for ever."""
    batch_size: int | Literal["auto"] = "auto"
    """Images per pass on the device; auto takes the most that fit. The batch of the protocol stays as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when torch sees one."""
    devices: int = 1
    """So many processes share the work, each on a GPU of its own where there are GPUs."""
    executor: Literal["inline", "local", "slurm"] = "inline"
    """Who runs the tasks: inline, this process (and those of --devices); local and slurm, a job of submitit's for each
    checkpoint, task and seed, --devices at once."""
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    overwrite: bool = False
    """Evaluate what is finished again; the new rows take the place of the old ones, which stay in the file."""
    dry_run: bool = False
    """List what there is to do and what is finished, and stop."""
    format: ForeignFormat | None = None
    """Format of foreign files; found out unless given."""
    model_args: str = ""
    """What foreign files do not tell: num_heads=6,image_size=192x192,window=12,arch=swinv2_b,mean=0.5/0.5/0.5, ..."""
    allow_download: bool = False
    """Let timm and open_clip download weights into their own caches; without it nothing leaves this machine."""
    config: Path | None = None
    """TOML file with options by their names (output_path = "out"); what is on the command line counts before it."""
    progress: bool = True
    """Draw progress bars on stderr."""
    json: bool = False
    """Print the rows as JSON on stdout instead of the table."""

    def __post_init__(self) -> None:
        """Refuses values no run can have."""
        for name in ("ckpt", "tasks", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is empty; name at least one, separated by commas")
        named_protocols(self)
        for name in ("batch_size", "repeats", "devices"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if isinstance(self.limit, float) and not 0 < self.limit < 1:
            raise UsageError(f"--limit must be a whole number or a share between 0 and 1, got {self.limit}")
        if isinstance(self.limit, int) and self.limit < 1:
            raise UsageError(f"--limit must be at least 1, got {self.limit}")
        if min(self.seeds) < 0:
            raise UsageError(f"--seeds must not be negative, got {min(self.seeds)}")


def named_protocols(options: RunOptions) -> dict[str, str]:
    """Task to protocol of ``--protocol``.

    Raises:
        UsageError: an entry is not TASK=NAME, names a task twice, or one that is not among ``--tasks``.
    """
    pairs = [entry.partition("=") for entry in options.protocol]
    wrong = next(
        (given for given, (task, _, name) in zip(options.protocol, pairs, strict=True) if not task or not name), None
    )
    if wrong is not None:
        raise UsageError(f"--protocol takes TASK=NAME, such as coco_det=3x, got {wrong!r}")
    named = {task: name for task, _, name in pairs}
    if len(named) < len(pairs):
        raise UsageError(f"--protocol {','.join(options.protocol)} names a task twice; one protocol per task and run")
    unused = [task for task in named if task not in expand(options.tasks)]
    if unused:
        raise UsageError(f"--protocol names {unused[0]!r}, which is not among --tasks {','.join(options.tasks)}")
    return named


def command_line(options: RunOptions) -> list[str]:
    """The words that give the same options to ``evalharness run``, all of them spelled out; but for ``--config``."""
    return [word for name, value in _flat(options) if name != "config" for word in _words(name, value)]


def as_record(options: RunOptions) -> dict[str, Any]:
    """The options as JSON values."""
    return {name: _json_value(value) for name, value in _flat(options)}


def _flat(options: RunOptions) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        if isinstance(value, ClusterOptions):
            pairs += [(f"{entry.name}.{inner.name}", getattr(value, inner.name)) for inner in dataclasses.fields(value)]
        else:
            pairs.append((entry.name, value))
    return pairs


def _words(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, (list, tuple)):
        return [flag, ",".join(str(member) for member in value)]
    return [flag, str(value)]


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json_value(member) for member in value]
    return value
