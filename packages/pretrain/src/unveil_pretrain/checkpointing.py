"""A checkpoint of a run: its weights, its story, and the state it continues from."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from unveil_backbones import save
from unveil_backbones.flops import count_cost
from unveil_backbones.manifest import Manifest, Preprocessing
from unveil_backbones.sharded import SHARDED_WEIGHTS, save_sharded

from unveil_pretrain.config import objective_to_json
from unveil_pretrain.objectives.base import ValidationCard
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.record import git_commit, package_versions
from unveil_pretrain.run import Run
from unveil_pretrain.saving import write_together
from unveil_pretrain.stored import ENCODER_PREFIX, HEADS_PREFIX, weights_of
from unveil_pretrain.tensor_parts import any_sharded, whole_tensors, write_tensors
from unveil_pretrain.train_state import Position, optimizer_tensors, save_train_state

__all__ = ["last_good", "save_checkpoint"]


_WEIGHTS = "weights.safetensors"


def save_checkpoint(run: Run, position: Position) -> None:
    """Write the checkpoint of this step, then drop the training state of older ones; every process calls it.

    In the background, if the run's saver works there: then it returns when the weights may change again.

    Raises:
        CheckpointError, OutputError: it, or the one before, cannot be written; in every process. Earlier checkpoints
            stay readable.
    """
    saver, world = run.saver, run.world
    saver.wait()
    whole = saver.format == "contract" or position.step >= run.config.steps
    weights, optimizer = weights_of(run.objective), optimizer_tensors(run.objective, run.optimizer)
    together = any_sharded({**weights, **optimizer})
    put_together: dict[str, Tensor] = {}
    if whole:
        parts = {name: value for name, value in weights.items() if isinstance(value, DTensor)}
        put_together = whole_tensors(parts, keep=world.writes)
        weights = {name: value for name, value in weights.items() if name not in parts and world.writes}
    mine = {f"w:{name}": value for name, value in weights.items()} | {f"o:{n}": value for n, value in optimizer.items()}
    copies = saver.copied(mine if together or world.writes else {})
    weights = {name: copies[f"w:{name}"] for name in weights if f"w:{name}" in copies} | put_together
    optimizer = {name: copies[f"o:{name}"] for name in optimizer if f"o:{name}" in copies}
    card = run.objective.card()

    def write(group: dist.ProcessGroup | None) -> None:
        def fill(folder: Path) -> None:
            if not whole:
                write_tensors(folder / SHARDED_WEIGHTS, _WEIGHTS, weights, writes=world.writes, group=group)
            save_train_state(folder, tensors=optimizer, position=position, writes=world.writes, group=group)

        def make(fill: Callable[[Path], None]) -> None:
            _make_directory(run, position, card, weights if whole else None, fill)

        if together:
            write_together(world, group, make=make, fill=fill)
        elif world.writes:
            make(fill)

    saver.start(position.step, write)


def _make_directory(
    run: Run,
    position: Position,
    card: ValidationCard,
    weights: Mapping[str, Tensor] | None,
    fill: Callable[[Path], None],
) -> None:
    """The directory with its manifest, around what `fill` writes; of the contract if there are whole `weights`."""
    path, manifest = run.folder.checkpoint_path(position.step), _manifest(run, position, card)
    encoder, tokenizer_json = run.objective.encoder, run.objective.tokenizer_json
    if weights is None:
        save_sharded(path, encoder=encoder, manifest=manifest, tokenizer_json=tokenizer_json, fill=fill)
    else:
        save(
            path,
            encoder=encoder,
            manifest=manifest,
            weights=_without(ENCODER_PREFIX, weights),
            heads=_without(HEADS_PREFIX, weights),
            tokenizer_json=tokenizer_json,
            extra=fill,
        )
    run.folder.drop_old_train_states()


def _without(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _manifest(run: Run, position: Position, card: ValidationCard) -> Manifest:
    config, objective = run.config, run.objective
    return Manifest(
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
        # In the background, a later validation may have been recorded meanwhile.
        val=tuple(point for point in run.folder.validation_curve() if point.step <= position.step),
        passport=run.passport,
        num_parameters=objective.encoder.num_parameters,
        versions=package_versions(),
        git_commit=git_commit(),
        initial=run.initial,
        objective_settings=objective_to_json(config.objective),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


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
    run.saver.close()  # one that is being written counts
    last = run.folder.last_checkpoint()
    return "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
