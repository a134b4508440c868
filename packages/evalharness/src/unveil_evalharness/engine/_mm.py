"""Subclasses of mmengine's Runner, loop and hook; imported only inside an open session."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from tqdm import tqdm

from unveil_evalharness.engine.interim import write_interim
from unveil_evalharness.engine.session import Session
from unveil_evalharness.engine.stream import Purpose, StreamBatches, derive_seed, seed_globals
from unveil_evalharness.errors import DivergedError

__all__ = ["EngineRunner", "InterimHook", "KeyedTrainLoop", "NonFiniteLossHook", "ProgressHook", "StepwiseSchedule"]


class EngineRunner(Runner):
    """mmengine's Runner inside a `Session`, on a given device.

    Args:
        session: names the run and owns its logger.
        device: where the model trains, such as ``"cpu"``.
        interim: state from which training goes on, as `InterimHook` wrote it; None begins.
        options: mmengine's own Runner options.
    """

    def __init__(self, *, session: Session, device: str, interim: Mapping[str, Any] | None, **options: Any) -> None:
        self._session = session
        self._device = torch.device(device)
        self._interim = None if interim is None else dict(interim)
        # Hooks such as mmengine's EMAHook ask for it when they are shown a checkpoint.
        super().__init__(resume=interim is not None, **options)

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Ranks and a name for the log folder; mmengine would also change start methods, limits and OpenCV threads."""
        del env_cfg
        self._rank, self._world_size = get_dist_info()
        self._timestamp = time.strftime("%Y%m%d_%H%M%S")

    def set_randomness(self, seed: int, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """Keeps the numbers for the record; `session` and `KeyedTrainLoop` do the seeding."""
        del diff_rank_seed
        self._seed, self._deterministic = seed, deterministic

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """The session's logger: one file for the whole run."""
        del log_level, log_file, kwargs
        return self._session.logger

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Moves the model to the device that was asked for, where mmengine would take CUDA whenever it is there."""
        del model_wrapper_cfg
        return model.to(self._device)

    def load_or_resume(self) -> None:
        """Puts the interim state in place; mmengine would look for files of its own."""
        if self._interim is None:
            return
        state, self._interim = self._interim, None
        self.call_hook("after_load_checkpoint", checkpoint=state)
        self.model.load_state_dict(state["state_dict"])
        assert isinstance(self.optim_wrapper, OptimWrapper)
        assert isinstance(self.param_schedulers, list)
        self.optim_wrapper.load_state_dict(state["optimizer"])
        for scheduler, values in zip(self.param_schedulers, state["param_schedulers"], strict=True):
            scheduler.load_state_dict(values)
        loop = self.train_loop
        assert isinstance(loop, KeyedTrainLoop)
        loop.go_on_from(state["iteration"])
        self.logger.info(f"resumed after pass {state['iteration']}")

    def _init_model_weights(self) -> None:
        """Nothing: weights are in place, and initialising again would overwrite the encoder after its gates."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """One line, where mmengine would start compilers to ask for their versions (seconds)."""
        del env_cfg
        self.logger.info(f"seed {self._seed}, device {self._device}, torch {torch.__version__}")


class KeyedTrainLoop(IterBasedTrainLoop):
    """Iteration-based training whose every pass has its own random numbers, so that a resumed run equals a whole one.

    Args:
        runner: the Runner.
        dataloader: endless loader or its config.
        max_iters: passes in all.
        seed: the run's seed.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int, seed: int) -> None:
        # Validation runs once, after training, by `Runner.val`.
        super().__init__(runner, dataloader, max_iters=max_iters, val_begin=max_iters + 1, val_interval=max_iters + 1)
        self._seed = seed

    def go_on_from(self, iteration: int) -> None:
        """Takes `iteration` passes as done."""
        self._iter = iteration

    def _skip_done(self) -> None:
        """Moves the loader to the pass at which training resumes."""
        sampler = self.dataloader.batch_sampler
        if isinstance(sampler, StreamBatches):
            sampler.start = self._iter
            self.dataloader_iterator = iter(self.dataloader)
        else:
            for _ in range(self._iter):
                next(self.dataloader_iterator)

    def run(self) -> None:
        """Trains to `max_iters`."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        if 0 < self._iter < self._max_iters:
            self._skip_done()
        self.runner.model.train()
        try:
            while self._iter < self._max_iters:
                seed_globals(derive_seed(self._seed, Purpose.FETCH, self._iter))
                batch = next(self.dataloader_iterator)
                seed_globals(derive_seed(self._seed, Purpose.STEP, self._iter))
                self.run_iter(batch)
        finally:
            # Ends the loader's processes now. Left to the garbage collector, which takes the runner and its loader as
            # one cycle, each process outlives its queue and is waited for five seconds.
            self.dataloader_iterator = iter(())
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")


class NonFiniteLossHook(Hook):
    """Stops at the first loss that is not a number, before it is logged or saved."""

    priority = "VERY_HIGH"

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Raises `DivergedError` naming the pass and the learning rate."""
        del batch_idx, data_batch
        loss = outputs["loss"]
        if not torch.isfinite(loss).all():
            assert isinstance(runner.optim_wrapper, OptimWrapper)
            rate = max(runner.optim_wrapper.get_lr()["lr"])
            parts = {name: float(value.detach()) for name, value in outputs.items()}
            raise DivergedError(
                f"the loss of training pass {runner.iter} is not finite ({parts}, learning rate {rate:.3g}); "
                "lower the protocol's lr or clip its gradients"
            )


class InterimHook(Hook):
    """Writes an interim checkpoint every so many passes and after the last one.

    Args:
        folder: the run's work folder.
        interval: passes between two checkpoints, a multiple of the passes per optimiser step: gradients on their way
            to a step are not kept.
        total: passes in all.
        plan: see `unveil_evalharness.engine.interim.write_interim`.
    """

    priority = "LOWEST"  # behind schedulers and averages, whose state is kept

    def __init__(self, *, folder: Path, interval: int, total: int, plan: str) -> None:
        self._folder = folder
        self._interval = interval
        self._total = total
        self._plan = plan

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Writes the checkpoint when its time has come."""
        del batch_idx, data_batch, outputs
        done = runner.iter + 1
        if done % self._interval and done != self._total:
            return
        assert isinstance(runner.optim_wrapper, OptimWrapper)
        assert isinstance(runner.param_schedulers, list)
        state: dict[str, Any] = {
            "iteration": done,
            "state_dict": dict(runner.model.state_dict()),
            "optimizer": runner.optim_wrapper.state_dict(),
            "param_schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        }
        runner.call_hook("before_save_checkpoint", checkpoint=state)
        write_interim(self._folder, state, iteration=done, plan=self._plan)


class ProgressHook(Hook):
    """A bar on stderr: passes done, time left, loss.

    Args:
        title: what the bar is called.
        total: passes in all.
        enabled: whether to draw at all.
    """

    priority = "LOWEST"

    def __init__(self, *, title: str, total: int, enabled: bool) -> None:
        self._title = title
        self._total = total
        self._enabled = enabled
        self._bar: tqdm[Any] | None = None

    def _open(self, title: str, total: int, done: int) -> None:
        self._bar = tqdm(total=total, initial=done, desc=title, disable=not self._enabled, leave=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Opens the bar at the pass where training starts or resumes."""
        self._open(f"{self._title} train", self._total, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Moves the bar by one pass."""
        del runner, batch_idx, data_batch
        if self._bar is not None and self._enabled:
            self._bar.set_postfix(loss=f"{float(outputs['loss'].detach()):.3f}", refresh=False)
            self._bar.update()

    def after_train(self, runner: Runner) -> None:
        """Closes the training bar."""
        del runner
        self._close()

    def before_val_epoch(self, runner: Runner) -> None:
        """Opens a bar for the evaluation."""
        self._open(f"{self._title} eval", len(runner.val_dataloader), 0)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Moves the evaluation bar."""
        del runner, batch_idx, data_batch, outputs
        if self._bar is not None:
            self._bar.update()

    def after_val(self, runner: Runner) -> None:
        """Closes the evaluation bar."""
        del runner
        self._close()


class StepwiseSchedule(ParamSchedulerHook):
    """Moves the learning rate with optimiser steps, so that splitting a batch into passes does not change it.

    Args:
        accumulate: passes per optimiser step.
    """

    def __init__(self, *, accumulate: int) -> None:
        self._accumulate = accumulate

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One step of the schedulers after the last pass of an optimiser step."""
        if (runner.iter + 1) % self._accumulate == 0:
            super().after_train_iter(runner, batch_idx, data_batch=data_batch, outputs=outputs)
