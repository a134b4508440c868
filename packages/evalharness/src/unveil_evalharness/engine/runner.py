"""Train and evaluate on mmengine's Runner, from Python objects.

The Runner here differs from mmengine's in what one process with many runs needs: it trains on the device it is told, it
never initialises weights (a task does that before it loads the encoder), and it changes no process-wide setting.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from unveil_evalharness.engine.optim import LayeredEncoder, OptimiserSettings, build_optimiser, schedule
from unveil_evalharness.engine.session import Session
from unveil_evalharness.errors import HarnessError, ProtocolError

__all__ = ["DivergedError", "Precision", "TrainingPlan", "train_and_evaluate"]

Precision = Literal["float32", "float16", "bfloat16"]


class DivergedError(HarnessError):
    """Training produced a loss that is not a finite number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """How long, how fast and how precisely to train."""

    max_iters: int
    """Optimiser steps."""
    optimiser: OptimiserSettings
    accumulate: int = 1
    """Passes per optimiser step, from `unveil_evalharness.engine.batch.plan_batch`."""
    precision: Precision = "float32"
    """Mixed precision on CUDA; a CPU always trains in float32."""
    log_interval: int = 20
    """Passes between two lines of the log."""
    checkpoint_interval: int = 0
    """Optimiser steps between two interim checkpoints from which an interrupted task resumes; 0 for none."""

    def __post_init__(self) -> None:
        if self.max_iters < 1 or self.accumulate < 1 or self.log_interval < 1 or self.checkpoint_interval < 0:
            raise ProtocolError(
                f"max_iters, accumulate and log_interval must be at least 1 and checkpoint_interval at least 0, got "
                f"{self.max_iters}, {self.accumulate}, {self.log_interval}, {self.checkpoint_interval}"
            )


def _optimiser_wrapper(model: nn.Module, encoder: LayeredEncoder, plan: TrainingPlan, device: str) -> dict[str, Any]:
    wrapper: dict[str, Any] = {
        "type": "OptimWrapper",
        "optimizer": build_optimiser(model, encoder, plan.optimiser),
        "accumulative_counts": plan.accumulate,
    }
    if plan.optimiser.clip_norm is not None:
        wrapper["clip_grad"] = {"max_norm": plan.optimiser.clip_norm}
    if plan.precision != "float32" and device != "cpu":
        wrapper |= {"type": "AmpOptimWrapper", "dtype": plan.precision}
    return wrapper


def train_and_evaluate(
    opened: Session,
    *,
    model: nn.Module,
    encoder: LayeredEncoder,
    train_loader: DataLoader[Any] | Mapping[str, Any],
    val_loader: DataLoader[Any] | Mapping[str, Any],
    evaluator: Any,
    plan: TrainingPlan,
    device: str,
    progress: bool,
    title: str,
) -> dict[str, float]:
    """Trains `model` for ``plan.max_iters`` steps, evaluates it once, and returns the evaluator's metrics.

    An interim checkpoint in ``opened.work_dir`` is resumed from. Logs go to ``<work_dir>/train.log``, scalars to
    ``<work_dir>/<session>/vis_data/``; the progress bar (time left, loss) to stderr.

    Args:
        opened: the open session.
        model: an ``mmengine.model.BaseModel`` with its weights in place; trained in place.
        encoder: the encoder inside `model`, for layer decay.
        train_loader: preferably from `keyed_loader`, or an mm dataloader config with an infinite sampler.
        val_loader: a finite loader, or an mm dataloader config.
        evaluator: ``mmengine.evaluator.Evaluator``, or a list of metrics or metric configs.
        plan: see `TrainingPlan`.
        device: ``"cpu"`` or ``"cuda"``.
        progress: whether to draw the bar.
        title: what the bar is called.

    Raises:
        DivergedError: the loss is not a finite number; names the step and the learning rate.
    """
    from mmengine.evaluator import Evaluator

    from unveil_evalharness.engine._mm import EngineRunner, KeyedTrainLoop, NonFiniteLossHook, ProgressHook

    passes = plan.max_iters * plan.accumulate
    hooks: dict[str, Any] = {
        # The stream is keyed; mmengine's per-epoch sampler seeding has nothing to do.
        "sampler_seed": None,
        "logger": {"type": "LoggerHook", "interval": plan.log_interval, "log_metric_by_epoch": False},
        "checkpoint": None,
    }
    if plan.checkpoint_interval:
        hooks["checkpoint"] = {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": plan.checkpoint_interval * plan.accumulate,
            "max_keep_ckpts": 1,
            "save_last": False,
        }
    runner = EngineRunner(
        session=opened,
        device=device,
        model=model,
        work_dir=str(opened.work_dir),
        train_dataloader=train_loader,
        val_dataloader=val_loader,
        train_cfg={"type": KeyedTrainLoop, "max_iters": passes, "seed": opened.seed},
        val_cfg={},
        val_evaluator=evaluator if isinstance(evaluator, Evaluator) else Evaluator(_as_list(evaluator)),
        optim_wrapper=_optimiser_wrapper(model, encoder, plan, device),
        param_scheduler=[
            dict(config) for config in schedule(plan.optimiser, max_iters=plan.max_iters, accumulate=plan.accumulate)
        ],
        default_hooks=hooks,
        custom_hooks=[NonFiniteLossHook(), ProgressHook(title=title, total=passes, enabled=progress)],
        log_processor={"by_epoch": False, "window_size": plan.log_interval},
        resume=_has_interim_checkpoint(opened.work_dir),
        default_scope=opened.scope,
        randomness={"seed": opened.seed},
        experiment_name=opened.name,
    )
    with _one_line_errors():
        runner.train()
        return {name: float(value) for name, value in runner.val().items()}


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Gives an error from a loader process its own line back; torch hands it over inside the process's traceback."""
    try:
        yield
    except HarnessError as error:
        lines = str(error).splitlines()
        if len(lines) < 2:
            raise
        raise type(error)(lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from error


def _as_list(evaluator: Any) -> Sequence[Any]:
    return evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]


def _has_interim_checkpoint(work_dir: Path) -> bool:
    return (work_dir / "last_checkpoint").is_file()
