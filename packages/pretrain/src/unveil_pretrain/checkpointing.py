"""A checkpoint of a run: its weights, its story, and the state it continues from."""

import time

from unveil_backbones import save
from unveil_backbones.flops import count_cost
from unveil_backbones.manifest import Manifest, Preprocessing

from unveil_pretrain.config import objective_to_json
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.record import git_commit, package_versions
from unveil_pretrain.run import Run
from unveil_pretrain.train_state import Position, save_train_state

__all__ = ["last_good", "save_checkpoint"]


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
        device_seconds=position.device_seconds,
        data_hash=run.data.train.content_hash,
        val=run.folder.validation_curve(),
        passport=run.passport,
        num_parameters=objective.encoder.num_parameters,
        versions=package_versions(),
        git_commit=git_commit(),
        initial=run.initial,
        objective_settings=objective_to_json(config.objective),
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
    """Floating point operations of the trained image encoder so far.

    Text tower, decoder, predictor, an I-JEPA's teacher and validation are not counted; both halves of a SplitMask are,
    and of sparse SimMIM the visible units alone. An objective that the planner does not know counts with the tokens
    that it has reported.
    """
    known = sample_flops(run.config).parts.get("encoder")
    if known is not None:
        return position.samples_seen * known
    encoder, samples = run.objective.encoder, max(1, position.samples_seen)
    kept = position.tokens_seen // samples if encoder.accepts_subset else None
    cost = count_cost(encoder.spec, image_size=run.config.image_size, num_kept=kept)
    return float(position.samples_seen * cost.training_flops)


def last_good(run: Run) -> str:
    """Where a person can go back to, in words."""
    last = run.folder.last_checkpoint()
    return "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
