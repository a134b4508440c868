"""A run in a process of its own that writes down what it sees, and kills itself where `resume_proof.py` says."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from unveil_backbones.errors import BackboneError
from unveil_masking import MaskingError

from unveil_pretrain import checkpointing, loop
from unveil_pretrain.data import Batch
from unveil_pretrain.errors import PretrainError
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.run import DeviceName, Run
from unveil_pretrain.stored_config import config_from_json
from unveil_pretrain.train_state import Position, save_train_state
from unveil_pretrain.update import StepMetrics, train_step

__all__ = ["ChildRun", "compute"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildRun:
    """One start of a run."""

    config: Mapping[str, object]
    """As `config_to_json` gives it."""
    out: Path
    """The run's folder."""
    seen: Path
    """File for what each step saw: hashes of samples, pixels and masks."""
    train_data: str
    val_data: str
    device: DeviceName = "auto"
    num_workers: int = 0
    micro_batch_size: int = 0
    kill_in_step: int | None = None
    """Kill the process in the middle of this step, counted from 0: gradients are there, the weights not yet updated."""
    kill_in_checkpoint: int | None = None
    """Kill the process while it writes the checkpoint of this step."""


def compute(child: ChildRun) -> None:
    """Train until the end, or until the kill. Changes modules, so it is for a process that ends with it."""
    update, save_state = train_step, save_train_state
    masks: list[str] = []

    def watched(run: Run, position: Position, batch: Batch) -> StepMetrics:
        if not masks:
            _watch_masks(run.objective, masks)
        del masks[:]
        masks.append("")
        if position.step == child.kill_in_step:
            run.gradients(batch)
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = update(run, position, batch)
        row = {"step": position.step + 1, "samples": _hash([batch.sample_ids, batch.epochs])}
        row |= {
            "pixels": _hash([batch.images]),
            "captions": _text_hash(batch.captions or ()),
            "masks": _text_hash(masks),
        }
        with child.seen.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        return metrics

    def cut_short(folder: Path, **given: Any) -> None:
        save_state(folder, **given)
        if given["position"].step == child.kill_in_checkpoint:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(loop, "train_step", watched)  # noqa: B010
    setattr(checkpointing, "save_train_state", cut_short)  # noqa: B010
    try:
        loop.train(
            config_from_json(child.config),
            out=child.out,
            train_data=child.train_data,
            val_data=child.val_data,
            device=child.device,
            num_workers=child.num_workers,
            micro_batch_size=child.micro_batch_size,
            loggers=(),
            log=lambda _: None,
            progress=False,
        )
    except (PretrainError, BackboneError, MaskingError) as error:
        sys.stderr.write(f"pretrain: error: {error}\n")
        raise SystemExit(2) from None


class _Watched:
    """A masking strategy that writes down a hash of every mask it gives."""

    def __init__(self, strategy: Any, seen: list[str]) -> None:
        self._strategy, self._seen = strategy, seen

    def sample(self, *given: Any, **named: Any) -> Any:
        partition = self._strategy.sample(*given, **named)
        tensors = [getattr(partition, name, None) for name in ("keep", "hidden", "mask")]
        self._seen.append(_hash([tensor for tensor in tensors if isinstance(tensor, Tensor)]))
        return partition

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)


def _watch_masks(objective: Objective, seen: list[str]) -> None:
    for name, value in list(vars(objective).items()):
        if callable(getattr(value, "sample", None)):
            setattr(objective, name, _Watched(value, seen))


def _hash(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _text_hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
