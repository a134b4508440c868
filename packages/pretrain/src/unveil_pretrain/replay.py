"""A failed step once more: the same weights, samples, crops and masks, with a look at where the numbers end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from unveil_backbones import Checkpoint, load
from unveil_backbones.errors import BackboneError
from unveil_backbones.limits import parse_json
from unveil_backbones.redaction import HIDDEN

from unveil_pretrain.data import train_batches
from unveil_pretrain.errors import ResumeError
from unveil_pretrain.record import RunFolder
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.run import Run, assemble
from unveil_pretrain.sources import open_data
from unveil_pretrain.stored_config import config_of_run, run_record

__all__ = ["Replay", "replay"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What a failed step gave when it was computed again."""

    step: int
    """The failed step, counted from 0."""
    losses: dict[int, float]
    """Loss of each sample by its id; of the last occurrence where a batch holds a sample twice."""
    grad_norm: float
    """Norm of all gradients before clipping."""
    first_module: str | None
    """The first module in the order of computation whose output is not finite."""
    gradients: tuple[str, ...]
    """Parameters whose gradients are not finite."""
    exact: bool
    """Whether the weights were those of the step itself, or those of the last checkpoint, because no others were kept.
    """

    @property
    def failed_again(self) -> bool:
        """Whether loss or gradient is not finite this time either."""
        return not (math.isfinite(self.grad_norm) and all(map(math.isfinite, self.losses.values())))


def replay(out: Path, *, device: torch.device, train_data: str | None = None, val_data: str | None = None) -> Replay:
    """Compute the step of `out`/failure.json again, in a single process, and change nothing.

    Args:
        out: The run's folder.
        device: Where to compute.
        train_data: Where the training data are; where run.json says by default.
        val_data: Likewise.

    Raises:
        ResumeError: the run did not fail, or its files are of other data or cannot be read.
        DataError: the data cannot be read.
    """
    record, failure = _record(out), _failure(out)
    config = config_of_run(out)
    listed = record.get("train_list")
    if train_data is None and HIDDEN in record["train_data"]:
        raise ResumeError(f"{out / 'run.json'} keeps no secrets of URLs; say where the data are by --train-data")
    if val_data is None and HIDDEN in record["val_data"]:
        raise ResumeError(f"{out / 'run.json'} keeps no secrets of URLs; say where the data are by --val-data")
    data = open_data(
        config,
        train_data=train_data or record["train_data"],
        val_data=val_data or record["val_data"],
        train_list=None if listed is None else Path(listed),
    )
    if data.train.content_hash != record["identity"]["train_data_hash"]:
        raise ResumeError(f"these are not the training data of {out}; give its own by --train-data")
    folder = RunFolder(out)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        last = (
            None
            if failure["last_checkpoint"] is None
            else folder.checkpoint_path(0).parent / failure["last_checkpoint"]
        )
        wanted = None if last is not None else record["identity"].get("initial")
        run, _ = assemble(
            config,
            data,
            folder,
            None if last is None else load(last),
            device=device,
            initial=None if wanted is None else _initial(record, wanted, out),
        )
        exact = _restore(run, out, failure["weights"])
        return _look(run, int(failure["step"]), exact)


def _initial(record: Mapping[str, Any], wanted: str, out: Path) -> Checkpoint:
    """The checkpoint that the run began with, which no checkpoint of its own has replaced yet.

    Raises:
        ResumeError: run.json does not say where it is, it is not there any more, or it is another one.
    """
    path = record.get("initial")
    if path is None:
        raise ResumeError(
            f"{out} began with the checkpoint {wanted[:12]} (--from) and run.json does not say where that is; "
            "repeat the command of the run to the same failure in a new --out, and replay that"
        )
    try:
        found = load(Path(path))
    except BackboneError as error:
        raise ResumeError(
            f"{out} failed before its first checkpoint and began with {path}, which cannot be loaded ({error}); "
            "put it back there"
        ) from error
    if found.sha256 != wanted:
        raise ResumeError(
            f"{out} began with the checkpoint {wanted[:12]}, and {path} is now {found.sha256[:12]}; put the first back"
        )
    return found


def _look(run: Run, step: int, exact: bool) -> Replay:
    config, broken = run.config, list[str]()
    batch = next(
        train_batches(
            run.data.train,
            batch_size=config.batch_size,
            start_step=step,
            num_steps=1,
            seed=config.seed,
            tolerate=config.max_bad_samples > 0,
        )
    )
    names = {module: name for name, module in run.objective.named_modules()}

    def watch(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and not bool(output.isfinite().all()):
            broken.append(names[module] or type(module).__name__)

    handles = [module.register_forward_hook(watch) for module in names]
    try:
        losses = run.gradients(batch)
    finally:
        for handle in handles:
            handle.remove()
    gradients = {
        name: parameter.grad for name, parameter in run.objective.named_parameters() if parameter.grad is not None
    }
    return Replay(
        step=step,
        losses=dict(zip(batch.sample_ids.tolist(), losses.per_sample.double().tolist(), strict=True)),
        grad_norm=math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values())),
        first_module=broken[0] if broken else None,
        gradients=tuple(name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())),
        exact=exact,
    )


def _record(out: Path) -> dict[str, Any]:
    """What run.json says, with the data and the checkpoint that the run began with as texts."""
    record = run_record(out)
    identity = record["identity"]
    needed = (record.get("train_data"), record.get("val_data"), identity.get("train_data_hash"))
    others = (record.get("train_list"), record.get("initial"), identity.get("initial"))
    if not all(isinstance(text, str) for text in needed) or not all(isinstance(text, str | None) for text in others):
        raise ResumeError(f"{out / 'run.json'} does not say what data the run is of; restore it")
    return record


def _failure(out: Path) -> dict[str, Any]:
    file = out / "failure.json"
    if not file.is_file():
        raise ResumeError(f"{out} has no failure.json: no step of this run failed; give the folder of one that did")
    try:
        failure = parse_json(file.read_text(encoding="utf-8"))
        if not isinstance(failure, dict) or not is_number(failure.get("step"), whole=True):
            raise ValueError("it names no step")
        if not all(isinstance(failure[name], str | None) for name in ("last_checkpoint", "weights")):
            raise ValueError("its last_checkpoint and weights are no names")
    except (OSError, ValueError, KeyError) as error:
        raise ResumeError(f"{file} cannot be read ({error}); run the command of the run again to reach it") from error
    return failure


def _restore(run: Run, out: Path, weights: str | None) -> bool:
    """Fill in the weights of the step; False where there are none."""
    if weights is None:
        return False
    try:
        run.objective.load_state_dict(load_file(out / weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ResumeError(f"{out / weights} cannot be read ({error}); remove it to use the last checkpoint") from error
    return True
