"""What a recording session holds: models by name, filled by formula, and the numbers of cases run on them."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import golden_numbers as numbers
import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Ran", "Recording"]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came out of a case, by name; gradients of parameters are read from the model afterwards."""

    outputs: Mapping[str, Tensor]
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)


class Recording:
    """Collects models and cases of one reference implementation.

    Args:
        repository: Where the reference is from.
        licence: Its licence.
        files: Which of its files were run.
        clone: Root of the clone, whose commit is noted; None for an installed package.
        versions: Versions of the packages that took part, by name.
    """

    def __init__(
        self, *, repository: str, licence: str, files: Sequence[str], clone: Path | None, versions: Mapping[str, str]
    ) -> None:
        self._source = {
            "repository": repository,
            "licence": licence,
            "files": list(files),
            "commit": _commit(clone) if clone else None,
            "versions": {"torch": torch.__version__, "numpy": np.__version__, **versions},
            "recorded": datetime.now(UTC).date().isoformat(),
        }
        self._models: dict[str, Any] = {}
        self._cases: dict[str, Any] = {}

    def fill(self, name: str, model: nn.Module, settings: Mapping[str, Any]) -> nn.Module:
        """Fill a model by formula and note its tensors; buffers and parameters that do not train stay as they are.

        Returns:
            The model in evaluation mode.
        """
        trained = {key for key, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
        state = model.state_dict()
        shapes = {key: list(value.shape) for key, value in state.items() if key in trained}
        fixed = {key: _fixed(key, value) for key, value in state.items() if key not in trained}
        model.load_state_dict({**state, **numbers.weights(shapes)})
        self.note(name, settings, shapes, fixed)
        return model.eval()

    def note(self, name: str, settings: Mapping[str, Any], shapes: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        """Note the tensors of a model that was filled in another way."""
        self._models[name] = {"settings": dict(settings), "shapes": shapes, "fixed": fixed}

    def case(self, name: str, model: nn.Module, run: Callable[[torch.dtype], Ran], given: Mapping[str, Any]) -> None:
        """Run a case in float64 and note its numbers, then in float32 and note how far it is from them.

        Args:
            name: Name of the case, and of the model if none of another name was filled for it.
            model: The reference, filled.
            run: Runs it on inputs of the dtype.
            given: What the inputs were.
        """
        model.double().zero_grad()
        ran = run(torch.float64)
        gradients = {**_gradients(model), **ran.gradients}
        case = {
            "model": given.get("model", name),
            "given": {key: value for key, value in given.items() if key != "model"},
            "outputs": {key: numbers.output_numbers(key, value) for key, value in ran.outputs.items()},
            "losses": {key: value.item() for key, value in ran.losses.items()},
            "gradients": {key: numbers.gradient_numbers(key, value) for key, value in gradients.items()},
        }
        model.float().zero_grad()
        single = run(torch.float32)
        case["float32"] = {
            "forward": max(
                numbers.output_difference(key, value, case["outputs"][key]) for key, value in single.outputs.items()
            ),
            "backward": numbers.gradient_difference({**_gradients(model), **single.gradients}, case["gradients"]),
        }
        self._cases[name] = case

    def content(self, command: Sequence[str]) -> dict[str, Any]:
        """Return everything, with the command that made it."""
        return {
            "source": {**self._source, "command": " ".join(command), "dtype": "float64"},
            "models": self._models,
            "cases": self._cases,
        }


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


def _fixed(name: str, value: Tensor) -> dict[str, Any]:
    """A tensor that is not filled: its shape, and its numbers if they are floating."""
    if not value.is_floating_point():
        return {"shape": list(value.shape)}
    return numbers.output_numbers(name, value)


def _commit(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
