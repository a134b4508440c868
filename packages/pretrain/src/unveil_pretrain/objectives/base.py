"""The protocol of an objective: embed → mask → encode → predict → one loss per sample.

An objective whose samples meet each other (contrastive losses) also splits forward() into two halves, so that a batch
can be encoded in parts and by several processes: `encode_samples` for each part, `compare` once over the whole batch.

An objective is one module that owns the encoder and whatever is thrown away after pre-training, and one frozen
dataclass with its settings that builds it. The loop, validation, checkpoints and the command line know only this file:
a new objective is one new file, and a recipe that names its settings class.

Shapes: b samples, c h w pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from unveil_backbones import Encoder
from unveil_backbones.manifest import TextSpec

from unveil_pretrain.data.captions import MAX_CHARACTERS
from unveil_pretrain.data.clip_sampling import ClipSettings
from unveil_pretrain.errors import ConfigError

__all__ = [
    "BuildContext",
    "Encoded",
    "Gather",
    "Inputs",
    "LossOutput",
    "Objective",
    "ObjectiveConfig",
    "SampleImages",
    "Scored",
    "ValidationCard",
    "no_images",
]


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch on the device, pixels normalised.

    Attributes:
        images: Pixels after subtracting the mean and dividing by the standard deviation of the preprocessing; clips
            have an axis t of frames.
        sample_ids: Stable ids; with the epoch and the seed they decide the mask.
        epochs: The epoch in which each sample is seen; zero in validation.
        captions: One per image, or None for images alone.
        all_captions: In validation of pairs every caption of each image; empty otherwise.
    """

    images: Float[Tensor, "b c *t h w"]
    sample_ids: Int64[Tensor, " b"]
    epochs: Int64[Tensor, " b"]
    captions: Sequence[str] | None
    all_captions: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What one forward pass gives: the loss of each sample, and how many image tokens the encoder processed."""

    per_sample: Float[Tensor, " b"]
    num_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What validation learns from some samples.

    Attributes:
        losses: Views of the loss by name, "loss" first of all; a value per sample.
        rows: What `Objective.set_scores` needs of the whole validation set; tensors whose first axis runs over the
            samples, or over things of the samples in the order of the samples. Joined on the CPU.
    """

    losses: Mapping[str, Float[Tensor, " b"]]
    rows: Mapping[str, Shaped[Tensor, "r *e"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationCard:
    """What an objective adds to the passport of its validation loss."""

    target_normalisation: str
    """How the target is normalised, for example "window47" or "none"."""
    reduction: str
    """How values become one loss per sample."""
    mask: dict[str, str | int | float]
    """The masking strategy's own description."""
    realised_ratio: float
    """Share of tokens hidden after rounding."""
    negative_pool: int = 0
    """Contrastive objectives: pairs that are compared with each other; 0 where samples do not meet."""


SampleImages = Callable[[int], Iterator[Float[Tensor, "b c h w"]]]
"""Up to so many training images, batch by batch, under the fixed crop, normalised: a seeded subset, in data order."""


def no_images(most: int) -> Iterator[Float[Tensor, "b c h w"]]:
    """Stands where nobody has training images.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"{most} training images are wanted and there are none; continue from a checkpoint, or give data")


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What an objective may need besides its settings when it is built."""

    encoder: Encoder
    """A fresh encoder."""
    image_size: tuple[int, int]
    """Height and width of the training images in pixels."""
    captions: Callable[[int], list[str]]
    """Gives the captions of up to so many training samples; only called by objectives with text."""
    tokenizer_json: str | None
    """The tokenizer of the checkpoint that a run continues from, or None at the start."""
    images: SampleImages = no_images
    """Gives up to so many training images; only called by objectives that take something from the data first."""
    stored_heads: Mapping[str, Tensor] | None = None
    """The heads of the checkpoint that a run continues from, or None at the start: what was taken from the data then.
    """


@dataclass(frozen=True, slots=True)
class Encoded:
    """What `compare` needs of some samples.

    Attributes:
        embeddings: One or several tensors, each with a row per sample, that meet those of other samples.
        own: Loss of each sample that involves no other sample, already weighted; None where there is none.
        num_tokens: Image tokens the encoder processed.
    """

    embeddings: tuple[Float[Tensor, "b e"], ...]
    own: Float[Tensor, " b"] | None
    num_tokens: int


@runtime_checkable
class Gather(Protocol):
    """Joins the rows of all processes, in rank order; gradients flow back to the process that a row came from."""

    def __call__(self, rows: Float[Tensor, "b e"]) -> Float[Tensor, "g e"]:
        """All rows of the global batch; the rows themselves with a single process."""
        ...


class Objective(nn.Module, ABC):
    """A pre-training task around `self.encoder`.

    Attributes:
        OPTIMISATIONS: Name of each faster way of computing the same, outside of the encoder, and one sentence about it.
    """

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType({})

    encoder: Encoder
    encoder_prefix: ClassVar[str] = "encoder."
    """Where the encoder's tensors are in the state dict of the objective."""
    head_prefix: ClassVar[str] = "objective."
    """What the names of all other tensors start with in a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._optimisations = frozenset(self.OPTIMISATIONS)

    @property
    def optimisations(self) -> frozenset[str]:
        """Names of the optimisations in use; all of `OPTIMISATIONS` at first."""
        return self._optimisations

    def set_optimisations(self, names: Collection[str]) -> None:
        """Use these optimisations and no others; those of the encoder are its own. Results stay equal up to rounding.

        Raises:
            ConfigError: a name is unknown.
        """
        unknown = set(names) - set(self.OPTIMISATIONS)
        if unknown:
            raise ConfigError(
                f"this objective has no optimisations {sorted(unknown)}; it has: "
                f"{', '.join(self.OPTIMISATIONS) or 'none'}; leave the others out"
            )
        self._optimisations = frozenset(names)

    @abstractmethod
    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Loss of each sample under the masks of (seed, epoch, sample id)."""

    @abstractmethod
    def card(self) -> ValidationCard:
        """What a reader must know to compare this objective's validation losses."""

    @property
    def couples_samples(self) -> bool:
        """Whether the loss of a sample depends on the others of its batch: `encode_samples` and `compare` exist."""
        return False

    def encode_samples(self, inputs: Inputs, *, seed: int) -> Encoded:
        """First half of forward() for a part of a batch; only if `couples_samples`."""
        raise NotImplementedError(f"{type(self).__name__} does not couple samples; call it instead")

    def compare(
        self, embeddings: tuple[Float[Tensor, "b e"], ...], *, first: int, gather: Gather
    ) -> Float[Tensor, " b"]:
        """Second half of forward(): the loss of each sample of this process among the global batch.

        Args:
            embeddings: `Encoded.embeddings` of this process's samples.
            first: Position of its first sample in the global batch.
            gather: Joins the rows of all processes.

        Returns:
            Losses whose sum over all processes, divided by the global batch, is the loss of the batch; `Encoded.own` is
            not included.
        """
        raise NotImplementedError(f"{type(self).__name__} does not couple samples; call it instead")

    def after_update(self, progress: float) -> None:
        """Called after every optimiser step, `progress` in (0, 1] of the run: teachers that follow their students."""
        del progress

    @property
    def group_size(self) -> int:
        """Samples that validation must score together; 1 where samples do not depend on each other."""
        return 1

    def validation_losses(self, inputs: Inputs, *, seed: int, chunk_size: int) -> dict[str, Float[Tensor, " b"]]:
        """Per-sample losses under frozen masks: "loss", and further views by name.

        Args:
            inputs: A multiple of `group_size` samples.
            seed: Seed of the validation masks.
            chunk_size: Samples to encode at once; the result does not depend on it beyond rounding.
        """
        del chunk_size
        return {"loss": self(inputs, seed=seed).per_sample}

    def score_samples(self, inputs: Inputs, *, seed: int, chunk_size: int) -> Scored:
        """What validation calls: `validation_losses`, and what `set_scores` needs of the same samples.

        With several masks per image it is called again for every mask, with `inputs.epochs` 0, 1, 2, ...; a view that
        no mask can change may be left out after the first, and rows are only kept of the first.
        """
        return Scored(losses=self.validation_losses(inputs, seed=seed, chunk_size=chunk_size))

    def set_scores(self, rows: Mapping[str, Shaped[Tensor, "r *e"]]) -> dict[str, Float[Tensor, " n"]]:
        """Scores that need all n validation samples at once, such as retrieval; none by default.

        Args:
            rows: `Scored.rows` of the whole validation set, in the order of the samples.

        Returns:
            By name ("image_recall_1"), a value of each sample whose mean is the score; mean and standard error go into
            val.jsonl and to the loggers, the values into the table of the validation. No name is that of a loss.
        """
        del rows
        return {}

    def no_weight_decay(self) -> frozenset[str]:
        """Parameters (names within this module) that are exempt from weight decay beyond one-dimensional ones."""
        return frozenset(self.encoder_prefix + name for name in self.encoder.no_weight_decay())

    def block_names(self) -> tuple[str, ...]:
        """Module paths of the transformer blocks of all towers, in the order of the modules: the units of FSDP.

        Only blocks that always run by being called; the parameters of others are gathered with the whole model's.
        """
        paths = [name.rpartition(".") for name, _ in self.named_modules()]
        return tuple(
            f"{parent}.{last}" for parent, _, last in paths if last.isdigit() and parent.rpartition(".")[2] == "blocks"
        )

    @property
    def text_spec(self) -> TextSpec | None:
        """The text tower's description, where there is one."""
        return None

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer, where there is one."""
        return None

    def heads(self) -> dict[str, Tensor]:
        """Every tensor outside the encoder, under the names that a checkpoint uses."""
        # Detached one by one: the encoder's many, where they are parts, would take as long as copying them.
        return {
            self.head_prefix + name: value.detach()
            for name, value in self.state_dict(keep_vars=True).items()
            if not name.startswith(self.encoder_prefix)
        }

    def load_heads(self, heads: Mapping[str, Tensor]) -> None:
        """Copy back what `heads` gave.

        Raises:
            ConfigError: a tensor is missing, unexpected or of another shape.
        """
        expected = self.heads()
        differing = sorted(
            name
            for name in expected.keys() | heads.keys()
            if name not in expected or name not in heads or expected[name].shape != heads[name].shape
        )
        if differing:
            raise ConfigError(
                f"the checkpoint's heads do not fit this objective ({', '.join(differing[:3])}); "
                "continue with the settings the run was started with"
            )
        with torch.no_grad():
            for name, value in expected.items():
                value.copy_(heads[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig(ABC):
    """Settings of an objective; a subclass per objective, in the objective's own file."""

    name: ClassVar[str]
    """The objective's name in manifests and passports."""
    needs_captions: ClassVar[bool] = False
    """Whether training samples are image-caption pairs."""

    def clip_settings(self) -> ClipSettings | None:
        """How clips are taken from videos where the samples are clips; None where they are images."""
        return None

    def caption_limit(self) -> int:
        """Characters after which captions are cut, where samples are pairs."""
        return MAX_CHARACTERS

    @abstractmethod
    def build(self, context: BuildContext) -> Objective:
        """The objective around `context.encoder`, freshly initialised from torch's generator.

        Raises:
            ConfigError: the encoder or image size does not suit the objective.
        """
