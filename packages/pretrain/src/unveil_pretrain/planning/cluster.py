"""A run on many GPUs, on paper: messages, input, checkpoints and time of a step, from stated assumptions.

Formulas, for n processes with one GPU each, P parameters, and a link of w bytes per second from each GPU:

* ddp: gradients are summed in float32 by a ring all-reduce, 2 (n - 1) / n · 4 P bytes from each GPU, during the
  backward pass of the last micro-batch (`gradient_sums.py`). A share of it is hidden behind that pass, as far as that
  lasts, which is two thirds of a micro-batch's computation;
* fsdp: weights are gathered for the forward and again for the backward pass of each micro-batch, (n - 1) / n · a P
  bytes each with a = 2 under bfloat16 and 4 otherwise; gradients are summed into shards once a step,
  (n - 1) / n · 4 P bytes. A share of it is hidden behind computation;
* pairs: every process gathers all text embeddings, and for each process a number per text; the gradients of both are
  summed by an all-reduce (`contrastive.py`). Nothing is hidden.

Within a node w is that of its own links, beyond it that of a GPU's share of the network: the slowest link of a ring
decides. No torch here but for operations and memory.
"""

from dataclasses import dataclass

__all__ = ["Assumptions", "Bytes", "Step", "fsdp_bytes", "pair_bytes", "ring_bytes", "step_of"]

_FLOAT = 4
_BACKWARD = 2 / 3  # of a micro-batch's operations
_STATE = 3  # weights and AdamW's two averages


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What a table of `pretrain plan --cluster` stands on; each is a flag."""

    gpus_per_node: int = 8
    """GPUs of a node."""
    gpu_memory: float = 80.0
    """GB (1e9 bytes) of a GPU; NVIDIA H100 SXM data sheet: 80."""
    usable: float = 0.9
    """Share of it that tensors may take; a guess: CUDA's context, NCCL and holes take the rest."""
    intra_bandwidth: float = 450.0
    """GB/s out of a GPU to others of its node; NVIDIA H100 data sheet: NVLink 900 GB/s, both directions together."""
    inter_bandwidth: float = 50.0
    """GB/s out of a GPU to other nodes; NVIDIA DGX H100 data sheet: one 400 Gb/s port for each GPU."""
    link_share: float = 0.7
    """Share of these that a collective reaches; a guess."""
    overlap: float = 0.5
    """Share of the messages about weights and gradients that computation hides; a guess."""
    kernel_mfu: float = 0.3
    """Share of the peak that computation reaches between messages; published: 0.21 to 0.29 (NeMo, ViT and CLIP g/14 on
    H100), 0.39 (torchtitan, Llama 3.1 8B, compiled)."""
    sample_bytes: float = 110e3
    """Bytes of a sample in the shards; some JPEGs of ImageNet-1K had 110 KB on average."""
    decode_rate: float = 355.0
    """Images per second that a core decodes and crops: 256 of ImageNet in 721 ms (docs/benchmarks.md, 2 workers); give
    that of your machine, which `python -m benchmarks.data` measures."""
    write_bandwidth: float = 2.0
    """GB/s that a node writes checkpoints with; a guess."""

    @property
    def capacity(self) -> float:
        """Bytes of a GPU that tensors may take."""
        return self.gpu_memory * self.usable * 1e9

    def bandwidth(self, num_gpus: int) -> float:
        """Bytes per second out of a GPU in a collective of so many."""
        within = num_gpus <= self.gpus_per_node
        slowest = self.intra_bandwidth if within else min(self.intra_bandwidth, self.inter_bandwidth)
        return slowest * self.link_share * 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes:
    """What a GPU sends in a step."""

    weights: float
    """fsdp: gathered weights."""
    gradients: float
    """Sums of gradients."""
    pairs: float
    """Embeddings of pairs, their statistics, and the gradients of both."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of a run on a cluster."""

    num_gpus: int
    sharded: bool
    """fsdp, or ddp."""
    micro_batch: int
    """Samples that a GPU computes at once."""
    memory: float
    """Bytes of a GPU at its peak."""
    fits: bool
    """Whether they are there."""
    sent: Bytes
    """What a GPU sends."""
    compute_seconds: float
    """Operations over what the GPUs reach."""
    message_seconds: float
    """All messages, hidden or not."""
    seconds: float
    """Of the step."""
    mfu: float
    """Operations over what the GPUs could do in that time."""
    samples_per_second: float
    """Of all GPUs."""
    node_input: float
    """Bytes per second that each node reads."""
    node_cores: float
    """Cores of each node that decode."""
    checkpoint_bytes: float
    """Weights and AdamW's averages."""
    checkpoint_seconds: float
    """To write them: ddp from one node, fsdp from all."""
    days: float
    """Of all steps of the run."""
    gpu_hours: float
    """Likewise."""


