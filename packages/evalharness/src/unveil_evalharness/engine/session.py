"""A room of its own for one training run.

mmengine keeps loggers, message hubs, visualisers and default scopes in per-class dicts and answers "the latest one"
when asked; mm packages print to stdout; everything reads the global random generators. `session` opens all of that for
one run and puts it back afterwards, so that many checkpoints × tasks run in one process without seeing each other.
"""

import contextlib
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unveil_evalharness.engine.stream import Purpose, derive_seed, seed_globals

if TYPE_CHECKING:
    import mmengine.logging

__all__ = ["Session", "restored_random_state", "session"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """An open session; give it to `train_and_evaluate`."""

    name: str
    """Unique in this process."""
    scope: str
    """mmengine's default registry scope: ``"mmengine"``, ``"mmdet"`` or ``"mmseg"``."""
    work_dir: Path
    seed: int
    logger: "mmengine.logging.MMLogger"
    """Writes to ``<work_dir>/train.log`` only."""


def _manager_classes() -> list[Any]:
    """All classes whose instances mmengine keeps by name, with their subclasses."""
    from mmengine.utils import ManagerMixin

    found: list[Any] = []
    waiting = list(ManagerMixin.__subclasses__())
    while waiting:
        found.append(waiting.pop())
        waiting.extend(found[-1].__subclasses__())
    return found


@contextlib.contextmanager
def _restored_managers() -> Iterator[None]:
    from mmengine.logging import MMLogger

    before = {manager: dict(manager._instance_dict) for manager in _manager_classes()}
    try:
        yield
    finally:
        for manager in _manager_classes():
            kept = before.get(manager, {})
            for name, instance in manager._instance_dict.items():
                if isinstance(instance, MMLogger) and name not in kept:
                    for handler in instance.handlers:
                        handler.close()
            manager._instance_dict.clear()
            manager._instance_dict.update(kept)


@contextlib.contextmanager
def restored_random_state() -> Iterator[None]:
    """Puts the global generators (``random``, numpy, torch on the CPU) back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - the legacy global generator is what is restored
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def session(*, scope: str, work_dir: Path, seed: int) -> Iterator[Session]:
    """Opens a session: builds of models, datasets and metrics belong inside as well as the training.

    Inside, mm's default scope is `scope`, the global generators are seeded for initialisation, and stdout goes to
    ``<work_dir>/train.log`` (stdout belongs to the results table). Afterwards all of it is as before.

    Args:
        scope: ``"mmengine"``, ``"mmdet"`` or ``"mmseg"``.
        work_dir: existing folder for logs and interim checkpoints.
        seed: the run's seed.
    """
    from unveil_evalharness import compat

    compat.install()
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    name = f"{scope}-{uuid.uuid4().hex[:12]}"
    log_path = work_dir / "train.log"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_restored_managers())
        stack.enter_context(restored_random_state())
        log_file = stack.enter_context(log_path.open("a", encoding="utf-8", buffering=1))
        stack.enter_context(contextlib.redirect_stdout(log_file))
        stack.enter_context(compat.third_party_warnings())
        # The logger's stream handler takes the redirected stdout, so that both kinds of line end in one file, in order.
        logger = MMLogger.get_instance(name, log_level="INFO")
        DefaultScope.get_instance(name, scope_name=scope)
        seed_globals(derive_seed(seed, Purpose.INITIALISATION))
        yield Session(name=name, scope=scope, work_dir=work_dir, seed=seed, logger=logger)
