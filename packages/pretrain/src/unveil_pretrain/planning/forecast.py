"""From a grid of settings to a plan: each cell's operations, time and danger of over-fitting, and the cells to run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import PlanError
from unveil_pretrain.planning.boundary import Verdict, judge
from unveil_pretrain.planning.flops import SampleFlops, sample_flops
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.planning.speed import Speed

__all__ = ["Forecast", "Forecaster"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a cell."""

    cell: Cell
    config: MimConfig | FlipConfig
    num_parameters: int
    """Of the encoder."""
    num_images: int
    """Training images of the cell."""
    epochs: float
    """Passes over them."""
    flops: float | None
    """Operations; None where the objective is not counted."""
    seconds: float | None
    """Of one device; None where its speed is not known."""
    speed: Speed | None
    verdict: Verdict


class Forecaster:
    """Forecasts cells; what two cells share is computed once."""

    def __init__(
        self,
        resolve: Callable[[Cell], MimConfig | FlipConfig],
        speed: Callable[[MimConfig | FlipConfig], Speed | None],
        num_images: int,
    ) -> None:
        """Take what turns a cell into settings, what knows speeds, and the number of training images."""
        self._resolve = resolve
        self._speed = speed
        self._num_images = num_images
        self._known: dict[MimConfig | FlipConfig, SampleFlops] = {}

    def __call__(self, cell: Cell) -> Forecast:
        """The forecast of a cell.

        Raises:
            ConfigError, BackboneError: its settings make no run.
        """
        config = self._resolve(cell)
        num_images = max(1, round(cell.fraction * self._num_images))
        samples = config.steps * config.batch_size
        known = self._sample(config)
        flops = None if known.total is None else known.total * samples
        speed = self._speed(config)
        seconds = None if flops is None or speed is None else flops / speed.flops_per_second
        verdict = judge(
            num_parameters=known.num_parameters,
            num_images=num_images,
            epochs=samples / num_images,
            objective=config.objective.name,
            encoder=config.encoder,
            image_size=config.image_size,
        )
        return Forecast(
            cell=replace(cell, flops=flops, seconds=seconds, verdict=verdict.words()),
            config=config,
            num_parameters=known.num_parameters,
            num_images=num_images,
            epochs=samples / num_images,
            flops=flops,
            seconds=seconds,
            speed=speed,
            verdict=verdict,
        )

    def costs(self, forecasts: Sequence[Forecast], *, in_flops: bool) -> list[float]:
        """The cost of each, in operations or in seconds.

        Raises:
            PlanError: one is not known.
        """
        found: list[float] = []
        for forecast in forecasts:
            cost = forecast.flops if in_flops else forecast.seconds
            if cost is None:
                raise PlanError(_unknown(forecast))
            found.append(cost)
        return found

    def _sample(self, config: MimConfig | FlipConfig) -> SampleFlops:
        plain = replace(config, steps=1, num_unique=0, seed=config.val_mask_seed + 1, warmup_steps=0)
        if plain not in self._known:
            self._known[plain] = sample_flops(plain)
        return self._known[plain]


def _unknown(forecast: Forecast) -> str:
    if forecast.flops is None:
        return f"the operations of {forecast.config.objective.name} are not counted; leave out the budget"
    return (
        f"nothing says how fast {forecast.cell.name} runs in {forecast.config.precision}; give --measured RUN, or --on "
        f"DEVICE with --mfu, or a budget in --flops"
    )
