"""What a downstream task is: a name, a version, its metrics, a protocol per suite, and `run`.

A task is one folder under ``tasks/`` with the files ``config.py``, ``data.py``, ``model.py``,
``metrics.py`` and ``task.py``; the class in ``task.py`` satisfies `Task`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import polars
    import unveil_backbones.checkpoint
    import unveil_backbones.manifest

__all__ = ["SUITES", "Metric", "MetricSpec", "Picture", "Sized", "Suite", "Task", "TaskContext", "TaskResult"]

Suite = Literal["quick", "short", "full"]
SUITES: tuple[Suite, ...] = ("quick", "short", "full")
"""``quick`` takes minutes on a CPU, ``short`` about an hour on one GPU, ``full`` is the papers' protocol."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """What a metric is called and how to read it."""

    name: str
    """Full name, ``<task>.<metric>``, such as ``"imagenet_ft.acc1"``."""
    higher_is_better: bool = True
    unit: str = "fraction"
    """``"fraction"`` means a value in [0, 1]."""
    main: bool = False
    """Whether this is the one number that stands for the task; exactly one per task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One measured number."""

    name: str
    """Full name; one of the task's `MetricSpec` names."""
    value: float
    baseline: float | None
    """What a trivial method reaches on the same data: majority class, empty prediction, random ranking."""
    standard_error: float | None
    """Sampling error over the evaluation items, in the metric's unit; None where it is not estimated."""
    n: int
    """Number of evaluation items (images, queries) behind the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One prediction as a picture for the report's gallery."""

    encoded: bytes
    """A JPEG or PNG file of at most a few hundred pixels a side."""
    caption: str
    """What is seen, in words: ``"dog, taken for cat"``."""
    outcome: Literal["good", "bad", "example"]
    """Whether the prediction was right, wrong, or neither can be said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """What `Task.run` returns."""

    metrics: tuple[Metric, ...]
    samples: "polars.DataFrame | None" = None
    """Per-sample outcomes, so that two checkpoints can be compared paired."""
    load_coverage: float | None = None
    """Fraction of the encoder's tensors that the task's model holds; tasks refuse anything below 1."""
    gallery: "tuple[Picture, ...]" = ()
    """A dozen predictions or so, chosen by a rule that does not depend on the outcome."""
    tables: "Mapping[str, polars.DataFrame]" = field(default_factory=dict)
    """Tables for the report by name, such as ``per_class`` and ``confusion``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """Everything one run of a task is given."""

    checkpoint: "unveil_backbones.checkpoint.Checkpoint"
    """A freshly loaded checkpoint: the task may train its encoder in place."""
    data_root: Path
    protocol: Any
    """What `Task.protocol` returned for the suite."""
    seed: int
    limit: int | None
    """Use only the first `limit` evaluation images (and at most as many training images); None: all."""
    batch_size: int | None
    """Images per step on this device; None: the task chooses. Never changes the effective batch of the protocol."""
    device: str
    """``"cpu"`` or ``"cuda"``."""
    work_dir: Path
    """Exists; private to this checkpoint × task × seed × protocol; removed when the task is done. It may hold what an
    interrupted earlier run of exactly the same cell left behind."""
    log: Callable[[str], None]
    """Writes one line to the task's log file and to stderr."""
    progress: bool
    """Whether to draw a progress bar on stderr."""


@runtime_checkable
class Task(Protocol):
    """A downstream evaluation.

    The properties below are plain class attributes in practice.
    """

    @property
    def name(self) -> str:
        """Spelled as in `load_task`."""
        ...

    @property
    def version(self) -> int:
        """Raise it whenever a change may move a number."""
        ...

    @property
    def description(self) -> str:
        """One line for ``evalharness ls``."""
        ...

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """What `run` returns, every one of them each time."""
        ...

    @property
    def requires(self) -> tuple[str, ...]:
        """Import names of optional dependencies, such as ``"mmdet"``."""
        ...

    def protocol(self, suite: str) -> Any:
        """The frozen protocol dataclass of a suite; `UnknownSuiteError` for any other name."""
        ...

    def expected_time(self, suite: str) -> str:
        """How long one checkpoint takes, for people: ``"20 s on one CPU core"``."""
        ...

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Why the task has no meaning for this checkpoint, or None."""
        ...

    def data_hash(self, data_root: Path) -> str:
        """A short hash of the data the task reads under `data_root`; `DataError` when it is not there."""
        ...

    def run(self, context: TaskContext) -> TaskResult:
        """Evaluates one checkpoint."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A task that says how many images it evaluates, so that ``--limit 0.1`` can take a share of them."""

    def num_images(self, data_root: Path, protocol: Any) -> int:
        """Evaluation images under `data_root` that `protocol` uses; `DataError` when the data is not there."""
        ...
