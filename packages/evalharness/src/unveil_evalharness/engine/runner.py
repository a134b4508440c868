"""Train and evaluate on mmengine's Runner, from Python objects.

The Runner here differs from mmengine's in what one process with many runs needs: it trains on the device it is told, it
never initialises weights (a task does that before it loads the encoder), and it changes no process-wide setting.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from unveil_evalharness.console import say
from unveil_evalharness.engine.batch import note_batch, smaller_batches
from unveil_evalharness.engine.interim import read_interim
from unveil_evalharness.engine.loader_errors import one_line_loader_errors
from unveil_evalharness.engine.optim import LayeredEncoder, OptimiserSettings, build_optimiser, schedule
from unveil_evalharness.engine.probe import check_fits
from unveil_evalharness.engine.session import Session
from unveil_evalharness.engine.stream import Purpose, StreamBatches, derive_seed, seed_globals
from unveil_evalharness.errors import BatchTooLargeError, DivergedError, ProtocolError, one_line
from unveil_evalharness.memory import is_out_of_memory

__all__ = ["DivergedError", "Precision", "TrainingPlan", "train_and_evaluate"]

Precision = Literal["float32", "float16", "bfloat16"]

_CHECKPOINTS_PER_RUN = 20
_FEWEST_STEPS_BETWEEN_CHECKPOINTS = 20


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
    checkpoint_interval: int | None = None
    """Optimiser steps between two interim checkpoints from which an interrupted task resumes; 0 for none, None for
    twenty per run, but not more often than every twenty steps."""
    probe_memory: bool = True
    """Try a pass before training and raise `BatchTooLargeError` where the batch does not fit."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of the weights that is evaluated in their place; 0 evaluates the weights."""

    def __post_init__(self) -> None:
        if self.max_iters < 1 or self.accumulate < 1 or self.log_interval < 1 or (self.checkpoint_interval or 0) < 0:
            raise ProtocolError(
                f"max_iters, accumulate and log_interval must be at least 1 and checkpoint_interval at least 0, got "
                f"{self.max_iters}, {self.accumulate}, {self.log_interval}, {self.checkpoint_interval}"
            )

    @property
    def interim_interval(self) -> int:
        """Optimiser steps between two interim checkpoints; 0 for none."""
        if self.checkpoint_interval is not None:
            return self.checkpoint_interval
        interval = max(self.max_iters // _CHECKPOINTS_PER_RUN, _FEWEST_STEPS_BETWEEN_CHECKPOINTS)
        return interval if interval < self.max_iters else 0

    def identity(self, *, seed: int, batch_size: int | None) -> str:
        """What decides how training goes on from an interim checkpoint, in words."""
        return (
            f"{self.max_iters} steps of {self.accumulate} x {batch_size} images, seed {seed}, {self.precision}, "
            f"average {self.ema_decay}, {self.optimiser}"
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
    hooks: Sequence[Any] = (),
) -> dict[str, float]:
    """Trains `model` for ``plan.max_iters`` steps, evaluates it once, and returns the evaluator's metrics.

    An interim checkpoint in ``opened.work_dir`` is resumed from, unless it is damaged or of another plan: then training
    starts over and the log says why. Logs go to ``<work_dir>/train.log``, scalars to
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
        hooks: further mmengine hooks of the task. State of theirs that must outlive an interruption goes through
            ``before_save_checkpoint`` and ``after_load_checkpoint``.

    Raises:
        DivergedError: the loss is not a finite number; names the step and the learning rate.
        BatchTooLargeError: memory ran out, or ``plan.probe_memory`` is set and a pass would not fit.
    """
    from mmengine.evaluator import Evaluator

    from unveil_evalharness.engine._mm import (
        EngineRunner,
        KeyedTrainLoop,
        NonFiniteLossHook,
        ProgressHook,
        StepwiseSchedule,
    )
    from unveil_evalharness.engine.ema import StepwiseEma

    if plan.probe_memory and isinstance(train_loader, DataLoader):
        check_fits(model, train_loader, precision=plan.precision, device=device, log=opened.logger.info)
    size = _batch_size(train_loader)
    if size is not None:
        note_batch(opened.work_dir, size)
    passes = plan.max_iters * plan.accumulate
    own_hooks: list[Any] = [NonFiniteLossHook(), ProgressHook(title=title, total=passes, enabled=progress)]
    if plan.ema_decay:
        own_hooks.append(StepwiseEma(decay=plan.ema_decay, accumulate=plan.accumulate))
    interim, interim_hooks = _interim(opened, plan, train_loader)
    runner = EngineRunner(
        session=opened,
        device=device,
        interim=interim,
        model=model,
        work_dir=str(opened.work_dir),
        train_dataloader=train_loader,
        val_dataloader=val_loader,
        train_cfg={"type": KeyedTrainLoop, "max_iters": passes, "seed": opened.seed},
        val_cfg={},
        val_evaluator=evaluator if isinstance(evaluator, Evaluator) else Evaluator(_as_list(evaluator)),
        optim_wrapper=_optimiser_wrapper(model, encoder, plan, device),
        param_scheduler=[dict(config) for config in schedule(plan.optimiser, max_iters=plan.max_iters)],
        default_hooks={
            # The stream is keyed; mmengine's per-epoch sampler seeding has nothing to do.
            "sampler_seed": None,
            "logger": {"type": "LoggerHook", "interval": plan.log_interval, "log_metric_by_epoch": False},
            "checkpoint": None,
            "param_scheduler": StepwiseSchedule(accumulate=plan.accumulate),
        },
        custom_hooks=[*own_hooks, *hooks, *interim_hooks],
        log_processor={"by_epoch": False, "window_size": plan.log_interval},
        default_scope=opened.scope,
        randomness={"seed": opened.seed},
        experiment_name=opened.name,
    )
    with one_line_loader_errors(), _memory_errors(size, plan.accumulate):
        runner.train()
        # Whatever is random about the evaluation is so in the same way after an interruption.
        seed_globals(derive_seed(opened.seed, Purpose.EVALUATION))
        return {name: float(value) for name, value in runner.val().items()}


def _interim(
    opened: Session, plan: TrainingPlan, train_loader: DataLoader[Any] | Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, list[Any]]:
    """The state that training goes on from, if any, and the hook that writes the next ones, if any."""
    from unveil_evalharness.engine._mm import InterimHook

    interval = plan.interim_interval
    if not interval:
        return None, []
    identity = plan.identity(seed=opened.seed, batch_size=_batch_size(train_loader))
    found = read_interim(opened.work_dir, plan=identity)
    if found.refused:
        message = f"the interim checkpoint is not used, training starts over: {found.refused}"
        opened.logger.warning(message)
        say(message)
    hook = InterimHook(
        folder=opened.work_dir,
        interval=interval * plan.accumulate,
        total=plan.max_iters * plan.accumulate,
        plan=identity,
    )
    return found.state, [hook]


def _batch_size(loader: DataLoader[Any] | Mapping[str, Any]) -> int | None:
    """Images per pass."""
    if isinstance(loader, DataLoader):
        sampler = loader.batch_sampler
        return sampler.batch_size if isinstance(sampler, StreamBatches) else loader.batch_size
    return loader.get("batch_size")


@contextlib.contextmanager
def _memory_errors(size: int | None, accumulate: int) -> Iterator[None]:
    """Gives an error of memory the batch to try next."""
    try:
        yield
    except Exception as error:
        if size is None or not is_out_of_memory(error):
            raise
        smaller = next(iter(smaller_batches(size * accumulate, size)), None)
        reason = one_line(error, limit=160)
        raise BatchTooLargeError(f"passes of {size} images do not fit: {reason}", fitting=smaller) from error


def _as_list(evaluator: Any) -> Sequence[Any]:
    return evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
