"""Whether a step fits into memory, and if not, the nearest that does.

A prediction may be off by `memory.ERROR`. What is too large even if it is off that far is refused; what is too large
only if the prediction is right, or off to the other side, is a warning.
"""

from dataclasses import replace
from typing import Literal

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.planning.layouts import Layout
from unveil_pretrain.planning.memory import ERROR, MemoryLine, StepMemory, step_memory

__all__ = ["Verdict", "judge_fit", "nearest", "shown", "verdict_of"]

Verdict = Literal["fits", "may not fit", "cannot fit"]
"""Whether the memory suffices however far the prediction is off; or depends on that; or does not suffice anyhow."""

_MOST_PROCESSES = 1024
_GIGA = 1e9


def verdict_of(predicted: float, available: float) -> Verdict:
    """What a prediction says about memory of so many bytes."""
    if predicted / (1.0 + ERROR) > available:
        return "cannot fit"
    return "may not fit" if predicted / (1.0 - ERROR) > available else "fits"


def judge_fit(config: MimConfig | FlipConfig, layout: Layout, available: float) -> tuple[Verdict, str]:
    """The verdict, and a sentence about it: empty where it fits, otherwise what is needed, and what would fit.

    Args:
        config: What is trained.
        layout: How.
        available: Bytes that each process may take.

    Raises:
        ConfigError, BackboneError: as `step_memory`.
    """
    memory = _memory(config, layout)
    verdict = verdict_of(memory.total, available)
    if verdict == "fits":
        return verdict, ""
    # A warning is answered by what fits however far the prediction is off.
    fitting = nearest(config, layout, available * (1.0 if verdict == "cannot fit" else 1.0 - ERROR))
    return verdict, (
        f"a step with {memory.micro_batch} samples at once is predicted to need {shown(memory.total)} on each device "
        f"({memory.moment}: {_parts(memory)}), and there are {shown(available)}; what fits: "
        + ("; ".join(fitting) or "nothing of this encoder; choose a smaller one, or a smaller image size")
    )


def nearest(config: MimConfig | FlipConfig, layout: Layout, available: float) -> list[str]:
    """Changes, each by itself, after which the prediction is within `available` bytes; all together if none is."""
    found: list[str] = []
    smaller = _line(config, layout).largest(available, num_shards=layout.num_shards, num_replicas=layout.num_replicas)
    if smaller:
        found.append(f"--micro-batch-size {smaller}")
    saving = replace(layout, checkpointing=True)
    if not layout.checkpointing and _memory(config, saving).total <= available:
        found.append(f"--checkpoint-blocks ({shown(_memory(config, saving).total)})")
    half = replace(config, precision="bfloat16")
    if config.precision != "bfloat16" and _memory(half, layout).total <= available:
        found.append(f"--precision bfloat16 ({shown(_memory(half, layout).total)})")
    found += _sharded(config, layout, available, "")
    if found:
        return found
    together = _sharded(half, saving, available, " --checkpoint-blocks --precision bfloat16")
    single = _line(half, saving).largest(available, num_shards=layout.num_shards, num_replicas=layout.num_replicas)
    if single:
        together.insert(0, f"--checkpoint-blocks --precision bfloat16 --micro-batch-size {single}")
    return together


def shown(count: float) -> str:
    """Bytes for people."""
    return f"{count / _GIGA:,.1f} GB" if count >= _GIGA else f"{count / 1e6:,.0f} MB"


def _sharded(config: MimConfig | FlipConfig, layout: Layout, available: float, also: str) -> list[str]:
    """The least power of two of processes that fits under FSDP2, if there is one."""
    num = 2 * layout.num_shards * layout.num_replicas
    while num <= _MOST_PROCESSES and config.batch_size % num == 0:
        line = _line(config, layout)
        micro = layout.micro_batch or config.batch_size // num
        total = line.at(micro, num_shards=num).total
        if total <= available:
            return [f"--parallel fsdp on {num} processes{also} ({shown(total)})"]
        num *= 2
    return []


def _memory(config: MimConfig | FlipConfig, layout: Layout) -> StepMemory:
    return step_memory(
        config,
        micro_batch=layout.micro_batch or config.batch_size,
        device=layout.device,
        checkpointing=layout.checkpointing,
        num_shards=layout.num_shards,
        num_replicas=layout.num_replicas,
    )


def _line(config: MimConfig | FlipConfig, layout: Layout) -> MemoryLine:
    return MemoryLine(config=config, device=layout.device, checkpointing=layout.checkpointing)


def _parts(memory: StepMemory) -> str:
    parts = {"weights": memory.weights, "optimiser": memory.optimizer}
    match memory.moment:
        case "backward":
            parts |= {"activations and gradients": memory.activations, "gathered": memory.gathered}
        case "messages":
            parts |= {"gradients": memory.gradients, "messages": memory.messages}
        case _:
            parts |= {"gradients": memory.gradients, "update": memory.update}
    return ", ".join(f"{name} {shown(value)}" for name, value in parts.items() if value)
