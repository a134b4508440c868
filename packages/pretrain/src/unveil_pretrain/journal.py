"""What a run writes down after each step: metrics, spikes of the loss, samples that could not be read."""

from unveil_pretrain.data import Batch
from unveil_pretrain.data.order import step_indices
from unveil_pretrain.data.retrying import Retry, count_causes
from unveil_pretrain.errors import DataError, PretrainError
from unveil_pretrain.run import Run
from unveil_pretrain.spikes import SpikeDetector
from unveil_pretrain.train_state import Position
from unveil_pretrain.update import StepMetrics

__all__ = ["count_skipped", "record_reads", "record_step"]


def record_step(
    run: Run, position: Position, metrics: StepMetrics, seconds: float, spikes: SpikeDetector
) -> PretrainError | None:
    """Write the step down, as the first process; the error if that cannot be done, which the others have to learn."""
    if not run.world.writes:
        return None
    num_unique = len(run.data.train)
    row = {
        "step": position.step,
        "samples_seen": position.samples_seen,
        "epoch": position.samples_seen / num_unique,
        "unique_samples": min(position.samples_seen, num_unique),
        "loss": metrics.loss,
        "lr": metrics.lr,
        "grad_norm": metrics.grad_norm,
        "samples_per_second": run.config.batch_size / max(seconds, 1e-9),
        "tokens_seen": position.tokens_seen,
        "seconds": position.seconds,
        **metrics.captions.changes(),
    }
    threshold = spikes.threshold()
    try:
        run.folder.add_metrics(row)
        if spikes.is_spike(metrics.loss):
            _, indices = step_indices(num_unique, run.config.batch_size, position.step - 1, seed=run.config.seed)
            ids = run.data.train.sample_ids[indices].tolist()
            run.folder.add_spike(
                {"step": position.step, "loss": metrics.loss, "threshold": threshold, "sample_ids": ids}
            )
    except PretrainError as error:
        return error
    return None


def record_reads(run: Run, position: Position, retries: list[Retry], *, gather: bool) -> PretrainError | None:
    """Write down which reads had to be tried again, as the first process, and forget them.

    Args:
        run: The run.
        position: Where it stands.
        retries: What this process noted since it was last emptied; emptied.
        gather: Of all processes, all of which call this; otherwise the others keep theirs.

    Returns:
        The error if that cannot be done, which the others have to learn.
    """
    found = [one for part in run.world.gather_objects(tuple(retries)) for one in part] if gather else list(retries)
    if gather or run.world.writes:
        retries.clear()
    if not found or not run.world.writes:
        return None
    row = {
        "step": position.step,
        "retries": count_causes(found),
        "seconds_waited": round(sum(one.wait for one in found), 3),
        "last": f"{found[-1].source} ({found[-1].cause})",
    }
    try:
        run.folder.add_reads(row)
    except PretrainError as error:
        return error
    return None


def count_skipped(run: Run, position: Position, batch: Batch, metrics: StepMetrics) -> None:
    """Write down which samples were replaced, and stop beyond the limit.

    Raises:
        DataError: there were more than `max_bad_samples`; in every process.
    """
    if not metrics.num_skipped:
        return
    messages = [message for part in run.world.gather_objects(batch.skipped) for message in part]

    def count() -> int:
        run.folder.add_skipped(position.step, messages)
        return run.folder.num_skipped()

    total, limit = run.world.first_says(count), run.config.max_bad_samples
    if total > limit:
        raise DataError(
            f"{total} unreadable samples by step {position.step}, max_bad_samples is {limit} (last: {messages[-1]}; "
            f"all are in {run.folder.path / 'skipped.jsonl'}); repair them, see `pretrain audit`, or allow more in a "
            "new --out"
        )
