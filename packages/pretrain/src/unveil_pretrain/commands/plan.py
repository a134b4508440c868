"""`pretrain plan`: axes and a budget in, cells to run out, with costs, over-fitting to expect, and what they show."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unveil_backbones.whole_files import write_whole

from unveil_pretrain.commands import plan_cluster
from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import MemoryLimitError, OutputError, PlanError
from unveil_pretrain.planning.design import RULE, Point, choose, grid
from unveil_pretrain.planning.fits import judge_fit
from unveil_pretrain.planning.forecast import Forecast, Forecaster
from unveil_pretrain.planning.layouts import Layout
from unveil_pretrain.planning.outlook import outlook, table, to_json
from unveil_pretrain.planning.plans import Cell, Plan
from unveil_pretrain.planning.speed import Speed, assumed_speed, measure, speed_of
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES, no_recipe

__all__ = ["PlanCommand", "run"]

_SECONDS_PER_HOUR = 3600.0
_BYTES_PER_GIGA = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanCommand:
    """Choose the cells of a study. Axes: recipes × encoders, fractions, steps; seeds repeat them.

    With --cluster the command plans for many GPUs instead; `pretrain plan --cluster --help` lists its flags.
    """

    recipes: tuple[str, ...]
    """Names of recipes, of `pretrain mim` or `pretrain flip`; from small to large."""
    encoders: tuple[str, ...] = ()
    """Encoders to put into each recipe, from small to large; none keeps the recipe's own."""
    fractions: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    """Shares of the training images."""
    steps: tuple[int, ...] = (125_000, 250_000, 500_000)
    """Numbers of updates."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each repeats the whole grid with other subsets, masks and weights."""
    num_images: int = 1_281_167
    """Training images there are; the default is ImageNet-1K's."""
    set: tuple[str, ...] = ()
    """Settings of all cells that differ from the recipes, as name=value."""

    gpu_hours: float = 0.0
    """Budget in device-hours; 0 for none. Needs a speed: --measured, or --on with --mfu."""
    flops: float = 0.0
    """Budget in operations; 0 for none."""
    measured: tuple[Path, ...] = ()
    """Folders of earlier or short runs, whose speed is taken."""
    on: str = ""
    """Device to assume, by a name such as 'NVIDIA H100'; with --mfu."""
    mfu: float = 0.0
    """Share of the device's peak to assume."""
    gpu_memory: float = 0.0
    """GB of a device: a recipe whose steps cannot fit is refused, with what does; 0 leaves that out."""
    num_gpus: int = 1
    """For --gpu-memory: devices that share the batch, a whole copy of the weights on each."""
    micro_batch_size: int = 0
    """For --gpu-memory: samples computed at once on each; 0 for all of its part of the batch."""
    checkpoint_blocks: bool = False
    """For --gpu-memory: whether the encoder's blocks are computed twice instead of kept."""
    price: float = 0.0
    """Price of a device-hour in any currency."""

    out: Path | None = None
    """File for the plan, which `pretrain sweep` runs."""
    json: bool = False
    """Print JSON instead of a table."""


def run(given: Sequence[str]) -> int:
    """Plan, print, and write the plan; with --cluster, what runs need on many GPUs instead."""
    if "--cluster" in given:
        return plan_cluster.run([word for word in given if word != "--cluster"])
    command = parse(PlanCommand, given, prog="pretrain plan")
    _check(command)
    models = [(recipe, encoder) for recipe in command.recipes for encoder in command.encoders or ("",)]
    lengths = (len(models), len(command.fractions), len(command.steps))
    points = grid(lengths, len(command.seeds))
    settings = _settings(command.set)
    forecaster = Forecaster(_resolver(), _speeds(command), command.num_images)
    forecasts: dict[Point, Forecast] = {}
    for point in points:
        recipe, encoder = models[point.places[0]]
        forecasts[point] = forecaster(
            Cell(
                recipe=recipe,
                command="flip" if recipe in FLIP_RECIPES else "mim",
                fraction=command.fractions[point.places[1]],
                steps=command.steps[point.places[2]],
                seed=command.seeds[point.seed],
                settings=settings | ({"encoder": encoder} if encoder else {}),
            )
        )
    notes_of_memory = _memory(command, {forecast.config for forecast in forecasts.values()})
    budget = command.flops or command.gpu_hours * _SECONDS_PER_HOUR or float("inf")
    costs = dict.fromkeys(points, 0.0)
    if budget != float("inf"):
        found = forecaster.costs([forecasts[point] for point in points], in_flops=bool(command.flops))
        costs = dict(zip(points, found, strict=True))
    choice = choose(points, costs, lengths, budget)
    if not choice.taken:
        cheapest = min(costs.values())
        raise PlanError(f"no cell fits the budget: the cheapest needs {cheapest / budget:.3g} times as much; raise it")
    taken, dropped = ([forecasts[point] for point in part] for part in (choice.taken, choice.dropped))
    notes = (RULE, *_assumptions(command), *notes_of_memory, *outlook(taken, dropped, num_seeds=len(command.seeds)))
    plan = Plan(cells=tuple(forecast.cell for forecast in taken), num_images=command.num_images, notes=notes)
    if command.json:
        print(json.dumps(to_json(taken, dropped, notes, price=command.price), indent=1))
    else:
        print(table(taken, notes, price=command.price), end="")
    if command.out is not None:
        _write(command.out, plan)
    return 0


