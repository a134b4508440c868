"""Peak memory of a training step, from the settings alone, on one of the processes of a run.

A step holds the most in one of three moments, and the largest is the prediction:

* backward: weights, AdamW's two averages, and whatever the forward and backward pass of a micro-batch hold, gradients
  included, which is found by running them on tensors without data (`simulation.py`);
* messages: where whole copies of the weights are trained, the sum over processes packs all gradients into messages
  (`gradient_sums.py`), and at the end of the backward pass there is a second copy of the gradients;
* update: on CUDA AdamW computes on all weights at once and makes one more copy of them; on a CPU two of the largest.

Under FSDP2 (`fully_shard` by block, in s shards) weights, gradients and averages are one s-th each. Whole at any time
are: what lies outside of blocks, and its gradients; two blocks, the one in use and the one that is gathered ahead; the
gradients of one block, and the message in which they are summed, in float32. Under bfloat16 blocks are gathered, and
have gradients, in two bytes. Between micro-batches nothing is summed, so that with several of them each process holds
whole gradients in float32.

Not in it: the process itself and its libraries (a few hundred MB; on CUDA also the context, some 0.5 GB), what kernels
take and give back inside, and what an allocator cannot use again. How far it is off is in docs/planning.md.
"""

from dataclasses import dataclass
from functools import lru_cache

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.planning.layouts import Device
from unveil_pretrain.planning.simulation import Gradients, Pairs, Simulated, simulate

__all__ = ["ERROR", "MemoryLine", "StepMemory", "step_memory"]

ERROR = 0.15
"""How far a prediction may be off, as a share of what is measured."""

_FLOAT = 4
_SMALL = (2, 4)  # micro-batches that a line is drawn through
_HALF_SHARE = 0.5  # two bytes of four


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """Bytes of a training step on one process."""

    weights: int
    """Parameters and buffers that this process keeps: all of them, or its shard."""
    optimizer: int
    """AdamW's averages of these."""
    gradients: int
    """One number for each of these, at the end of the backward pass."""
    activations: int
    """What else the forward and backward pass hold at their peak; gradients as far as there are any by then."""
    gathered: int
    """FSDP2: what is whole at the same time: blocks, their gradients and messages, and all outside of blocks."""
    messages: int
    """Gradients packed for their sum over processes."""
    update: int
    """What AdamW makes besides its averages."""
    images: int
    """On a CPU: the bytes of this batch and of the next."""
    micro_batch: int
    """Samples computed at once."""

    @property
    def moments(self) -> dict[str, int]:
        """Bytes in each of the moments of a step in which it may hold the most."""
        kept = self.weights + self.optimizer + self.images
        return {
            "backward": kept + self.activations + self.gathered,
            "messages": kept + self.gradients + self.messages,
            "update": kept + self.gradients + self.update,
        }

    @property
    def total(self) -> int:
        """The peak: the largest moment."""
        return max(self.moments.values())

    @property
    def moment(self) -> str:
        """The one in which it is reached."""
        return max(self.moments, key=lambda name: self.moments[name])


def step_memory(
    config: MimConfig | FlipConfig,
    *,
    micro_batch: int,
    device: Device,
    checkpointing: bool = False,
    num_shards: int = 1,
    num_replicas: int = 1,
) -> StepMemory:
    """Predict the peak memory of a step; nothing of its size is allocated.

    Args:
        config: What is trained; its batch is dealt out to `num_shards` × `num_replicas` processes.
        micro_batch: Samples computed at once, at least 1; more than a process has count as all of them.
        device: Where.
        checkpointing: Whether the blocks of the encoder forget their inner activations.
        num_shards: Parts that FSDP2 cuts the weights into; 1 for whole copies.
        num_replicas: Copies of the weights.

    Raises:
        ConfigError: the objective is not known here, there is no sample, or the batch cannot be dealt out.
        BackboneError: the encoder is unknown or the image size does not suit it.
    """
    own = _own(config, micro_batch, num_shards, num_replicas)
    micro = min(micro_batch, own)
    num_processes = num_shards * num_replicas
    gradients: Gradients = "dropped" if num_shards > 1 else "there" if micro < own else "none"
    traced = _simulated(config, micro, own, num_processes, device == "cpu", checkpointing, gradients)
    return _assembled(config, traced, traced.peak, micro, own, device, num_shards, num_replicas)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLine:
    """The memory of steps of one configuration on one kind of device, for any micro-batch and number of processes.

    Two small micro-batches are simulated; larger ones lie on the line through them. Gradients count as if they were
    there from the beginning, and a pair loss by a formula, so that it is a little above `step_memory`.
    """

    config: MimConfig | FlipConfig
    """What is trained."""
    device: Device
    """Where."""
    checkpointing: bool = False
    """Whether the blocks of the encoder forget their inner activations."""

    @property
    def num_trained(self) -> int:
        """Parameters that have gradients."""
        return self._traced("there")[0].trained // _FLOAT

    def at(self, micro_batch: int, *, num_shards: int = 1, num_replicas: int = 1) -> StepMemory:
        """As `step_memory`."""
        own = _own(self.config, micro_batch, num_shards, num_replicas)
        micro = min(micro_batch, own)
        gradients: Gradients = "dropped" if num_shards > 1 else "there"
        small, large = self._traced(gradients)
        slope = (large.peak - small.peak) / (_SMALL[1] - _SMALL[0])
        peak = small.peak + slope * (micro - _SMALL[0])
        held, loss = _pair_loss(self.config, own, num_shards * num_replicas)
        peak = max(peak + held, loss) if micro < own else peak + loss
        return _assembled(self.config, small, round(peak), micro, own, self.device, num_shards, num_replicas)

    def _traced(self, gradients: Gradients) -> tuple[Simulated, Simulated]:
        small, large = (
            _simulated(self.config, size, size, 1, self.device == "cpu", self.checkpointing, gradients)
            for size in _SMALL
        )
        return small, large

    def largest(self, available: float, *, num_shards: int = 1, num_replicas: int = 1) -> int:
        """The largest micro-batch whose step stays within so many bytes; 0 where not even one sample does.

        The whole share of a process is tried first: in shards, several micro-batches keep whole gradients between them,
        so that a little less than the whole may take more. Among the others more samples take more.

        Raises:
            ConfigError: the batch cannot be dealt out to the processes.
        """

        def fits(micro_batch: int) -> bool:
            return self.at(micro_batch, num_shards=num_shards, num_replicas=num_replicas).total <= available

        whole = self.config.batch_size // (num_shards * num_replicas)
        if fits(whole):
            return whole
        low, high = 0, whole - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low


