"""The bookkeeping of a conversion: which tensor became what, in both directions, and that nothing is left over."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unveil_backbones.checkpoint import check_finite, fill
from unveil_backbones.errors import CoverageError, TensorMismatchError

__all__ = ["Ledger", "Link", "fill_linked", "joined", "same", "spread", "stacked", "transposed", "with_shape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One tensor of ours and the foreign tensors that hold the same numbers."""

    ours: str
    """Name in our state dict."""
    theirs: tuple[str, ...]
    """Names in the foreign one."""
    join: Callable[[Sequence[Tensor]], Tensor]
    """Foreign tensors to ours."""
    split: Callable[[Tensor], Sequence[Tensor]]
    """Ours to the foreign ones; undoes ``join`` exactly."""


def same(ours: str, theirs: str) -> Link:
    """Link two names of one tensor."""
    return Link(ours=ours, theirs=(theirs,), join=lambda parts: parts[0], split=lambda tensor: [tensor])


def stacked(ours: str, theirs: tuple[str, ...]) -> Link:
    """Link a tensor to the equal parts of its first axis: a joint projection to query, key and value."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        if len({part.shape for part in parts}) > 1:
            raise TensorMismatchError(f"{', '.join(theirs)} have different shapes; they are parts of one tensor")
        return torch.cat(list(parts))

    return Link(ours=ours, theirs=theirs, join=join, split=lambda tensor: tensor.chunk(len(theirs)))


def transposed(ours: str, theirs: str) -> Link:
    """Link a matrix to its transpose."""
    return Link(ours=ours, theirs=(theirs,), join=lambda parts: parts[0].T, split=lambda tensor: [tensor.T])


def with_shape(ours: str, theirs: str, our_shape: tuple[int, ...], their_shape: tuple[int, ...]) -> Link:
    """Link a tensor to one with the same numbers in another shape."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        if tuple(parts[0].shape) != their_shape:
            raise TensorMismatchError(
                f"{theirs} has shape {tuple(parts[0].shape)} instead of {their_shape}; "
                "give the architecture the file has"
            )
        return parts[0].reshape(our_shape)

    return Link(ours=ours, theirs=(theirs,), join=join, split=lambda tensor: [tensor.reshape(their_shape)])


class Ledger:
    """The tensors of a foreign file, each to be used or knowingly dropped once.

    Attributes:
        where: Name of the file in messages.
        tensors: All of them.
        dropped: Names that are not used, by reason.
    """

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self.where = where
        self.tensors = dict(tensors)
        self.dropped: dict[str, tuple[str, ...]] = {}
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    @property
    def num_used(self) -> int:
        """Tensors that became weights."""
        return len(self._used)

    def look(self, name: str, axes: int) -> Tensor:
        """Return a tensor to learn from its shape or values, without using it.

        Args:
            name: Its name.
            axes: The number of axes it has to have.

        Raises:
            CoverageError: There is none of that name.
            TensorMismatchError: It has another number of axes, or an empty one.
        """
        if name not in self.tensors:
            raise CoverageError(
                f"{self.where} has no tensor {name!r}; its {len(self.tensors)} tensors begin with "
                f"{', '.join(sorted(self.tensors)[:4])}; give the format the file really has"
            )
        tensor = self.tensors[name]
        if tensor.dim() != axes or not tensor.numel():
            raise TensorMismatchError(
                f"{self.where}: {name} has shape {tuple(tensor.shape)} instead of {axes} axes with entries; "
                "give the format the file really has"
            )
        return tensor

    def take(self, name: str) -> Tensor:
        """Return a tensor and note that it was used."""
        self._used.add(name)
        return self.tensors[name]

    def drop(self, names: Iterable[str], reason: str) -> None:
        """Note that those of the names that exist are knowingly not used."""
        found = tuple(sorted(name for name in names if name in self.tensors))
        if found:
            self.dropped[reason] = (*self.dropped.get(reason, ()), *found)

    def prefix(self, name: str) -> str:
        """Return what stands before ``name`` in this file: nothing, ``module.``, ``encoder.`` ...

        Raises:
            CoverageError: No tensor, or more than one, ends in ``name``.
        """
        found = sorted(key.removesuffix(name) for key in self.tensors if key == name or key.endswith(f".{name}"))
        if len(found) == 1 or "" in found:
            return found[0]
        what = f"several models, below {', '.join(found)}" if found else f"no tensor {name!r}"
        raise CoverageError(
            f"{self.where} has {what}; its {len(self.tensors)} tensors begin with {_some(sorted(self.tensors), 4)}; "
            "give the format the file really has, with one model in it"
        )

    def check_room(self, num_weights: int) -> None:
        """Refuse a model with more than twice the weights of the file: a small file must not make a large one be built.

        What lacks less is refused later, tensor by tensor.

        Args:
            num_weights: Weights that the model has at least.

        Raises:
            CoverageError: The file has fewer numbers.
        """
        held = sum(tensor.numel() for tensor in self.tensors.values())
        if 2 * held < num_weights:
            raise CoverageError(
                f"{self.where} holds {held} numbers, the model that its shapes describe at least {num_weights}; "
                "tensors are missing; copy it again or give the format the file really has"
            )

    def depth(self, stem: str) -> int:
        """Return how many numbered blocks follow ``stem``, such as ``blocks.``."""
        numbers = {key.removeprefix(stem).split(".")[0] for key in self.tensors if key.startswith(stem)}
        return max((int(number) + 1 for number in numbers if number.isdecimal() and len(number) < 5), default=0)

    def finish(self, missing: Sequence[str] = ()) -> None:
        """Refuse tensors that nobody used or dropped, and those that are needed and absent.

        Raises:
            CoverageError: There are some; names them.
        """
        known = self._used.union(*self.dropped.values())
        left = sorted(self.tensors.keys() - known)
        if left or missing:
            raise CoverageError(
                f"{self.where}: {len(left)} tensors neither used nor knowingly dropped ({_some(left)}); "
                f"{len(missing)} needed and missing ({_some(sorted(missing))}); a conversion covers everything; "
                "give the format and architecture the file really has"
            )


