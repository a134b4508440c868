"""The training loop: `train` runs one configuration in one folder, and continues it exactly if it was interrupted.

Reading order: `train` → `_run_steps` → `train_step` (`update.py`). Masks, crops, stochastic depth, order and schedule
are functions of the step and the sample, so the only state is the weights, the optimiser and a few counters
(`train_state.py`).

Several processes, started by torchrun, share every batch: each loads and computes its part, all hold the same weights,
and the first one writes. The samples of a step do not depend on how many they are.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import torch
from tqdm import tqdm
from unveil_backbones import CheckpointError

from unveil_pretrain.checkpointing import save_checkpoint
from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.costing import cost_basis
from unveil_pretrain.data import Batch, train_batches
from unveil_pretrain.data.retrying import ReadPolicy, Retry, noting_retries
from unveil_pretrain.errors import DataError, PretrainError, ResumeError
from unveil_pretrain.interrupts import Interrupted, StopRequest, stop_requests
from unveil_pretrain.journal import count_skipped, record_reads, record_step
from unveil_pretrain.loggers import LoggerName, check_loggers
from unveil_pretrain.memory_check import check_memory
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.record import RunFolder, about_run
from unveil_pretrain.run import DeviceName, Run, assemble, choose_device, describe
from unveil_pretrain.saving import CheckpointFormat, CheckpointSaver
from unveil_pretrain.scoring import record_validation
from unveil_pretrain.sources import open_data
from unveil_pretrain.spikes import SpikeDetector
from unveil_pretrain.starting import load_initial
from unveil_pretrain.stored import SavedCheckpoint, read_saved
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import train_step
from unveil_pretrain.world import World, joined, world_of_environment

__all__ = ["train"]

_READING: Final = ReadPolicy()


def train(
    config: MimConfig | FlipConfig,
    *,
    out: Path,
    train_data: str,
    val_data: str,
    train_list: Path | None = None,
    log: Callable[[str], None],
    device: DeviceName = "auto",
    num_workers: int = 0,
    reading: ReadPolicy = _READING,
    parallel: Parallel | None = None,
    micro_batch_size: int = 0,
    compile_blocks: bool = False,
    checkpoint_blocks: bool = False,
    checkpoint_format: CheckpointFormat = "contract",
    async_checkpoints: bool = False,
    memory_limit: float = 0.0,
    loggers: Sequence[LoggerName] = ("tensorboard",),
    progress: bool = True,
    command: Sequence[str] = (),
    initial: Path | None = None,
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
        num_workers: Decoding processes of each process; the result does not depend on it.
        reading: How long and how often to try to read; the result does not depend on it.
        parallel: How the weights lie on several processes; a whole copy on each by default.
        micro_batch_size: Samples to compute at once on each process; 0 for all of them.
        compile_blocks: Compile the encoder's blocks.
        checkpoint_blocks: Compute the inside of the encoder's blocks twice instead of keeping it in memory.
        checkpoint_format: What checkpoints before the last hold; the last one is always of the contract.
        async_checkpoints: Write checkpoints in the background; the result does not depend on it.
        memory_limit: GB that a process may take; 0 for what there is. A run whose steps cannot fit is refused.
        loggers: Where to show the scalars of the run besides its records.
        progress: Show a bar on stderr.
        command: The command line, recorded in run.json.
        initial: A checkpoint whose weights the run begins with; fresh ones without it.

    Returns:
        The last checkpoint.

    Raises:
        PretrainError, BackboneError, MaskingError: one line that says what to do; earlier checkpoints stay as they are.
        Interrupted: SIGTERM or SIGINT arrived; the step that was under way is finished and saved.
    """
    check_loggers(loggers)
    world = world_of_environment()
    place = choose_device(device, world.local_rank)
    with noting_retries() as retries:
        data = open_data(config, train_data=train_data, val_data=val_data, train_list=train_list, reading=reading)
    start = load_initial(initial)
    identity = data.identity(config) | ({} if start is None else {"initial": start.sha256})
    folder = RunFolder(out)
    about = about_run(command=command, train_data=train_data, val_data=val_data, train_list=train_list, initial=initial)

    def assembled(checkpoint: SavedCheckpoint | None) -> tuple[Run, Position]:
        return assemble(
            config,
            data,
            folder,
            checkpoint,
            device=place,
            num_workers=num_workers,
            world=world,
            parallel=parallel,
            micro_batch_size=micro_batch_size,
            compile_blocks=compile_blocks,
            checkpoint_blocks=checkpoint_blocks,
            initial=start,
            saver=CheckpointSaver(world, asynchronous=async_checkpoints, format=checkpoint_format, log=log),
        )

    with joined(world, place), _at_home(folder, identity, about, world):
        last = world.first_says(folder.last_checkpoint)
        checkpoint = None if last is None else _read(last)
        if checkpoint is not None and checkpoint.manifest.step >= config.steps:
            if world.writes:
                log(f"{out} is finished: step {checkpoint.manifest.step} of {config.steps}, {checkpoint.path}")
            return checkpoint.path
        # Seeds set for the run do not reach the caller's generators.
        with torch.random.fork_rng(devices=[] if place.type == "cpu" else [place]):
            run, position = assembled(checkpoint)
            check_memory(run, checkpoint_blocks=checkpoint_blocks, parallel=parallel, limit=memory_limit, log=log)
            if world.writes:
                _begin(run, position, log)
            shown = loggers if world.writes else ()
            with (
                folder.shown_by(shown, config=config_to_json(config), start_step=position.step),
                stop_requests(speaks=world.local_rank == 0) as request,
                closing(run.saver),
                noting_retries(retries),
            ):
                patience = reading.patience
                _run_steps(run, position, request, retries, num_workers, patience, progress=progress)
            if world.writes and (num_skipped := folder.num_skipped()):
                log(f"{num_skipped} unreadable samples were replaced; {folder.path / 'skipped.jsonl'} says why")
            if world.writes and (changes := folder.caption_changes()):
                said = ", ".join(f"{count} {name.removeprefix('captions_')}" for name, count in changes.items())
                log(f"captions as they were shown: {said}; metrics.jsonl counts them step by step")
    return folder.checkpoint_path(config.steps)