def _check(command: PlanCommand) -> None:
    unknown = [name for name in command.recipes if name not in MIM_RECIPES and name not in FLIP_RECIPES]
    if unknown or not command.recipes:
        what = no_recipe(unknown[0], (*MIM_RECIPES, *FLIP_RECIPES)) if unknown else "no recipe is given"
        raise PlanError(f"{what}; `pretrain ls` lists them")
    if command.flops and command.gpu_hours:
        raise PlanError("--flops and --gpu-hours are both given; give one budget")
    if min(command.flops, command.gpu_hours, command.price) < 0 or command.num_images < 1:
        raise PlanError(
            "budget and price must not be negative, and --num-images at least 1; change the one that is not"
        )
    if command.gpu_memory < 0 or command.num_gpus < 1 or command.micro_batch_size < 0:
        raise PlanError("--gpu-memory and --micro-batch-size must not be negative, and --num-gpus is at least 1")
    if bool(command.on) != bool(command.mfu):
        raise PlanError("--on and --mfu belong together; give both, for example --on 'NVIDIA H100' --mfu 0.4")
    for name, values in (("fractions", command.fractions), ("steps", command.steps), ("seeds", command.seeds)):
        if len(set(values)) != len(values) or not values:
            raise PlanError(f"--{name} is {list(values)}; give each value once, and at least one")


def _settings(pairs: Sequence[str]) -> dict[str, str | int | float]:
    """name=value pairs.

    Raises:
        PlanError: a pair has no name or no value.
    """
    found: dict[str, str | int | float] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise PlanError(f"--set has {pair!r}; give name=value, for example batch_size=256")
        found[name.replace("-", "_")] = value
    return found


def _resolver() -> Callable[[Cell], MimConfig | FlipConfig]:
    """What turns a cell into settings, by the flags that the cell will run with; equal models are parsed once."""
    known: dict[tuple[object, ...], MimConfig | FlipConfig] = {}

    def resolve(cell: Cell) -> MimConfig | FlipConfig:
        key = (cell.recipe, *cell.settings.items())
        if key not in known:
            words, prog = cell.flags(num_images=1), f"pretrain {cell.command} {cell.recipe}"
            if cell.command == "flip":
                known[key] = parse(FlipConfig, words, prog=prog, default=FLIP_RECIPES[cell.recipe]())
            else:
                known[key] = parse(MimConfig, words, prog=prog, default=MIM_RECIPES[cell.recipe]())
        return replace(known[key], steps=cell.steps, seed=cell.seed)

    return resolve


def _speeds(command: PlanCommand) -> Callable[[MimConfig | FlipConfig], Speed | None]:
    measured = [measure(folder) for folder in command.measured]

    def speed(config: MimConfig | FlipConfig) -> Speed | None:
        found = speed_of(config.objective.name, config.encoder, config.precision, measured)
        if found is None and command.on:
            return assumed_speed(command.on, command.mfu, config.precision)
        return found

    return speed


def _assumptions(command: PlanCommand) -> list[str]:
    """What the forecasts of time stand on."""
    said = [f"{command.num_images:,} training images"]
    if command.measured:
        said.append(f"speed measured by {', '.join(str(folder) for folder in command.measured)}")
    if command.on:
        said.append(f"where nothing was measured: {command.mfu:.0%} of the peak of {command.on}, an assumption")
    said.append(
        "time is that of training steps on one device: validation, checkpoints and waiting for data come on top"
    )
    return said


def _memory(command: PlanCommand, configs: Iterable[MimConfig | FlipConfig]) -> list[str]:
    """What may not fit, in words.

    Raises:
        MemoryLimitError: a step cannot fit; names what does.
    """
    if not command.gpu_memory:
        return []
    layout = Layout(
        micro_batch=command.micro_batch_size,
        device="cuda",
        checkpointing=command.checkpoint_blocks,
        num_replicas=command.num_gpus,
    )
    warnings: dict[str, None] = {}
    # Neither length nor seed changes a step.
    for config in {replace(config, steps=1, warmup_steps=0, seed=config.val_mask_seed + 1) for config in configs}:
        verdict, said = judge_fit(config, layout, command.gpu_memory * _BYTES_PER_GIGA)
        said = f"{config.objective.name} on {config.encoder}: {said}"
        if verdict == "cannot fit":
            raise MemoryLimitError(f"{said}; --gpu-memory 0 plans it nevertheless")
        if verdict == "may not fit":
            warnings[said] = None
    return list(warnings)


def _write(file: Path, plan: Plan) -> None:
    try:
        write_whole(file, plan.to_json())
    except OSError as error:
        raise OutputError(f"cannot write {file} ({error.strerror or error}); give another --out") from error
    print(f"{len(plan.cells)} cells in {file}; run them with `pretrain sweep {file} --out DIR ...`", file=sys.stderr)
