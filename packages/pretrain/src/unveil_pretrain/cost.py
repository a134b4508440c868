"""What a run has cost so far and will still cost: operations, device-hours, utilisation, money, time left.

Reads three files of a run's folder (run.json, cost.jsonl, the end of metrics.jsonl) and needs neither torch nor timm.
cost.jsonl has a row for each start of the run, since a run may continue on another machine; `costing.py` writes it.

Utilisation (MFU) is the operations that the model needs, two for each multiply-add and three times the forward pass,
over what the devices could do in the same time at the precision of the run. What is recomputed by checkpointing and
what an optimisation saves changes the time, never the operations. Only time in training steps counts: validation,
checkpoints and the start of a process are left out, and of waiting for data only what delays a step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import OutputError
from unveil_pretrain.row_checks import checked_row, is_number, whole_rows

__all__ = ["PEAKS", "CostBasis", "Peak", "RunCost", "peak_of", "read_cost", "read_tail"]

_COST = "cost.jsonl"
_METRICS = "metrics.jsonl"
_RUN = "run.json"
_TAIL_BYTES = 65_536  # about 200 rows of metrics.jsonl
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Dense operations per second of one device, without sparsity, as its vendor states them."""

    bfloat16: float | None
    """Tensor cores, bfloat16 with float32 sums; None where the device has none."""
    float32: float
    """Outside the tensor cores: what PyTorch's default matrix product ("highest" precision) uses."""
    source: str
    """Where the two figures are from."""


PEAKS: Final[Mapping[str, Peak]] = MappingProxyType(
    {
        "H200 NVL": Peak(bfloat16=836e12, float32=60e12, source="NVIDIA H200 data sheet, NVL (half of the figure)"),
        "H200": Peak(
            bfloat16=989e12, float32=67e12, source="NVIDIA H200 data sheet (half of the figure with sparsity)"
        ),
        "H100 NVL": Peak(bfloat16=835e12, float32=60e12, source="NVIDIA H100 data sheet, NVL (half of the figure)"),
        "H100 PCIe": Peak(bfloat16=756e12, float32=51e12, source="NVIDIA H100 data sheet, PCIe"),
        "H100": Peak(bfloat16=989e12, float32=67e12, source="NVIDIA H100 data sheet, SXM"),
        "A100": Peak(bfloat16=312e12, float32=19.5e12, source="NVIDIA A100 data sheet"),
        "A10": Peak(bfloat16=125e12, float32=31.2e12, source="NVIDIA A10 data sheet"),
        "L40S": Peak(bfloat16=362e12, float32=91.6e12, source="NVIDIA L40S data sheet"),
        "L4": Peak(bfloat16=121e12, float32=30.3e12, source="NVIDIA L4 data sheet (half of the figure with sparsity)"),
        "V100-SXM2": Peak(bfloat16=None, float32=15.7e12, source="NVIDIA V100 data sheet, NVLink"),
        "V100-PCIE": Peak(bfloat16=None, float32=14e12, source="NVIDIA V100 data sheet, PCIe"),
    }
)
"""By a part of the name that CUDA gives the device. A device that is not here, every CPU included, has no known peak:
its utilisation is reported as unknown rather than guessed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostBasis:
    """What the costs of a stretch of a run are computed from; a row of cost.jsonl."""

    step: int
    """Step at which the stretch starts."""
    device: str
    """Name of the device, as CUDA or the operating system gives it."""
    num_devices: int
    """Processes of the run, each with a device of its own."""
    precision: str
    """"float32" or "bfloat16"."""
    flops_per_sample: float | None
    """Operations of one sample in training; None where nothing of the model could be counted."""
    counted: tuple[str, ...]
    """What they include."""
    not_counted: tuple[str, ...]
    """What they leave out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCost:
    """Costs of a run up to its last recorded step."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    samples: int
    """Samples shown, repetitions counted."""
    device: str | None
    """Where it runs now, or ran last."""
    num_devices: int
    """How many of them."""
    flops: float | None
    """Operations so far."""
    device_seconds: float
    """Seconds of training summed over devices."""
    samples_per_second: float | None
    """Over the last steps; None before the second."""
    mfu: float | None
    """Share of the devices' peak that the last steps used; None where a part of it is unknown."""
    why_no_mfu: str | None
    """What is missing, where `mfu` is None."""
    seconds_left: float | None
    """Of training at the present speed."""
    price: float | None
    """Of `device_seconds`, where a price per device-hour was given."""
    counted: tuple[str, ...]
    """What the operations include."""
    not_counted: tuple[str, ...]
    """What they leave out."""

    @property
    def device_hours(self) -> float:
        """`device_seconds` in hours."""
        return self.device_seconds / _SECONDS_PER_HOUR


def peak_of(device: str, precision: str) -> float | None:
    """Operations per second that one `device` can do at `precision`; None where they are not known.

    Args:
        device: Name as CUDA gives it, such as "NVIDIA H100 80GB HBM3".
        precision: "float32" or "bfloat16".
    """
    words = device.replace("-", " ").split()
    if "MIG" in words:  # a slice of a device
        return None
    for name, peak in PEAKS.items():
        # "A10" is no part of "A100", and "L4" none of "L40S": whole words only.
        if set(name.replace("-", " ").split()) <= set(words):
            return peak.bfloat16 if precision == "bfloat16" else peak.float32
    return None