def _read(path: Path) -> SavedCheckpoint:
    """The checkpoint to continue from. A damaged one is not passed over in silence: steps would be lost unnoticed.

    Raises:
        ResumeError: it is damaged; names what to remove.
    """
    try:
        return read_saved(path)
    except CheckpointError as error:
        raise ResumeError(
            f"the newest checkpoint is damaged: {error}; or remove {path} and repeat the command, which then continues "
            "from the checkpoint before"
        ) from error


@contextmanager
def _at_home(
    folder: RunFolder, identity: Mapping[str, object], about: Mapping[str, object], world: World
) -> Iterator[None]:
    """Claim the folder and keep others out of it, as the first process; the others learn whether it could."""
    with ExitStack() as held:

        def enter() -> None:
            folder.claim(identity, about)
            held.enter_context(folder.locked())

        world.first_says(enter)
        yield


def _begin(run: Run, position: Position, log: Callable[[str], None]) -> None:
    """Cut the records back to where the run stands, and say what is going to happen."""
    run.folder.remove_unfinished()
    for line in run.folder.rewind(position.step):
        log(line)
    run.folder.add_cost_basis(cost_basis(run.config, step=position.step, device=run.device, num_devices=run.world.size))
    for line in describe(run, position):
        log(line)


def _run_steps(
    run: Run,
    position: Position,
    request: StopRequest,
    retries: list[Retry],
    num_workers: int,
    patience: float,
    *,
    progress: bool,
) -> None:
    """All steps from `position` to the end, with their records, validations and checkpoints."""
    config, world = run.config, run.world
    batches = train_batches(
        run.data.train,
        batch_size=config.batch_size,
        start_step=position.step,
        num_steps=config.steps - position.step,
        seed=config.seed,
        num_workers=num_workers,
        share=world.share(config.batch_size),
        tolerate=config.max_bad_samples > 0,
        patience=patience,
    )
    spikes = SpikeDetector(run.folder.losses() if world.writes else ())
    # A bar that is written to a file needs no more than a line now and then.
    interval = 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=config.steps, initial=position.step, desc=run.folder.path.name, unit="step", mininterval=interval,
        disable=not (progress and world.writes),
    ) as bar:  # fmt: skip
        started, trouble = time.perf_counter(), None
        while position.step < config.steps:
            batch, data_trouble = _next(batches)
            if data_trouble is not None:
                record_reads(run, position, retries, gather=False)
            if world.agree(trouble or data_trouble or run.saver.trouble, stop=bool(request)):
                raise _stopped(run, position, request)
            assert batch is not None
            metrics = train_step(run, position, batch)
            now = time.perf_counter()
            seconds = now - started
            position = position.after(config.batch_size, metrics.num_tokens, seconds, num_devices=world.size)
            count_skipped(run, position, batch, metrics)
            trouble = record_step(run, position, metrics, seconds, spikes)
            is_due = _reach(run, position, bar, metrics.loss)
            reads_trouble = record_reads(run, position, retries, gather=is_due)
            trouble = trouble or reads_trouble
            started = time.perf_counter()
        world.agree(trouble)
        run.saver.wait()


def _next(batches: Iterator[Batch]) -> tuple[Batch | None, PretrainError | None]:
    """The next batch, or why there is none."""
    try:
        return next(batches), None
    except DataError as error:
        return None, error


def _reach(run: Run, position: Position, bar: tqdm, loss: float) -> bool:
    """Validate and save where the settings say so, and move the bar; whether they said so."""
    config, step = run.config, position.step
    saves = step == config.steps or (config.checkpoint_every > 0 and step % config.checkpoint_every == 0)
    validates = saves or step % config.validate_every == 0
    if validates:
        val_loss = record_validation(run, position)
        bar.set_description_str(f"{run.folder.path.name} val {val_loss:.4f}", refresh=False)
    if saves:
        save_checkpoint(run, position)
    bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
    bar.update()
    return validates


def _stopped(run: Run, position: Position, request: StopRequest) -> Interrupted:
    """Save the last step, if that is not done yet, and say how to go on; every process calls it."""
    number = request.number or signal.SIGTERM  # another process of the run was asked
    path = run.folder.checkpoint_path(position.step)
    run.saver.wait()
    if position.step > 0 and run.world.first_says(run.folder.last_checkpoint) != path:
        save_checkpoint(run, position)
        run.saver.wait()
    done = f"step {position.step} of {run.config.steps} is saved" if position.step else "no step was finished"
    return Interrupted(
        number,
        f"stopped by {signal.Signals(number).name}; {done} in {run.folder.path}; the same command continues from there",
    )