def fill_linked(model: nn.Module, links: Sequence[Link], ledger: Ledger) -> None:
    """Fill a model from a foreign file; every tensor of both sides is accounted for, and is a finite number.

    Raises:
        CoverageError: A tensor is left over or missing on either side.
        TensorMismatchError: A tensor has another shape or type.
        NonFiniteError: A weight is NaN or infinite.
    """
    missing = [name for link in links for name in link.theirs if name not in ledger]
    present = [link for link in links if all(name in ledger for name in link.theirs)]
    sources = [(link, [ledger.take(name) for name in link.theirs]) for link in present]
    ledger.finish([*missing, *sorted(model.state_dict().keys() - {link.ours for link in links})])
    state = {}
    for link, parts in sources:
        try:
            state[link.ours] = link.join(parts)
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in zip(link.theirs, parts, strict=True))
            raise TensorMismatchError(
                f"{ledger.where}: {shapes} do not make {link.ours} ({error}); give the architecture the file has"
            ) from error
    check_finite(state, ledger.where)
    fill(model, state, ledger.where)


def joined(links: Sequence[Link], ledger: Ledger) -> dict[str, Tensor]:
    """Return the tensors that links make, by our names; to be called before `fill_linked`, which ends the bookkeeping.

    Raises:
        CoverageError: A tensor is missing.
        TensorMismatchError: One has another shape than its place.
        NonFiniteError: A value is NaN or infinite.
    """
    missing = sorted(name for link in links for name in link.theirs if name not in ledger)
    if missing:
        raise CoverageError(
            f"{ledger.where}: {len(missing)} tensors of its objective are missing ({_some(missing)}); a decoder is "
            "read whole or not at all; copy the file again, or take the encoder's tensors alone"
        )
    tensors = {link.ours: link.join([ledger.take(name) for name in link.theirs]) for link in links}
    check_finite(tensors, ledger.where)
    return tensors


def spread(model: nn.Module, links: Sequence[Link]) -> dict[str, Tensor]:
    """Return the foreign tensors of a model of ours.

    Raises:
        CoverageError: A tensor of ours has no link.
    """
    state = model.state_dict()
    unlinked = sorted(state.keys() - {link.ours for link in links})
    if unlinked:
        raise CoverageError(f"no place in the other layout for {_some(unlinked)}; export it to another layout")
    result: dict[str, Tensor] = {}
    for link in links:
        result.update(zip(link.theirs, link.split(state[link.ours]), strict=True))
    return result


def _some(names: Sequence[str], most: int = 6) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
