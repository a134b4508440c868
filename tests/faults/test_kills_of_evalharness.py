"""SIGKILL at any moment of `evalharness run`: what is there is whole, and the same command finishes, nothing twice.

Half of the moments are drawn from the time that a run takes, half from the operations on its files; in the second half
a write is torn in the middle. UNVEIL_FAULT_SEED draws others.
"""

import json
import os
import signal

import pytest
from harness_folders import harness_differences, harness_unreadable
from numpy.random import Generator, Philox

SEED = int(os.environ.get("UNVEIL_FAULT_SEED", "0"))
FEATURES, TRAINED = "knn,zs_retrieval", "imagenet_ft"


class Kills:
    """Kills runs of the same tasks in folders of their own."""

    def __init__(self, tasks, server, words, folder):
        self.tasks, self.server, self.words, self.folder = tasks, server, words, folder
        self.straight, tally = folder / "straight", folder / "tally"
        ended = self.start(self.straight)
        assert ended.code == 0, ended.err
        self.seconds = ended.seconds
        assert self.start(folder / "counted", {"count": str(tally), "below": str(folder / "counted")}).code == 0
        assert harness_differences(folder / "counted", self.straight) == []
        self.num_operations = len(tally.read_text().splitlines())

    def start(self, out, fault=None, **named):
        return self.server.run("fault_children:evalharness", self.words(self.tasks, out), fault or {}, **named)

    def wrong(self, kind, share):
        """One kill and its aftermath; what is wrong, with what is needed to see it again."""
        out = self.folder / f"{kind}-{share:.9f}"
        if kind == "time":
            where = f"killed after {share * self.seconds:.3f} s"
            self.start(out, signals=((share * self.seconds, signal.SIGKILL),))
        else:
            number = int(share * self.num_operations)
            where = f"killed at operation {number} of {self.num_operations}"
            ended = self.start(out, {"kill": number, "below": str(out)})
            assert ended.code == -signal.SIGKILL, f"{where}: {ended.code} {ended.err}"
        found = harness_unreadable(out)
        again = self.start(out)
        found += [again.err] if again.code else harness_differences(out, self.straight)
        return [f"{self.tasks} {where} (UNVEIL_FAULT_SEED={SEED}): {what}" for what in found]


def draws(stream, num):
    return Generator(Philox(key=[SEED, 100 + stream])).random(num).tolist()


@pytest.fixture(scope="module")
def features(harness_server, harness_words, tmp_path_factory):
    return Kills(FEATURES, harness_server, harness_words, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def trained(training_server, harness_words, tmp_path_factory):
    return Kills(TRAINED, training_server, harness_words, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("kind", ["time", "operation"])
def test_two_kills_while_features_are_compared(features, kind):
    assert [what for share in draws(kind == "time", 50)[-2:] for what in features.wrong(kind, share)] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["time", "operation"])
def test_kills_at_thirty_points_while_features_are_compared(features, kind):
    assert [what for share in draws(kind == "time", 15) for what in features.wrong(kind, share)] == []


@pytest.mark.mm
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["time", "operation"])
def test_kills_at_twenty_points_of_a_task_that_trains(trained, kind):
    assert [what for share in draws(2 + (kind == "time"), 10) for what in trained.wrong(kind, share)] == []


def test_half_a_result_would_be_found(features, tmp_path):
    """The checks can fail: a row with another value, a file that is not what its hash says, one that is left."""
    import shutil

    out = shutil.copytree(features.straight, tmp_path / "out")
    rows = (out / "results.jsonl").read_text().splitlines(keepends=True)
    changed = json.dumps(json.loads(rows[-1]) | {"value": 0.123}) + "\n"
    (out / "results.jsonl").write_text("".join([*rows, changed]))
    sample = next(out.glob("samples/*.parquet"))
    sample.write_bytes(sample.read_bytes()[:-1])
    (out / "samples" / f".{sample.name}.left.tmp").touch()
    assert len(harness_unreadable(out)) == 1 + sum(
        row.count(f'"{sample.parent.name}/{sample.name}"') > 0 for row in [*rows, changed]
    )
    wrong = harness_differences(out, features.straight)
    assert f"files: samples/.{sample.name}.left.tmp" in wrong
    assert {"results.jsonl", f"samples/{sample.name}"} <= set(wrong)
