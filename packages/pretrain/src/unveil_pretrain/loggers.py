"""Where the scalars of a run are shown while it runs: TensorBoard, and if asked for Weights & Biases or MLflow.

metrics.jsonl and val.jsonl are the record; a logger is a view of it. What a row holds of numbers goes to every logger
under "train/..." or "val/...", at the row's step. A run that continues repeats the steps after its checkpoint:
TensorBoard forgets them first; W&B and MLflow, which cannot, show both.
"""

import hashlib
import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from unveil_backbones.redaction import redact_record

from unveil_pretrain.errors import ConfigError, OutputError

__all__ = ["Logger", "LoggerName", "Loggers", "check_loggers", "open_loggers", "scalars_of"]

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


class Logger(Protocol):
    """Shows numbers of a run."""

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Show `values` by name at `step`."""
        ...

    def flush(self) -> None:
        """Bring what was shown so far to disk or on its way, since a checkpoint follows."""
        ...

    def close(self) -> None:
        """Finish; nothing is shown afterwards."""
        ...


class Loggers:
    """Several loggers as one; none is a logger that shows nothing.

    Every method raises OutputError where the file system refuses.
    """

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        """Pass everything on to `loggers`."""
        self._loggers = tuple(loggers)

    def train_row(self, row: Mapping[str, object]) -> None:
        """Show a row of metrics.jsonl."""
        self._show("train", row)

    def val_row(self, row: Mapping[str, object]) -> None:
        """Show a row of val.jsonl, and flush: a checkpoint may follow, from which a run would continue."""
        self._show("val", {**row, "alarm": row.get("alarm") is not None})
        with _named_errors():
            for logger in self._loggers:
                logger.flush()

    def close(self) -> None:
        """Close all of them."""
        with _named_errors():
            for logger in self._loggers:
                logger.close()

    def _show(self, prefix: str, row: Mapping[str, object]) -> None:
        if self._loggers:
            values = scalars_of(row, prefix)
            with _named_errors():
                for logger in self._loggers:
                    logger.scalars(values, step=cast(int, row["step"]))


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"what --loggers show cannot be written ({error.strerror or error}); free some space, or leave the logger "
            "out, and repeat the command"
        ) from error


def scalars_of(row: Mapping[str, object], prefix: str) -> dict[str, float]:
    """The numbers of a row besides its step, under `prefix`/name; true is 1."""
    return {
        f"{prefix}/{name}": float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    }


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse loggers that cannot be opened here, before there is anything to log; in every process of a run.

    Raises:
        ConfigError: a logger's package is not installed.
    """
    for name in names:
        # The distributions and what is imported of them have the same name, which is also the logger's.
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"the logger {name} needs the package {name}, which is not installed; "
                f"`pip install {name}`, or leave {name} out of --loggers"
            )


def open_loggers(names: Sequence[LoggerName], *, run: Path, config: Mapping[str, object], start_step: int) -> Loggers:
    """The loggers of the run in the folder `run`, which starts or continues after `start_step` steps.

    W&B and MLflow take project, server and account from their own environment variables (WANDB_PROJECT,
    MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...).

    Raises:
        ConfigError: as `check_loggers`.
    """
    check_loggers(names)
    makers: Mapping[LoggerName, Callable[[Path, Mapping[str, object], int], Logger]] = {
        "tensorboard": _TensorBoard,
        "wandb": _WeightsAndBiases,
        "mlflow": _MLflow,
    }
    return Loggers([makers[name](run, redact_record(config), start_step) for name in dict.fromkeys(names)])


class _TensorBoard:
    """Event files in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    def __init__(self, run: Path, config: Mapping[str, object], start_step: int) -> None:
        del config
        writer = _module("torch.utils.tensorboard").SummaryWriter
        # Its thread hands an error of writing to the next call here, and need not print it as well.
        self._hook, threading.excepthook = threading.excepthook, self._threads_error
        with _named_errors():
            self._writer = writer(log_dir=str(run / "tensorboard"), purge_step=start_step + 1)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _threads_error(self, given: threading.ExceptHookArgs) -> None:
        if not isinstance(given.exc_value, OSError):
            self._hook(given)


class _WeightsAndBiases:
    """A W&B run whose id is that of the folder, so that it continues there."""

    def __init__(self, run: Path, config: Mapping[str, object], start_step: int) -> None:
        del start_step
        wandb = _module("wandb")
        self._run = wandb.init(
            id=hashlib.sha256((run / "run.json").read_bytes()).hexdigest()[:16],
            name=run.name,
            dir=str(run),
            config=dict(config),
            resume="allow",
        )
        # Its own step counter never goes back, as ours does when a run continues.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self._run.log({**values, "step": step})

    def flush(self) -> None:
        return  # a process of W&B's own sends what it was given

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """An MLflow run; the folder remembers its id."""

    def __init__(self, run: Path, config: Mapping[str, object], start_step: int) -> None:
        del start_step
        self._mlflow = _module("mlflow")
        remembered = run / ".mlflow_run_id"
        known = remembered.read_text(encoding="utf-8").strip() if remembered.exists() else None
        active = self._mlflow.start_run(run_id=known, run_name=run.name)
        if known is None:
            remembered.write_text(active.info.run_id + "\n", encoding="utf-8")
            self._mlflow.log_params(_flat(config))

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def flush(self) -> None:
        return  # every call has been sent

    def close(self) -> None:
        self._mlflow.end_run()


def _module(name: str) -> Any:
    """A module that is only imported when a run asks for it; none of them is needed for anything else."""
    return importlib.import_module(name)


def _flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
