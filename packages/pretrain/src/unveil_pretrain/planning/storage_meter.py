"""How many bytes of tensors are alive at once, and the most there have been, without computing anything.

Used with tensors that have no data (`torch._subclasses.FakeTensorMode`): every operation is announced with the shapes
it would give, and a storage counts from the operation that made it until Python and autograd have let go of it. So the
order in which a real step would allocate and free is followed exactly; what a kernel takes and gives back inside is not
seen.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

__all__ = ["StorageMeter"]


class StorageMeter(TorchDispatchMode):
    """Counts the storages of all tensors that operations inside of a `with` return.

    Attributes:
        now: Bytes alive.
        peak: The most there have been since the beginning, or since `reset_peak`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor that was there before."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self.now += self._alive[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key)

    def reset_peak(self) -> None:
        """Forget all but what is alive now."""
        self.peak = self.now

    def _remove(self, key: int) -> None:
        self.now -= self._alive.pop(key)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.add(value)
        return result
