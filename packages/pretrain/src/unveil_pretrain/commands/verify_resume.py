"""`pretrain verify-resume RECIPE`: prove that a run can be killed and continued without a trace."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.commands.training import recipe_named
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.resume_proof import ResumeProof, prove_resume
from unveil_pretrain.run import DeviceName

__all__ = ["VerifyFlip", "VerifyMim", "run"]

# N, unless --steps says otherwise: a recipe's own steps are for training.
_STEPS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofPlace:
    """Where the proof reads, writes and computes."""

    train_data: str
    """Training shards or image folder, as for `pretrain mim`."""
    val_data: str
    """Validation data, likewise."""
    folder: Path | None = None
    """Keep the two runs in this new folder; without it they are removed."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    num_workers: int = 0
    """Processes that decode images."""
    micro_batch_size: int = 0
    """Images to compute at once; 0 for all of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyMim:
    """2N steps at once against 2N steps with two kills; `--steps N`, all other settings as for `pretrain mim`."""

    place: ProofPlace
    config: MimConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyFlip:
    """2N steps at once against 2N steps with two kills; `--steps N`, all other settings as for `pretrain flip`."""

    place: ProofPlace
    config: FlipConfig


def run(given: Sequence[str]) -> int:
    """Print what was proved and exit with 0, or with the first difference and 1."""
    command = _parsed(given)
    config, place = command.config, command.place
    if place.folder is not None and place.folder.exists():
        raise ConfigError(f"{place.folder} exists; give a new --folder")
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as temporary:
        proof = prove_resume(
            config,
            folder=place.folder or Path(temporary),
            train_data=place.train_data,
            val_data=place.val_data,
            num_steps=config.steps,
            device=place.device,
            num_workers=place.num_workers,
            micro_batch_size=place.micro_batch_size,
        )
    print("\n".join(_lines(proof, config.steps)))
    return int(proof.difference is not None)


def _parsed(given: Sequence[str]) -> VerifyMim | VerifyFlip:
    place = ProofPlace(train_data=tyro.MISSING, val_data=tyro.MISSING)
    prog = f"pretrain verify-resume {given[0] if given else ''}".strip()
    if given and given[0] in FLIP_RECIPES:
        flip = replace(recipe_named("flip", FLIP_RECIPES, given), steps=_STEPS)
        return parse(VerifyFlip, given[1:], prog=prog, default=VerifyFlip(place=place, config=flip))
    mim = replace(recipe_named("verify-resume", MIM_RECIPES, given), steps=_STEPS)
    return parse(VerifyMim, given[1:], prog=prog, default=VerifyMim(place=place, config=mim))


def _lines(proof: ResumeProof, num_steps: int) -> list[str]:
    lines = [f"equal: {what}" for what in proof.compared]
    if proof.difference is not None:
        return [*lines, f"DIFFERENT: {proof.difference}"]
    return [*lines, f"{2 * num_steps} steps at once and with two kills (SIGKILL) end with the same bits"]
