"""The training loop: `train` runs one configuration in one folder, and continues it exactly if it was interrupted.

Reading order: `train` → `_run_steps` → `train_step`. Masks, crops, order and schedule are functions of the step, so the
only state is the weights, the optimiser and a few counters (`train_state.py`).
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from unveil_backbones import load

from unveil_pretrain.checkpointing import diverged, save_checkpoint
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.costing import cost_basis
from unveil_pretrain.data import Batch, train_batches
from unveil_pretrain.data.streams import words
from unveil_pretrain.optim import set_learning_rate
from unveil_pretrain.record import RunFolder, about_run
from unveil_pretrain.run import DeviceName, Run, assemble, choose_device, describe
from unveil_pretrain.scoring import record_validation
from unveil_pretrain.sources import open_data
from unveil_pretrain.train_state import Position

__all__ = ["StepMetrics", "train", "train_step"]

# The random numbers of stochastic depth, above the streams of the data pipeline (data/streams.py).
_MODEL_STREAM = 0x2400_0000


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What one update gives: the batch's mean loss, the learning rate, the gradient's norm before clipping, tokens."""

    loss: float
    lr: float
    grad_norm: float
    num_tokens: int


def train(
    config: MimConfig | FlipConfig,
    *,
    out: Path,
    train_data: str,
    val_data: str,
    log: Callable[[str], None],
    device: DeviceName = "auto",
    num_workers: int = 0,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Path:
    """Run `config` in the folder `out`, from its last checkpoint if it has one.

    Args:
        config: What to train and how.
        out: The run's folder; a new one, or that of the same run.
        train_data: Shards of the training set, in webdataset's syntax, or an image folder.
        val_data: Those of the validation set.
        train_list: Which of the training samples to use; all without it.
        log: Receives lines about the run.
        device: Where to compute.
        num_workers: Decoding processes; the result does not depend on it.
        progress: Show a bar on stderr.
        command: The command line, recorded in run.json.

    Returns:
        The last checkpoint.

    Raises:
        PretrainError, BackboneError, MaskingError: one line that says what to do; earlier checkpoints stay as they are.
    """
    data = open_data(config, train_data=train_data, val_data=val_data, train_list=train_list)
    folder = RunFolder(out)
    folder.claim(data.identity(config), about_run(command=command, train_data=train_data, val_data=val_data))
    last = folder.last_checkpoint()
    checkpoint = None if last is None else load(last)
    if checkpoint is not None and checkpoint.manifest.step >= config.steps:
        log(f"{out} is finished: step {checkpoint.manifest.step} of {config.steps}, {checkpoint.path}")
        return checkpoint.path
    place = choose_device(device)
    # Seeds set for the run do not reach the caller's generators.
    with torch.random.fork_rng(devices=[] if place.type == "cpu" else [torch.cuda.current_device()]):
        run, position = assemble(config, data, folder, checkpoint, device=place, num_workers=num_workers)
        folder.rewind(position.step)
        folder.add_cost_basis(cost_basis(config, step=position.step, device=place))
        for line in describe(run, position):
            log(line)
        _run_steps(run, position, num_workers=num_workers, progress=progress)
    return folder.checkpoint_path(config.steps)


def train_step(run: Run, position: Position, batch: Batch) -> StepMetrics:
    """One update; `position.step` counts from 0.

    Raises:
        DivergedError: loss or gradient is not finite; the weights are still those before the step.
    """
    config = run.config
    # Stochastic depth is a function of the step, so that a restart changes nothing.
    torch.manual_seed(int(words(config.seed, position.step, np.zeros(1, dtype=np.int64), _MODEL_STREAM)[0]))
    inputs = run.normalise(batch)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        output = run.objective(inputs, seed=config.seed)
    loss = output.per_sample.mean()
    if not math.isfinite(float(loss.detach())):
        raise diverged(run, position, inputs, output.per_sample.detach(), "loss")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = float(torch.nn.utils.clip_grad_norm_(run.objective.parameters(), config.clip_norm))
    if not math.isfinite(grad_norm):
        raise diverged(run, position, inputs, output.per_sample.detach(), "gradient norm")
    rate = config.build_schedule()(position.step)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    return StepMetrics(loss=float(loss.detach()), lr=rate, grad_norm=grad_norm, num_tokens=output.num_tokens)


def _run_steps(run: Run, position: Position, *, num_workers: int, progress: bool) -> None:
    """All steps from `position` to the end, with their records, validations and checkpoints."""
    config = run.config
    batches = train_batches(
        run.data.train,
        batch_size=config.batch_size,
        start_step=position.step,
        num_steps=config.steps - position.step,
        seed=config.seed,
        num_workers=num_workers,
    )
    # A bar that is written to a file needs no more than a line now and then.
    interval = 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=config.steps, initial=position.step, desc=run.folder.path.name, unit="step", mininterval=interval,
        disable=not progress,
    ) as bar:  # fmt: skip
        started = time.perf_counter()
        for batch in batches:
            metrics = train_step(run, position, batch)
            now = time.perf_counter()
            position = position.after(config.batch_size, metrics.num_tokens, now - started)
            run.folder.add_metrics(
                {
                    "step": position.step,
                    "samples_seen": position.samples_seen,
                    "epoch": position.samples_seen / len(run.data.train),
                    "unique_samples": min(position.samples_seen, len(run.data.train)),
                    "loss": metrics.loss,
                    "lr": metrics.lr,
                    "grad_norm": metrics.grad_norm,
                    "samples_per_second": config.batch_size / max(now - started, 1e-9),
                    "tokens_seen": position.tokens_seen,
                    "seconds": position.seconds,
                }
            )
            _reach(run, position, bar, metrics.loss)
            started = time.perf_counter()


def _reach(run: Run, position: Position, bar: tqdm, loss: float) -> None:
    """Validate and save where the settings say so, and move the bar."""
    config, step = run.config, position.step
    saves = step == config.steps or (config.checkpoint_every > 0 and step % config.checkpoint_every == 0)
    if saves or step % config.validate_every == 0:
        val_loss = record_validation(run, position)
        bar.set_description_str(f"{run.folder.path.name} val {val_loss:.4f}", refresh=False)
    if saves:
        save_checkpoint(run, position)
    bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
    bar.update()
