"""Processes that compute one thing together and wait for their turn: started once, timed many times, in any order.

The parent writes a number of repetitions to each; each answers with a line of what a `Turn` has.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

__all__ = ["Group", "Turn", "answer_turns", "tcp_bytes_sent"]

_BYTES_SENT = 200
"""Where struct tcp_info of <linux/tcp.h> has tcpi_bytes_sent, 8 bytes; since Linux 4.19."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One repetition."""

    wall: float
    """Seconds until the last process was done."""
    cpu: float
    """Processor seconds, of all threads of the process that took most."""
    sent: float | None
    """Bytes over TCP, of the process that sent most; None where that is not what they talk over."""


class Group:
    """Processes of one module, connected as torchrun's would be; ended with the `with`."""

    def __init__(self, module: str, num: int, words: Sequence[str]) -> None:
        """Start them.

        Args:
            module: As for `python -m`; it calls `answer_turns`.
            num: How many.
            words: The arguments of each.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = os.environ | {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self._errors: list[IO[str]] = [tempfile.TemporaryFile("w+") for _ in range(num)]  # noqa: SIM115  # closed by `with`
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors[rank],
                text=True,
            )
            for rank in range(num)
        ]

    def turn(self, times: int) -> Turn:
        """Let them do it so many times; figures are of one.

        Raises:
            SystemExit: one of them has ended; with what it said.
        """
        for process in self._processes:
            self._pipe(process.stdin).write(f"{times}\n")
            self._pipe(process.stdin).flush()
        said = [self._pipe(process.stdout).readline() for process in self._processes]
        if not all(said):
            rank = said.index("")
            self._processes[rank].wait()
            self._errors[rank].seek(0)
            raise SystemExit(f"process {rank} of {len(said)} has ended:\n{self._errors[rank].read()}")
        found = [json.loads(line) for line in said]
        sent = [one["sent"] for one in found if one["sent"] is not None]
        return Turn(max(one["wall"] for one in found), max(one["cpu"] for one in found), max(sent) if sent else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill() if kind is not None else process.communicate()
        for process, errors in zip(self._processes, self._errors, strict=True):
            process.wait()
            for stream in (process.stdin, process.stdout, errors):
                self._pipe(stream).close()

    @staticmethod
    def _pipe(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


def answer_turns(measure: Callable[[int], Turn]) -> None:
    """Do what the parent asks for, until it closes the pipe.

    Args:
        measure: Does it so many times; figures are of one.
    """
    for line in sys.stdin:
        turn = measure(int(line))
        print(json.dumps({"wall": turn.wall, "cpu": turn.cpu, "sent": turn.sent}), flush=True)


def tcp_bytes_sent() -> int | None:
    """What this process has sent over the TCP connections that it has now; None where the system does not count it."""
    if not hasattr(socket, "TCP_INFO") or not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        return None
    total = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):  # noqa: PTH115
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
                    continue
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed meanwhile, as the one that lists the folder is
            continue
        if len(info) < _BYTES_SENT + 8:
            return None
        total += int.from_bytes(info[_BYTES_SENT : _BYTES_SENT + 8], sys.byteorder)
    return total
