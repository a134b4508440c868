"""How many operations per second a cell will reach: measured by earlier runs, or assumed of a device.

A measured run of the same objective and encoder gives its own speed. Others are scaled by operations: the mean of the
measured runs of the same objective, or of all of them, which is said. No torch here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.limits import parse_json

from unveil_pretrain.cost import peak_of, read_cost
from unveil_pretrain.errors import PlanError

__all__ = ["Measured", "Speed", "assumed_speed", "measure", "speed_of"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What an earlier run has shown."""

    run: str
    """Its folder."""
    objective: str
    """Its objective."""
    encoder: str
    """Its encoder."""
    precision: str
    """Its precision."""
    device: str
    """Where it ran."""
    flops_per_second: float
    """Operations per second and device."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Operations per second of one device, and where the number comes from."""

    flops_per_second: float
    source: str


def measure(folder: Path) -> Measured:
    """The speed of a run, from its last steps.

    Raises:
        PlanError: it has too few steps, or its operations are not counted.
        OutputError: the folder holds no run.
    """
    cost = read_cost(folder)
    if cost.samples_per_second is None or not cost.flops or cost.device is None:
        raise PlanError(f"{folder} shows no speed: it has {cost.step} steps and {cost.why_no_mfu}; give a longer run")
    config = parse_json((folder / "run.json").read_text(encoding="utf-8"))["identity"]["config"]
    try:
        words = [config["objective"]["name"], config["encoder"], config["precision"]]
    except (KeyError, TypeError) as error:
        raise PlanError(f"{folder / 'run.json'} names no objective, encoder or precision; restore it") from error
    if not all(isinstance(word, str) for word in words):
        raise PlanError(f"{folder / 'run.json'}: objective, encoder and precision are {words}; restore it")
    return Measured(
        run=str(folder),
        objective=words[0],
        encoder=words[1],
        precision=words[2],
        device=cost.device,
        flops_per_second=cost.flops / cost.samples * cost.samples_per_second / cost.num_devices,
    )


def speed_of(objective: str, encoder: str, precision: str, measured: Sequence[Measured]) -> Speed | None:
    """The speed to expect of a cell; None where nothing was measured at this precision."""
    usable = [run for run in measured if run.precision == precision]
    for words, chosen in (
        ("measured", [run for run in usable if (run.objective, run.encoder) == (objective, encoder)]),
        ("scaled by operations", [run for run in usable if run.objective == objective]),
        ("scaled by operations from another objective", usable),
    ):
        if chosen:
            mean = sum(run.flops_per_second for run in chosen) / len(chosen)
            return Speed(mean, words)
    return None


def assumed_speed(device: str, mfu: float, precision: str) -> Speed:
    """The speed of a known device at an assumed share of its peak.

    Raises:
        PlanError: the device is not known at this precision, or the share is outside (0, 1].
    """
    if not 0.0 < mfu <= 1.0:
        raise PlanError(f"--mfu is {mfu}; give the share of the peak to assume, above 0 and up to 1, for example 0.4")
    peak = peak_of(device, precision)
    if peak is None:
        raise PlanError(
            f"the peak of {device!r} in {precision} is not known; measure a short run and give it as --measured"
        )
    return Speed(peak * mfu, f"assumed: {mfu:.0%} of the peak of {device}")
