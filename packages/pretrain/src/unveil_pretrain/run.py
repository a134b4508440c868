"""The parts of a run, put together before its first step: data, device, model, optimiser, validation sets."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from unveil_backbones import Checkpoint, create
from unveil_backbones.manifest import Passport

from unveil_pretrain.config import FlipConfig, MimConfig, RunConfig
from unveil_pretrain.data import ClipDataset, ImageDataset, PairDataset, Samples
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import BuildContext, Objective
from unveil_pretrain.optim import build_optimizer
from unveil_pretrain.parallel import Parallel, is_sharded, shard
from unveil_pretrain.passports import make_passport
from unveil_pretrain.record import RunFolder
from unveil_pretrain.sample_images import images_of_samples
from unveil_pretrain.saving import CheckpointSaver
from unveil_pretrain.sources import RunData, RunSamples, captions_of_samples
from unveil_pretrain.starting import begin_with
from unveil_pretrain.step import GradientStep
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.stored import SavedCheckpoint, fill_from_parts
from unveil_pretrain.train_state import Position, load_train_state
from unveil_pretrain.validate import KeyOrder, ValidationSet, key_ordered
from unveil_pretrain.world import World

__all__ = ["DeviceName", "Run", "assemble", "choose_device", "describe"]

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything the loop works with; model and optimiser change as it goes."""

    config: MimConfig | FlipConfig
    data: RunData
    folder: RunFolder
    objective: Objective
    optimizer: torch.optim.Optimizer
    normalise: Normaliser
    validation: ValidationSet
    gap: ValidationSet | None
    passport: Passport
    gradients: GradientStep
    initial: str | None = None
    """Hash of the checkpoint whose weights the run began with."""
    saver: CheckpointSaver = field(default_factory=CheckpointSaver)
    """Writes its checkpoints."""

    @property
    def world(self) -> World:
        """The processes that compute the run."""
        return self.gradients.world

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.normalise.device


