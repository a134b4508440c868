"""A process that has imported what is slow to import, and forks a child for every run: a start costs milliseconds.

    python fork_server.py MODULE ...        imports the modules, then reads a job as JSON from each line of stdin

Children are sessions of their own, so that what they leave behind can be found.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

__all__ = ["Ended", "ForkServer"]

HERE = Path(__file__).parent
FOR_EVER = 120.0  # seconds; no run of these tests takes a tenth of it


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code, or minus the signal."""
    out: str
    err: str
    seconds: float
    left: tuple[int, ...]
    """Processes of its session that were there longer than the patience with them, and have been ended."""


class ForkServer:
    """Starts children; close it at the end."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=folder,
        )  # fmt: skip
        self.number = 0

    def run(
        self,
        target: str,
        *given: object,
        signals: tuple[tuple[float, int], ...] = (),
        when: Path | None = None,
        patience: float = 6.0,
    ) -> Ended:
        """Call `target` ("module:function") with JSON-able arguments in a child.

        Args:
            target: What to call; what it prints is kept.
            given: Its arguments.
            signals: Seconds and signal, in turn: each is sent so long after the one before.
            when: The clock of the first signal starts when this file is there.
            patience: Seconds that the other processes of its session get to end after it.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.number += 1
        out, err = (self.folder / f"child{self.number}.{kind}" for kind in ("out", "err"))
        job = {"target": target, "given": given, "out": str(out), "err": str(err), "signals": signals,
               "patience": patience}  # fmt: skip
        self.process.stdin.write(json.dumps(job | {"when": None if when is None else str(when)}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the fork server has ended"
        said = json.loads(line)
        texts = [file.read_text(errors="replace") for file in (out, err)]
        out.unlink()
        err.unlink()
        return Ended(said["code"], *texts, said["seconds"], tuple(said["left"]))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # An end of the pipe would not do: processes that were forked from here since may hold the other end.
        self.process.stdin.write("\n")
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def child(job) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job["err" if name == "err" else "out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    module, _, function = job["target"].partition(":")
    code = 1
    try:
        getattr(import_module(module), function)(*job["given"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def watch(pid: int, job) -> int:
    """Send the signals at their times, and wait."""
    waiting, when = list(job["signals"]), None if job["when"] is None else Path(job["when"])
    since = begun = time.monotonic()
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        now = time.monotonic()
        if found:
            return os.waitstatus_to_exitcode(status)
        if when is not None:
            since, when = now, None if when.exists() else when
        elif waiting and now - since >= waiting[0][0]:
            os.kill(pid, waiting.pop(0)[1])
            since = now
        if now - begun > FOR_EVER:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:  # it has ended meanwhile
            continue
        if fields and int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def serve(modules: list[str]) -> None:
    for name in modules:
        import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        if not line.strip():
            break
        job, begun = json.loads(line), time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(job)
        code = watch(pid, job)
        seconds = time.monotonic() - begun
        patience = time.monotonic() + job["patience"]
        while (left := members(pid)) and time.monotonic() < patience:
            time.sleep(0.05)
        for orphan in left:
            os.kill(orphan, signal.SIGKILL)
        answers.write(json.dumps({"code": code, "seconds": seconds, "left": left}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    serve(sys.argv[1:])
