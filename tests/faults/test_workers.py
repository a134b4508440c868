"""Processes that decode and die: named, nobody waits for them, and the run can go on."""

import os
import signal
import time

import pytest

# PyTorch learns of a dead worker inside a signal handler, which raises wherever it stands: over a socket that nobody is
# left to close, or over one of the temporary files with which PyTorch counts free descriptors. Both close when they are
# collected.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:Exception ignored in.*{what}:pytest.PytestUnraisableExceptionWarning")
    for what in ("socket", r"FileIO name=.*mode='rb\+'")
]


def children():
    """Processes that this one started and that still run."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
                fields = stream.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.append(int(entry))
    return found


class Deadly:
    """A data set whose reader is killed at its first sample, as a machine without memory does.

    Nothing is handed over before: whoever waits for the first batch is where PyTorch's signal handler raises.
    """

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def train_example(self, index, *, seed, epoch):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*use of fork.*:DeprecationWarning")
def test_pretrain_names_a_decoding_process_that_was_killed(shards):
    from unveil_pretrain.data import ImageDataset, ShardDataset, train_batches
    from unveil_pretrain.errors import DataError
    from unveil_pretrain.loop import _next

    before = set(children())
    data = Deadly(ImageDataset(ShardDataset(shards[0]), image_size=(32, 32)))
    batches = train_batches(
        data, batch_size=4, start_step=0, num_steps=50, seed=0, num_workers=1, worker_kind="processes"
    )
    batch, error = _next(batches)
    assert batch is None
    assert isinstance(error, DataError)
    assert "a decoding process ended" in str(error)
    assert "repeat the command" in str(error)
    del batches
    patience = time.monotonic() + 5
    while set(children()) - before and time.monotonic() < patience:
        time.sleep(0.05)
    assert set(children()) == before


class DyingLine:
    """Kills the process that loads its last point, as a machine without memory does."""

    def __init__(self):
        from line_training import Line

        self.line = Line()

    def __len__(self):
        return len(self.line)

    def __getitem__(self, index):
        import torch

        if index == 9 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.line[index]


@pytest.mark.mm
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("fault", ["worker", "number"])
def test_evalharness_records_the_failure_and_does_the_other_task(subjects, tmp_path, fault):
    """A loader's process that dies, and a loss that is no number: a row with the reason; then the next task."""
    from line_training import LineTask, train_line
    from toy_task import ToyTask, loader
    from unveil_evalharness.results import latest, read_rows
    from unveil_evalharness.run import RunOptions, run

    class Failing(LineTask):
        def run(self, context):
            how = {"dataset": DyingLine(), "num_workers": 1} if fault == "worker" else {"explode_at": 4}
            train_line(context.work_dir, max_iters=12, **how)

    (tmp_path / "data").mkdir()
    options = RunOptions(
        ckpt=(subjects["mae"],), data_root=tmp_path / "data", output_path=tmp_path / "out", tasks=("line", "toy"),
        device="cpu", progress=False,
    )  # fmt: skip
    before = set(children())
    summary = run(options, load=loader(Failing(), ToyTask()))
    assert [(row.task, row.status) for row in summary.rows if row.main] == [("line", "failed"), ("toy", "ok")]
    reason = summary.rows[0].error
    assert ("a loader's process ended" if fault == "worker" else "not finite") in reason
    assert set(children()) == before
    run(options, load=loader(LineTask(), ToyTask()))
    rows = latest(read_rows(tmp_path / "out" / "results.jsonl"))
    assert {row.status for row in rows} == {"ok"}
