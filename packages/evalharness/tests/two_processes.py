"""Started by test_core_run: evaluates six seeds of a toy task and prints how many of them it did itself."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from unveil_evalharness.run import RunOptions, run
from unveil_evalharness.task import Metric, MetricSpec, TaskResult


@dataclass(frozen=True)
class SlowProtocol:
    seconds: float = 0.1


class SlowTask:
    name = "slow"
    version = 1
    description = "sleeps"
    metrics = (MetricSpec(name="slow.score", main=True),)
    requires = ()

    def __init__(self, seconds):
        self.seconds = seconds

    def protocol(self, suite):
        return SlowProtocol()

    def expected_time(self, suite):
        return "a moment"

    def not_applicable(self, manifest):
        return None

    def data_hash(self, data_root):
        return "none"

    def run(self, context):
        time.sleep(self.seconds)
        return TaskResult(metrics=(Metric(name="slow.score", value=1.0, baseline=None, standard_error=None, n=1),))


if __name__ == "__main__":
    checkpoint, data, out, *seconds = sys.argv[1:]
    options = RunOptions(
        ckpt=(Path(checkpoint),),
        data_root=Path(data),
        output_path=Path(out),
        tasks=("slow",),
        seeds=tuple(range(6)),
        device="cpu",
        progress=False,
    )
    task = SlowTask(float(seconds[0]) if seconds else 0.1)
    print(run(options, load=lambda name: task).num_run)
