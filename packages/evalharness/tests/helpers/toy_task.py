"""A task that counts its calls and does what it is told, for the tests of `run`."""

from dataclasses import dataclass, field

import polars
from unveil_evalharness.errors import DataError, UnknownSuiteError
from unveil_evalharness.task import Metric, MetricSpec, TaskResult

__all__ = ["ToyProtocol", "ToyTask", "loader"]


@dataclass(frozen=True, kw_only=True)
class ToyProtocol:
    steps: int = 3


@dataclass
class ToyTask:
    """Counts its calls and does what it is told."""

    name: str = "toy"
    version: int = 1
    description: str = "a toy"
    requires: tuple[str, ...] = ()
    fails: BaseException | None = None
    value: float = 0.75
    hash: str = "data-1"
    contexts: list = field(default_factory=list)

    @property
    def metrics(self):
        return (
            MetricSpec(name=f"{self.name}.score", main=True),
            MetricSpec(name=f"{self.name}.loss", higher_is_better=False),
        )

    def protocol(self, suite):
        if suite not in ("quick", "full"):
            raise UnknownSuiteError(f"no suite {suite}")
        return ToyProtocol(steps=3 if suite == "quick" else 300)

    def expected_time(self, suite):
        return "no time"

    def not_applicable(self, manifest):
        return "the toy wants another label" if manifest.step == 99 else None

    def data_hash(self, data_root):
        if not self.hash:
            raise DataError("the toy's data is missing")
        return self.hash

    def run(self, context):
        self.contexts.append(context)
        assert context.work_dir.is_dir()
        (context.work_dir / "scratch").write_text("x")
        print("chatter on stdout")
        context.log("a line from the toy")
        if self.fails is not None:
            raise self.fails
        return TaskResult(
            metrics=(
                Metric(name=f"{self.name}.score", value=self.value, baseline=0.5, standard_error=0.1, n=4),
                Metric(name=f"{self.name}.loss", value=1.5, baseline=None, standard_error=None, n=4),
            ),
            samples=polars.DataFrame({"key": ["a", "b"], "hit": [True, False]}),
            load_coverage=1.0,
        )


def loader(*tasks):
    by_name = {task.name: task for task in tasks}
    return by_name.__getitem__