def choose_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """The device to compute on; "auto" takes CUDA where there is one, and each process of a machine its own.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device is cuda, but torch sees no CUDA device; use --device cpu, or check the driver")
    return torch.device("cuda", local_rank) if available and name != "cpu" else torch.device("cpu")


def assemble(
    config: MimConfig | FlipConfig,
    data: RunData,
    folder: RunFolder,
    checkpoint: SavedCheckpoint | None,
    *,
    device: torch.device,
    num_workers: int = 0,
    world: World | None = None,
    parallel: Parallel | None = None,
    micro_batch_size: int = 0,
    compile_blocks: bool = False,
    checkpoint_blocks: bool = False,
    initial: Checkpoint | None = None,
    saver: CheckpointSaver | None = None,
) -> tuple[Run, Position]:
    """A run at its start, or at the checkpoint it continues from. Reseeds torch's generator.

    Args:
        config: What to train and how.
        data: Its data.
        folder: Where it is recorded.
        checkpoint: The checkpoint to continue from.
        device: Where this process computes.
        num_workers: Decoding processes.
        world: The processes of the run; a single one by default.
        parallel: How the weights lie on them; whole copies by default.
        micro_batch_size: Samples to compute at once on each process; 0 for all of them.
        compile_blocks: Compile the encoder's blocks by torch.compile.
        checkpoint_blocks: Compute the inside of the encoder's blocks again in the backward pass instead of keeping it.
        initial: The checkpoint whose weights the run begins with; fresh ones without it.
        saver: Writes its checkpoints; one that writes at once by default.

    Raises:
        ConfigError: encoder, objective, image size and data do not fit together.
        BackboneError: the encoder is unknown, the image size does not suit it, or the checkpoint is damaged.
        ResumeError: the checkpoint does not belong to this run.
    """
    world = world or World()
    world.share(config.batch_size)
    if micro_batch_size < 0:
        raise ConfigError(f"micro_batch_size is {micro_batch_size}; give a positive number, or 0 for all at once")
    objective = _build_objective(config, data, checkpoint, initial).train()
    depth = StochasticDepth.install(objective)
    world.copy_from_first(objective)
    objective.encoder.checkpoint_blocks = checkpoint_blocks
    if compile_blocks:
        _compile(objective)
    bfloat16 = config.precision == "bfloat16"
    shard(objective, parallel or Parallel(), world, device, bfloat16=bfloat16)
    normalise = Normaliser(mean=config.pixel_mean, std=config.pixel_std, device=device)
    optimizer = build_optimizer(
        objective, weight_decay=config.weight_decay, betas=config.betas, without_decay=objective.no_weight_decay()
    )
    position = Position()
    if checkpoint is not None:
        fill_from_parts(objective, checkpoint)
        position = load_train_state(checkpoint.path, model=objective, optimizer=optimizer)
    validation = _scored(key_ordered(data.val, objective), config, num_workers)
    run = Run(
        config=config,
        data=data,
        folder=folder,
        objective=objective,
        optimizer=optimizer,
        normalise=normalise,
        validation=validation,
        gap=_gap_set(config, data, objective, num_workers),
        passport=make_passport(
            config.objective.name,
            objective,
            validation,
            image_size=config.image_size,
            precision=config.precision,
        ),
        initial=None if initial is None else initial.sha256,
        saver=saver or CheckpointSaver(world),
        gradients=GradientStep(
            objective=objective,
            depth=depth,
            normalise=normalise,
            world=world,
            device=device,
            seed=config.seed,
            micro_batch_size=micro_batch_size,
            bfloat16=bfloat16,
        ),
    )
    return run, position


def describe(run: Run, position: Position) -> list[str]:
    """What a person should know before the first step: model, masks, effective batch, learning rate, epochs."""
    config, encoder, card = run.config, run.objective.encoder, run.objective.card()
    num_unique, samples = len(run.data.train), config.steps * config.batch_size
    lines = [
        f"{config.objective.name} on {encoder.spec.name}: {encoder.num_parameters:,} parameters in the encoder, "
        f"{card.realised_ratio:.1%} of the tokens hidden, on {run.device}",
        f"effective batch {config.batch_size} ({_cut(run)}), learning rate {config.base_lr:g} × {config.batch_size} / "
        f"{config.lr_reference_batch} = {config.lr:.3g}, warm-up {config.warmup_steps} steps",
        f"{config.steps:,} steps = {samples:,} samples = {samples / num_unique:.4g} epochs over {num_unique:,} "
        f"unique samples; validation on {len(run.validation.samples):,}, passport {run.passport.hash}",
    ]
    if run.gap is None and config.gap_images:
        lines.append("no over-fitting gap: the training samples are fewer than one negative pool")
    if position.step:
        lines.append(f"continuing at step {position.step}")
    return lines


def _cut(run: Run) -> str:
    """How a batch is cut, as in "2 processes × 4 micro-batches of 256"."""
    processes = f"{run.world.size} process{'es' if run.world.size > 1 else ''}"
    if is_sharded(run.objective):
        processes += " that share the weights"
    each, size = run.config.batch_size // run.world.size, run.gradients.micro_batch_size
    return processes if not 0 < size < each else f"{processes} × {-(-each // size)} micro-batches of {size}"


def _build_objective(
    config: MimConfig | FlipConfig, data: RunData, checkpoint: SavedCheckpoint | None, initial: Checkpoint | None
) -> Objective:
    """The model: fresh from the seed, or with the weights of the checkpoint that a run continues or begins from.

    Raises:
        ConfigError: encoder, objective and image size do not fit together.
        BackboneError: the encoder is unknown or the image size does not suit it.
    """
    source = checkpoint or initial
    torch.manual_seed(config.seed)
    clips = config.objective.clip_settings()
    if clips is None:
        encoder = create(config.encoder, image_size=config.image_size, drop_path=config.drop_path)
    else:
        encoder = create(
            config.encoder, image_size=config.image_size, drop_path=config.drop_path, num_frames=clips.num_frames
        )
    objective = config.objective.build(
        BuildContext(
            encoder=encoder,
            image_size=config.image_size,
            captions=captions_of_samples(data.train),
            tokenizer_json=None if source is None else source.tokenizer_json,
            images=images_of_samples(data.train, seed=config.seed, mean=config.pixel_mean, std=config.pixel_std),
            stored_heads=None if source is None else source.heads,
        )
    )
    if isinstance(checkpoint, Checkpoint):
        objective.encoder.load_state_dict(checkpoint.encoder.state_dict())
        objective.load_heads(checkpoint.heads)
    elif checkpoint is None and initial is not None:
        begin_with(objective, initial)
    return objective


def _compile(objective: Objective) -> None:
    """Compile the forward passes of the encoder's blocks; FSDP's hooks, which come around them, stay outside."""
    for name in objective.encoder.block_names():
        block = objective.encoder.get_submodule(name)
        block.forward = torch.compile(block.forward)


def _scored(samples: KeyOrder, config: RunConfig, num_workers: int) -> ValidationSet:
    return ValidationSet(
        samples=samples,
        mask_seed=config.val_mask_seed,
        num_masks=config.val_masks,
        batch_size=config.batch_size,
        num_workers=num_workers,
    )


def _uncropped(train: RunSamples, subset: Samples, config: RunConfig) -> RunSamples:
    """Some samples of `train` as validation would read them."""
    if isinstance(train, ClipDataset):
        return train.of_samples(subset)
    if isinstance(train, PairDataset):
        return PairDataset(subset, image_size=config.image_size, max_characters=train.max_characters)
    return ImageDataset(subset, image_size=config.image_size)


def _gap_set(config: RunConfig, data: RunData, objective: Objective, num_workers: int) -> ValidationSet | None:
    """Training images to be scored like validation images; None where they make no whole group."""
    num_images = min(config.gap_images, len(data.train))
    if num_images < max(1, objective.group_size):
        return None
    subset = data.train.shards.subset(num_images, seed=config.val_mask_seed)
    return _scored(
        KeyOrder(_uncropped(data.train, subset, config), multiple_of=objective.group_size), config, num_workers
    )