def ring_bytes(num_bytes: float, num_gpus: int) -> float:
    """What each GPU sends in a ring all-reduce of so many bytes."""
    return 2 * (num_gpus - 1) / num_gpus * num_bytes


def fsdp_bytes(num_parameters: float, num_gpus: int, *, num_micro_batches: int, half: bool) -> tuple[float, float]:
    """What each GPU sends of gathered weights, and of gradients."""
    share = (num_gpus - 1) / num_gpus
    one = share * num_parameters * (_FLOAT // 2 if half else _FLOAT)
    return 2 * num_micro_batches * one, share * num_parameters * _FLOAT


def pair_bytes(batch: int, width: int, num_gpus: int) -> float:
    """What each GPU sends for a contrastive loss over the whole batch: texts and n statistics of each, both ways."""
    numbers = batch * width + num_gpus * batch
    forward = (num_gpus - 1) / num_gpus * numbers * _FLOAT
    return forward + ring_bytes(numbers * _FLOAT, num_gpus)


def step_of(
    known: Assumptions,
    *,
    num_gpus: int,
    sharded: bool,
    batch: int,
    steps: int,
    num_parameters: float,
    flops: float,
    peak: float,
    half: bool,
    pair_width: int,
    micro_batch: int,
    memory: float,
) -> Step:
    """One row of the table.

    Args:
        known: What it stands on.
        num_gpus: GPUs, each with a process.
        sharded: Whether the weights are sharded over all of them.
        batch: Samples of a step, over all.
        steps: Of the run.
        num_parameters: Trained.
        flops: Operations of a sample; what is computed twice under checkpointing does not count.
        peak: Operations per second that a GPU could do.
        half: Whether the run computes in bfloat16.
        pair_width: Width of embeddings that are compared; 0 where none are.
        micro_batch: Samples computed at once, or 0 where none fits.
        memory: Bytes of a GPU at its peak.
    """
    num_micro = -(-batch // num_gpus // max(1, micro_batch))
    weights, gradients = 0.0, ring_bytes(_FLOAT * num_parameters, num_gpus)
    if sharded:
        weights, gradients = fsdp_bytes(num_parameters, num_gpus, num_micro_batches=num_micro, half=half)
    pairs = pair_bytes(batch, pair_width, num_gpus) if pair_width else 0.0
    sent = Bytes(weights=weights, gradients=gradients, pairs=pairs)
    # GradCache encodes every sample twice where pairs meet and not all are computed at once.
    passes = 4 / 3 if pair_width and num_micro > 1 else 1.0
    compute = passes * flops * batch / (num_gpus * peak * known.kernel_mfu)
    link = known.bandwidth(num_gpus)
    behind = compute if sharded else _BACKWARD * compute / num_micro
    hidden = min(known.overlap * (weights + gradients) / link, behind)
    seconds = compute + sent.total / link - hidden
    rate, num_nodes = batch / seconds, -(-num_gpus // known.gpus_per_node)
    state = _STATE * _FLOAT * num_parameters
    return Step(
        num_gpus=num_gpus,
        sharded=sharded,
        micro_batch=micro_batch,
        memory=memory,
        fits=micro_batch > 0,
        sent=sent,
        compute_seconds=compute,
        message_seconds=sent.total / link,
        seconds=seconds,
        mfu=flops * batch / (num_gpus * peak * seconds),
        samples_per_second=rate,
        node_input=rate / num_nodes * known.sample_bytes,
        node_cores=rate / num_nodes / known.decode_rate,
        checkpoint_bytes=state,
        checkpoint_seconds=state / (known.write_bandwidth * 1e9 * (num_nodes if sharded else 1)),
        days=steps * seconds / 86_400,
        gpu_hours=steps * seconds / 3600 * num_gpus,
    )
