"""`pretrain plan --cluster`: recipes and numbers of GPUs in, a step of each on paper out, with what it stands on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.config import FlipConfig, MimConfig, Precision
from unveil_pretrain.cost import PEAKS, peak_of
from unveil_pretrain.errors import PlanError
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.planning.cluster import Assumptions, Step, step_of
from unveil_pretrain.planning.cluster_table import assumptions_text, table
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.planning.memory import MemoryLine
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES, no_recipe

__all__ = ["ClusterCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterCommand:
    """What a run needs on many GPUs: messages, input, checkpoints, memory, time. Nothing is measured here."""

    recipes: tuple[str, ...]
    """Names of recipes, of `pretrain mim` or `pretrain flip`."""
    gpus: tuple[int, ...] = (8, 64, 512)
    """Numbers of GPUs, each with a process."""
    on: str = "NVIDIA H100"
    """Device, by a name such as 'NVIDIA A100'; its peak is that of its data sheet."""
    precision: Precision = "bfloat16"
    """Arithmetic of the run."""
    parallel: Literal["both", "ddp", "fsdp"] = "both"
    """Whole copies of the weights, shards of them (FSDP2), or a row for each."""
    batch_size: int = 0
    """Samples of a step over all GPUs; 0 for the recipe's."""
    micro_batch_size: int = 0
    """Samples a GPU computes at once; 0 for the largest that fits."""
    checkpoint_blocks: bool = False
    """Compute the inside of the encoder's blocks twice instead of keeping it."""
    assumptions: Assumptions = field(default_factory=Assumptions)
    """What cannot be known from the settings."""
    json: bool = False
    """Print JSON instead of tables."""


def run(given: Sequence[str]) -> int:
    """Compute and print."""
    command = parse(ClusterCommand, given, prog="pretrain plan --cluster")
    peak = _check(command)
    rows = {recipe: _rows(_config(recipe, command), command, peak) for recipe in command.recipes}
    if command.json:
        known = asdict(command.assumptions)
        steps = {recipe: [asdict(step) for step in of_recipe] for recipe, of_recipe in rows.items()}
        print(json.dumps({"device": command.on, "peak": peak, "assumptions": known, "recipes": steps}, indent=1))
        return 0
    print(assumptions_text(command.assumptions, device=command.on, peak=peak, precision=command.precision))
    for recipe, of_recipe in rows.items():
        print(table(recipe, _config(recipe, command), of_recipe))
    return 0


def _check(command: ClusterCommand) -> float:
    """The device's peak.

    Raises:
        PlanError: a recipe or the device is unknown, or a number is not allowed.
    """
    unknown = [name for name in command.recipes if name not in MIM_RECIPES and name not in FLIP_RECIPES]
    if unknown or not command.recipes:
        what = no_recipe(unknown[0], (*MIM_RECIPES, *FLIP_RECIPES)) if unknown else "no recipe is given"
        raise PlanError(f"{what}; `pretrain ls` lists them")
    if not command.gpus or min(command.gpus) < 1:
        raise PlanError(f"--gpus is {list(command.gpus)}; give numbers of at least 1, for example 8 64 512")
    if command.micro_batch_size < 0 or command.batch_size < 0:
        raise PlanError("--micro-batch-size and --batch-size must not be negative; give 0 to have them chosen")
    shares = ("usable", "link_share", "kernel_mfu")
    for entry in fields(command.assumptions):
        value = asdict(command.assumptions)[entry.name]
        most = 1.0 if entry.name in (*shares, "overlap") else float("inf")
        if not (0 if entry.name == "overlap" else 1e-12) <= value <= most:
            raise PlanError(
                f"--{entry.name.replace('_', '-')} is {value}; give a number above 0"
                + (" and up to 1" if most == 1.0 else "")
            )
    peak = peak_of(command.on, command.precision)
    if peak is None:
        raise PlanError(
            f"the peak of {command.on!r} in {command.precision} is not known; give a device by one of the names "
            f"{', '.join(PEAKS)}, as in --on 'NVIDIA A100'"
        )
    return peak


def _config(recipe: str, command: ClusterCommand) -> MimConfig | FlipConfig:
    made = FLIP_RECIPES[recipe]() if recipe in FLIP_RECIPES else MIM_RECIPES[recipe]()
    return replace(made, precision=command.precision, batch_size=command.batch_size or made.batch_size)


def _rows(config: MimConfig | FlipConfig, command: ClusterCommand, peak: float) -> list[Step]:
    """A row for each number of GPUs and each way to lay the weights on them.

    Raises:
        PlanError: the operations of the objective are not counted.
        ConfigError: its memory is not known, or the batch cannot be dealt out.
    """
    flops, line = (
        sample_flops(config).total,
        MemoryLine(config=config, device="cuda", checkpointing=command.checkpoint_blocks),
    )
    if flops is None:
        raise PlanError(f"the operations of {config.objective.name} are not counted; choose another recipe")
    ways = {"both": (False, True), "ddp": (False,), "fsdp": (True,)}[command.parallel]
    rows: list[Step] = []
    for num_gpus in command.gpus:
        for sharded in ways if num_gpus > 1 else (False,):
            shards = num_gpus if sharded else 1
            cut = {"num_shards": shards, "num_replicas": num_gpus // shards}
            fitting = line.largest(command.assumptions.capacity, **cut)
            micro = min(fitting, command.micro_batch_size) if command.micro_batch_size else fitting
            if command.micro_batch_size > fitting:
                micro = 0
            memory = line.at(micro or command.micro_batch_size or 1, **cut)
            rows.append(
                step_of(
                    command.assumptions,
                    num_gpus=num_gpus,
                    sharded=sharded,
                    batch=config.batch_size,
                    steps=config.steps,
                    num_parameters=line.num_trained,
                    flops=flops,
                    peak=peak,
                    half=command.precision == "bfloat16",
                    pair_width=config.objective.embed_dim if isinstance(config.objective, FLIPConfig) else 0,
                    micro_batch=micro,
                    memory=memory.total,
                )
            )
    return rows
