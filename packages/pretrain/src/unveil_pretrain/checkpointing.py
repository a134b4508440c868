"""What happens at the milestones of a run: a checkpoint, a loss that is no number."""

import time

import torch
from torch import Tensor
from unveil_backbones import save
from unveil_backbones.flops import count_cost
from unveil_backbones.manifest import Manifest, Preprocessing

from unveil_pretrain.errors import DivergedError
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.record import git_commit, package_versions
from unveil_pretrain.run import Run
from unveil_pretrain.train_state import Position, save_train_state

__all__ = ["diverged", "last_good", "save_checkpoint"]


def save_checkpoint(run: Run, position: Position) -> None:
    """Write the checkpoint of this step, then drop the training state of older ones.

    Raises:
        CheckpointError, OutputError: it cannot be written; earlier checkpoints stay readable.
    """
    config, objective = run.config, run.objective
    card = objective.card()
    manifest = Manifest(
        encoder=objective.encoder.spec,
        text=objective.text_spec,
        preprocessing=Preprocessing(image_size=config.image_size, mean=config.pixel_mean, std=config.pixel_std),
        objective=config.objective.name,
        mask=dict(card.mask),
        realised_ratio=card.realised_ratio,
        seed=config.seed,
        step=position.step,
        samples_seen=position.samples_seen,
        unique_samples=len(run.data.train),
        tokens_seen=position.tokens_seen,
        flops=_encoder_flops(run, position),
        device_seconds=position.seconds,
        data_hash=run.data.train.content_hash,
        val=run.folder.validation_curve(),
        passport=run.passport,
        num_parameters=objective.encoder.num_parameters,
        versions=package_versions(),
        git_commit=git_commit(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    save(
        run.folder.checkpoint_path(position.step),
        encoder=objective.encoder,
        manifest=manifest,
        heads=objective.heads(),
        tokenizer_json=objective.tokenizer_json,
        extra=lambda folder: save_train_state(folder, model=objective, optimizer=run.optimizer, position=position),
    )
    run.folder.drop_old_train_states()


def _encoder_flops(run: Run, position: Position) -> float:
    """Floating point operations of the image encoder so far: text tower, decoder and validation are not counted."""
    encoder, samples = run.objective.encoder, max(1, position.samples_seen)
    kept = position.tokens_seen // samples if encoder.accepts_subset else None
    cost = count_cost(encoder.spec, image_size=run.config.image_size, num_kept=kept)
    return float(position.samples_seen * cost.training_flops)


def diverged(run: Run, position: Position, inputs: Inputs, losses: Tensor, what: str) -> DivergedError:
    """The error for an update that is not finite; writes failure.json, with which the step can be replayed.

    Args:
        run: The run; its weights are still those before the step.
        position: Where it stands; `position.step` is the failed step.
        inputs: The batch of the step.
        losses: Its per-sample losses [b].
        what: "loss" or "gradient norm".
    """
    ids = inputs.sample_ids.tolist()
    finite = torch.isfinite(losses).tolist()
    suspects = [sample_id for sample_id, good in zip(ids, finite, strict=True) if not good] or ids
    last = run.folder.last_checkpoint()
    record = run.folder.write_failure(
        {
            "step": position.step,
            "what": what,
            "sample_ids": ids,
            "epochs": inputs.epochs.tolist(),
            "losses": [value if good else None for value, good in zip(losses.tolist(), finite, strict=True)],
            "last_checkpoint": None if last is None else last.name,
        }
    )
    shown = ", ".join(str(sample_id) for sample_id in suspects[:4])
    more = f" and {len(suspects) - 4} more" if len(suspects) > 4 else ""
    return DivergedError(
        f"the {what} is not finite at step {position.step} (samples {shown}{more}; batch in {record}); "
        f"{last_good(run)}; "
        "lower base_lr or clip_norm, or use float32, in a new --out"
    )


def last_good(run: Run) -> str:
    """Where a person can go back to, in words."""
    last = run.folder.last_checkpoint()
    return "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
