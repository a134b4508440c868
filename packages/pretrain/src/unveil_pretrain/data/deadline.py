"""Calls that may hang, for example in a network file system whose server is gone: no signal interrupts them.

Such a call runs in a thread of its own. If it takes too long, the thread is left behind; it holds nothing but itself,
and ends with the process.
"""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Deadline", "serve"]

_Result = TypeVar("_Result")
_Task = tuple[Callable[[], Any], Future[Any]]


class Deadline:
    """Makes calls that end in time, whether by themselves or not; can be sent to another process."""

    def __init__(self) -> None:
        self._helpers = _Helpers()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._helpers = _Helpers()

    def call(self, function: Callable[[], _Result], timeout: float) -> _Result:
        """What `function` returns or raises.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        if self._helpers.pid != os.getpid():  # threads do not survive a fork
            self._helpers = _Helpers()
        helpers = self._helpers
        helper = helpers.of_thread()
        try:
            return helper.call(function, timeout)
        except TimeoutError:
            helpers.forget()
            raise


class _Helpers(threading.local):
    """The helper of each thread of one process; every thread sees attributes of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()  # in a forked child the thread that forked still sees its parent's
        self._helper: _Helper | None = None

    def of_thread(self) -> "_Helper":
        if self._helper is None:
            self._helper = _Helper()
        return self._helper

    def forget(self) -> None:
        self._helper = None


class _Helper:
    """A thread that makes calls for one other thread, which waits for them, but not for ever."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        # Not ThreadPoolExecutor's: the interpreter would wait for a hanging one before it ends.
        threading.Thread(target=serve, args=(self._tasks,), name="reading", daemon=True).start()
        weakref.finalize(self, self._tasks.put, None)  # once nobody holds it, its thread ends when it is free

    def call(self, function: Callable[[], _Result], timeout: float) -> _Result:
        future: Future[_Result] = Future()
        self._tasks.put((function, future))
        return future.result(timeout)


def serve(tasks: "SimpleQueue[_Task | None]") -> None:
    """Do tasks, unless they were cancelled, until None comes."""
    while (task := tasks.get()) is not None:
        function, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # handed to the thread that waits
                future.set_exception(error)
        del task, function, future
