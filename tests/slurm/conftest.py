"""A SLURM of one node, small data, and what to ask of both."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "slurm_on_loopback.sh"
PATIENCE = 240  # seconds; a machine that does other things too


class Cluster:
    """The one-node SLURM of tools/slurm_on_loopback.sh, and no other."""

    def __init__(self, conf):
        self.conf = conf

    def until(self, condition, what, seconds=PATIENCE):
        """Look ten times a second; gives the first true answer."""
        end = time.monotonic() + seconds
        while not (answer := condition()):
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            time.sleep(0.1)
        return answer

    def ask(self, *words):
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def queue(self):
        """Numbers of the jobs and their states."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait_until_empty(self):
        self.until(lambda: not self.queue(), "the queue to be empty")

    def node_processes(self, *names):
        """Processes of this cluster's node of such names; those of another SLURM have another configuration."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                named = (folder / "comm").read_text().strip() in names
                if named and f"SLURM_CONF={self.conf}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def break_node(self, stopped):
        """SIGKILL for the node's daemon and for what watches over its jobs; the jobs' own processes are left alone.

        A stopped process whose group loses its parent would be sent SIGHUP: this one runs on for the moment.
        """
        victims = self.node_processes("slurmd", "slurmstepd")
        assert len(victims) >= 2, "a daemon, and the guard of a job"
        os.kill(stopped, signal.SIGCONT)
        for number in victims:
            with contextlib.suppress(ProcessLookupError):  # the guards of a job's steps end with each other
                os.kill(number, signal.SIGKILL)
        os.kill(stopped, signal.SIGSTOP)
        self.until(lambda: not self.node_processes("slurmd", "slurmstepd"), "the killed processes to go")

    def start(self):
        done = subprocess.run(["bash", str(SCRIPT), "start"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def command(self, module, *words, cwd=None, code=0):
        """One of the programs, as a shell would run it."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def rows(self, file):
        """The rows of a JSON-lines file that are whole by now."""
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def each_alone(self, rows):
        """Whether a cell's attempts follow each other: each has ended, or was killed, before the next one began."""
        ends = {row["process"]: row["time"] for row in rows if row["event"] == "ended"}
        starts = [row for row in rows if row["event"] == "started"]
        finished = [ends.get(row["process"], row["time"]) for row in starts]
        return all(later["time"] >= end for later, end in zip(starts[1:], finished, strict=False))


@pytest.fixture(scope="session")
def whole_session():
    """The cluster, asked once."""
    told = subprocess.run(["bash", str(SCRIPT), "status"], capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"no SLURM answers; run `{SCRIPT.name} install` and `{SCRIPT.name} start` in tools/")
    line = subprocess.run(["bash", str(SCRIPT), "env"], capture_output=True, text=True, check=True).stdout
    conf = line.strip().partition("=")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", conf)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Cluster(conf)


@pytest.fixture
def slurm(whole_session):
    """The cluster for one test at a time, with an empty queue before and after."""
    with Path(whole_session.conf).with_name("tests.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest share it
        yield whole_session
        subprocess.run(["scancel", f"--user={os.getuid()}"], capture_output=True, check=False)
        with contextlib.suppress(AssertionError):
            whole_session.until(lambda: not whole_session.queue(), "cancelled jobs to leave", 60)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Forty training and eight validation images."""
    from unveil_pretrain.scenes import ScenesConfig, build_scenes

    tasks = ("classification", "detection", "segmentation")
    others = dict.fromkeys([f"num_{task}_{split}" for task in tasks for split in ("train", "val")], 0)
    out = tmp_path_factory.mktemp("scenes") / "data"
    return build_scenes(ScenesConfig(out=out, num_train=40, num_val=8, **others)) / "shards" / "images"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A ViT of 32 pixels."""
    import torch
    import unveil_backbones
    from unveil_backbones.manifest import Manifest, Preprocessing

    torch.manual_seed(0)
    encoder = unveil_backbones.create("vit_tiny", image_size=32)
    manifest = Manifest(
        encoder=encoder.spec,
        preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        objective="mae",
        mask={"strategy": "random", "ratio": 0.5},
        realised_ratio=0.5,
        seed=0,
        step=10,
        samples_seen=80,
        unique_samples=16,
        tokens_seen=640,
        device_seconds=1.0,
        data_hash="0" * 16,
        num_parameters=encoder.num_parameters,
        versions={"torch": torch.__version__},
        created="2024-01-01T00:00:00+00:00",
    )
    path = tmp_path_factory.mktemp("checkpoint") / "step_00000010"
    return unveil_backbones.save(path, encoder=encoder, manifest=manifest)