def _own(config: MimConfig | FlipConfig, micro_batch: int, num_shards: int, num_replicas: int) -> int:
    """Samples of one process.

    Raises:
        ConfigError: a number is below 1, or the batch cannot be dealt out.
    """
    if min(micro_batch, num_shards, num_replicas) < 1:
        raise ConfigError(
            f"micro_batch is {micro_batch}, num_shards {num_shards} and num_replicas {num_replicas}; "
            "give at least 1 sample, and 1 of each"
        )
    num_processes = num_shards * num_replicas
    if config.batch_size % num_processes:
        raise ConfigError(
            f"a batch of {config.batch_size} cannot be dealt out equally to {num_processes} processes; give a multiple"
        )
    return config.batch_size // num_processes


def _assembled(
    config: MimConfig | FlipConfig,
    traced: Simulated,
    peak: int,
    micro: int,
    own: int,
    device: Device,
    num_shards: int,
    num_replicas: int,
) -> StepMemory:
    """What a simulated micro-batch means for a process of a run."""
    half, sharded = config.precision == "bfloat16", num_shards > 1
    trained = -(-traced.trained // num_shards)
    gathered = _gathered(traced, half) + (trained if micro == own else traced.trained) if sharded else 0
    return StepMemory(
        weights=-(-traced.weights // num_shards),
        optimizer=2 * trained,
        gradients=trained,
        activations=peak,
        gathered=gathered,
        messages=trained if num_replicas > 1 and not sharded else 0,
        update=trained if device == "cuda" else 2 * traced.largest // num_shards,
        images=0 if device == "cuda" else 2 * own * 3 * config.image_size[0] * config.image_size[1],
        micro_batch=micro,
    )


def _pair_loss(config: MimConfig | FlipConfig, own: int, num_processes: int) -> tuple[int, int]:
    """Bytes of embeddings and their gradients that stay, and of a pair loss in all; of other objectives none."""
    objective = config.objective
    if not isinstance(objective, FLIPConfig):
        return 0, 0
    every, width = own * num_processes, objective.embed_dim
    held = _FLOAT * 4 * own * width  # images and texts, and the gradients of both
    copies = 2 if num_processes == 1 else 4  # texts and their gradients; on several processes also before joining
    blocks = 3 * min(objective.loss_chunk, own) * every
    return held, held + _FLOAT * (2 * own * width + copies * every * width + blocks)


@lru_cache(maxsize=64)
def _simulated(
    config: MimConfig | FlipConfig,
    micro: int,
    own: int,
    num_processes: int,
    explicit_attention: bool,
    checkpointing: bool,
    gradients: Gradients,
) -> Simulated:
    return simulate(
        config,
        micro_batch=micro,
        pairs=Pairs(own=own, num_processes=num_processes),
        explicit_attention=explicit_attention,
        checkpointing=checkpointing,
        gradients=gradients,
    )


def _gathered(traced: Simulated, half: bool) -> int:
    """What FSDP2 has whole besides the shards."""
    share = _HALF_SHARE if half else 1.0
    in_use_and_next, gradients, message = 2 * share * traced.block, share * traced.block, traced.block
    return round(2 * traced.root + in_use_and_next + gradients + message)
