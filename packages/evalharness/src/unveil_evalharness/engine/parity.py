"""Two gates before any training: is the encoder in the task's model really the checkpoint's encoder?

*Load coverage*: every tensor of the checkpoint's encoder is in the task's model under the expected name, with the same
shape and the same values, and no other is beside them. *Forward parity*: one image gives the same features through
both. A task that fails either would measure something else than it says, so both raise `GateError` and nothing is
trained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unveil_evalharness.errors import GateError

__all__ = ["MAX_DIFFERENCE", "check_forward_parity", "check_load_coverage", "probe_image"]

MAX_DIFFERENCE = 1e-5
"""Largest allowed absolute difference of a feature, in float32."""

_NAMES_SHOWN = 5


def check_load_coverage(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor], *, prefix: str = "") -> float:
    """The fraction of the encoder's tensors found in the task's model, which must be 1.

    Args:
        expected: the checkpoint encoder's ``state_dict()``.
        actual: the task model's ``state_dict()``.
        prefix: where the encoder, and nothing else, sits in the model, such as ``"backbone.encoder."``.

    Returns:
        1.0.

    Raises:
        GateError: a tensor is missing, has another shape, has other values, or is one that the checkpoint has not;
            names the first of each kind.
    """
    missing, reshaped, changed = [], [], []
    for name, tensor in expected.items():
        found = actual.get(prefix + name)
        if found is None:
            missing.append(name)
        elif found.shape != tensor.shape:
            reshaped.append(f"{name} {tuple(tensor.shape)} became {tuple(found.shape)}")
        elif not torch.equal(found.detach().cpu(), tensor.detach().cpu().to(found.dtype)):
            changed.append(name)
    if not expected:
        raise GateError("load coverage: the checkpoint's encoder holds no tensor; was it loaded?")
    own = {name.removeprefix(prefix) for name in actual if name.startswith(prefix)}
    extra = sorted(own - expected.keys())
    failed, num_tensors = len(missing) + len(reshaped) + len(changed) + len(extra), len(expected.keys() | own)
    if failed == 0:
        return 1.0
    kinds = {
        "missing": missing,
        "of another shape": reshaped,
        "with other values": changed,
        "not in the checkpoint": extra,
    }
    parts = [f"{len(names)} {kind}: {', '.join(names[:_NAMES_SHOWN])}" for kind, names in kinds.items() if names]
    raise GateError(
        f"load coverage {1 - failed / num_tensors:.4f} under {prefix!r}, must be 1: {'; '.join(parts)}; "
        "load the checkpoint's encoder into the model by strict load_state_dict after initialising the heads"
    )


def probe_image(height: int, width: int) -> Float[Tensor, "1 3 h w"]:
    """A fixed image without symmetry: standard-normal pixels from a fixed generator, as if normalised."""
    generator = torch.Generator().manual_seed(20221201)
    return torch.randn(1, 3, height, width, generator=generator)


@contextmanager
def _evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Puts modules into evaluation mode and afterwards every submodule back as it was."""
    before = [(module, module.training) for root in modules for module in root.modules()]
    try:
        for root in modules:
            root.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def check_forward_parity(
    reference: nn.Module,
    task_model: nn.Module,
    *,
    reference_features: Callable[[Tensor], Sequence[Tensor]],
    task_features: Callable[[Tensor], Sequence[Tensor]],
    image: Float[Tensor, "1 3 h w"],
    tolerance: float = MAX_DIFFERENCE,
) -> float:
    """The largest absolute difference between the features of both sides, at most `tolerance`.

    Args:
        reference: the checkpoint's encoder, for its evaluation mode.
        task_model: the task's model, for its evaluation mode.
        reference_features: image to feature maps through the checkpoint, such as ``encoder.features``.
        task_features: image to the same maps through the task's model, by the path that training uses.
        image: see `probe_image`; of a size that the task trains on.
        tolerance: see `MAX_DIFFERENCE`.

    Raises:
        GateError: another number of maps, another shape, or too large a difference; names the map.
    """
    with torch.no_grad(), _evaluation_mode([reference, task_model]):
        expected, actual = list(reference_features(image)), list(task_features(image))
    if len(expected) != len(actual):
        raise GateError(f"forward parity: the checkpoint gives {len(expected)} feature maps, the task {len(actual)}")
    worst = 0.0
    for level, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
        if wanted.shape != found.shape:
            raise GateError(
                f"forward parity: feature map {level} is {tuple(wanted.shape)} through the checkpoint, "
                f"{tuple(found.shape)} through the task"
            )
        difference = float((wanted.float() - found.float()).abs().max())
        # `not <=` also refuses not-a-number.
        if not difference <= tolerance:
            raise GateError(
                f"forward parity: feature map {level} differs by {difference:.3g}, allowed {tolerance:.0e}; the task's "
                "backbone must run the checkpoint's encoder unchanged (same weights, image size and normalisation)"
            )
        worst = max(worst, difference)
    return worst