def read_cost(folder: Path, *, price_per_hour: float | None = None, without_damaged: bool = False) -> RunCost:
    """The costs of the run in `folder`, which may be running.

    Args:
        folder: The run's folder.
        price_per_hour: Price of one device for an hour, in any currency.
        without_damaged: Whether to leave out damaged lines of metrics.jsonl, which the caller tells of.

    Raises:
        OutputError: the folder holds no run, or a file of it cannot be read.
    """
    config = _read_run(folder / _RUN)
    bases = [_basis(row, folder) for row in read_tail(folder / _COST)]
    rows = read_tail(folder / _METRICS, without_damaged=without_damaged)
    basis = bases[-1] if bases else None
    last: Mapping[str, object] = rows[-1] if rows else {}
    step, steps = int(_number(last, "step")), int(_number(config, "steps"))
    samples, seconds = int(_number(last, "samples_seen")), _number(last, "seconds")
    pace = _steps_per_second(rows)
    rate = None if pace is None else pace * _number(config, "batch_size")
    mfu, why = _utilisation(basis, rate)
    num_devices = 1 if basis is None else basis.num_devices
    device_seconds = seconds * num_devices
    return RunCost(
        step=step,
        steps=steps,
        samples=samples,
        device=None if basis is None else basis.device,
        num_devices=num_devices,
        flops=None if basis is None or basis.flops_per_sample is None else basis.flops_per_sample * samples,
        device_seconds=device_seconds,
        samples_per_second=rate,
        mfu=mfu,
        why_no_mfu=why,
        seconds_left=None if pace is None else max(0, steps - step) / pace,
        price=None if price_per_hour is None else price_per_hour * device_seconds / _SECONDS_PER_HOUR,
        counted=() if basis is None else basis.counted,
        not_counted=() if basis is None else basis.not_counted,
    )


def read_tail(file: Path, *, num_bytes: int = _TAIL_BYTES, without_damaged: bool = False) -> list[dict[str, object]]:
    """The last rows of a .jsonl file; none where it does not exist. A torn last line is left out.

    Args:
        file: The file, which may be growing.
        num_bytes: How much of its end to read.
        without_damaged: Whether to leave out lines that are no rows of such a file.

    Raises:
        OutputError: the file cannot be read, or a line is no row of such a file.
    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - num_bytes))
            content = stream.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"cannot read {file} ({error.strerror or error}); check the path and permissions") from error
    lines = content.split(b"\n")[:-1]
    whole: Iterable[bytes] = lines if size <= num_bytes else lines[1:]
    if without_damaged:
        return whole_rows(whole, file)[0]
    return [checked_row(line, file) for line in whole if line]


def _read_run(file: Path) -> Mapping[str, object]:
    try:
        config = parse_json(file.read_text(encoding="utf-8"))["identity"]["config"]
        if not all(is_number(config[name], whole=True) for name in ("steps", "batch_size")):
            raise ValueError("steps and batch_size are no whole numbers")
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file} cannot be read as the record of a run ({error!r}); give the folder of a run, the --out it had"
        ) from error


def _basis(row: Mapping[str, object], folder: Path) -> CostBasis:
    try:
        basis = CostBasis(**{**row, "counted": tuple(row["counted"]), "not_counted": tuple(row["not_counted"])})  # pyright: ignore[reportArgumentType]
        _check_basis(basis)
        return basis
    except (KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / _COST} has a row of another shape ({error}); remove the file: costs are then unknown"
        ) from error


def _check_basis(basis: CostBasis) -> None:
    """TypeError where a field is of another type than the class says."""
    words = (basis.device, basis.precision, *basis.counted, *basis.not_counted)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("device, precision and what is counted are text")
    if not is_number(basis.num_devices, whole=True) or basis.num_devices < 1:
        raise TypeError(f"num_devices is {basis.num_devices!r}")
    if basis.flops_per_sample is not None and not is_number(basis.flops_per_sample):
        raise TypeError(f"flops_per_sample is {basis.flops_per_sample!r}")


def _steps_per_second(rows: list[dict[str, object]]) -> float | None:
    """Over the last rows, without the first of them: the first step of a process builds caches."""
    if len(rows) < 2:
        return None
    steps = _number(rows[-1], "step") - _number(rows[0], "step")
    seconds = _number(rows[-1], "seconds") - _number(rows[0], "seconds")
    return steps / seconds if steps > 0 and seconds > 0 else None


def _utilisation(basis: CostBasis | None, rate: float | None) -> tuple[float | None, str | None]:
    if basis is None:
        return None, "the run has no cost.jsonl"
    if basis.flops_per_sample is None:
        return None, "the operations of this model are not counted"
    peak = peak_of(basis.device, basis.precision)
    if peak is None:
        return None, f"the peak of {basis.device!r} in {basis.precision} is not known"
    if rate is None:
        return None, "there are fewer than two steps"
    return basis.flops_per_sample * rate / (peak * basis.num_devices), None


def _number(row: Mapping[str, object], name: str) -> float:
    value = row.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0
