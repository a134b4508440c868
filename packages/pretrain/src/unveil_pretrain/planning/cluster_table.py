"""The tables of `pretrain plan --cluster`, for people."""

from collections.abc import Sequence
from dataclasses import asdict

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.planning.cluster import Assumptions, Step

__all__ = ["assumptions_text", "table"]

_GIGA = 1e9

_SAID = {
    "gpus_per_node": "{:g} GPUs in a node",
    "gpu_memory": "{:g} GB of memory (NVIDIA H100 SXM data sheet)",
    "usable": "{:.0%} of it for tensors (a guess)",
    "intra_bandwidth": "{:g} GB/s from a GPU within its node (NVIDIA H100 data sheet: NVLink, half of 900)",
    "inter_bandwidth": "{:g} GB/s from a GPU to other nodes (NVIDIA DGX H100 data sheet: 400 Gb/s each)",
    "link_share": "{:.0%} of a link reached by a collective (a guess)",
    "overlap": "{:.0%} of messages about weights and gradients hidden behind computation (a guess)",
    "kernel_mfu": "{:.0%} of the peak reached between messages (published on H100: 21 and 29 % by NeMo's CLIP and ViT "
    "g/14, 39 % by torchtitan's Llama 3.1 8B)",
    "sample_bytes": "{:,.0f} bytes of a sample in the shards (the mean of some JPEGs of ImageNet-1K)",
    "decode_rate": "{:g} images per second decoded by a core (docs/benchmarks.md: 256 of ImageNet in 721 ms)",
    "write_bandwidth": "{:g} GB/s written by a node (a guess)",
}


def assumptions_text(known: Assumptions, *, device: str, peak: float, precision: str) -> str:
    """Each assumption, its source and its flag; a value that was changed has no source but its flag."""
    given, usual = asdict(known), asdict(Assumptions())
    lines = [f"on paper, for {device}: {peak / 1e12:g} TFLOP/s in {precision} (its vendor's data sheet), and assuming"]
    for name, said in _SAID.items():
        flag = "--" + name.replace("_", "-")
        text = said.format(given[name])
        if given[name] != usual[name]:
            text = f"{text.partition(' (')[0]} (given)"
        lines.append(f"- {text}  [{flag}]")
    return "\n".join(lines) + "\n"


def table(recipe: str, config: MimConfig | FlipConfig, steps: Sequence[Step]) -> str:
    """A row for each number of GPUs and each way to lay the weights on them."""
    header = [
        "GPUs", "weights", "micro", "memory", "sent", "messages", "compute", "step", "MFU", "samples/s", "input/node",
        "cores/node", "checkpoint", "written", "days", "GPU hours",
    ]  # fmt: skip
    lines = [header, *(_line(step) for step in steps)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    name, encoder = config.objective.name, config.encoder
    about = f"{recipe}: {name} on {encoder}, {config.steps:,} steps of {config.batch_size:,} samples"
    return "\n".join([about, *shown]) + "\n"


def _line(step: Step) -> list[str]:
    way = "fsdp" if step.sharded else "ddp"
    start = [f"{step.num_gpus}", way, f"{step.micro_batch}" if step.fits else "none", _bytes(step.memory)]
    if not step.fits:
        return [*start, "does not fit", *[""] * 11]
    return [
        *start,
        _bytes(step.sent.total),
        _seconds(step.message_seconds),
        _seconds(step.compute_seconds),
        _seconds(step.seconds),
        f"{step.mfu:.1%}",
        f"{step.samples_per_second:,.0f}",
        f"{_bytes(step.node_input)}/s",
        f"{step.node_cores:,.1f}",
        _bytes(step.checkpoint_bytes),
        _seconds(step.checkpoint_seconds),
        f"{step.days:,.3g}",
        f"{step.gpu_hours:,.0f}",
    ]


def _bytes(count: float) -> str:
    return f"{count / _GIGA:,.3g} GB" if count >= _GIGA else f"{count / 1e6:,.3g} MB"


def _seconds(count: float) -> str:
    return f"{count:,.3g} s" if count >= 1 else f"{count * 1e3:,.3g} ms"
