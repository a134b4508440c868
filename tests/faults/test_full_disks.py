"""A disk that is full, or read-only, at any moment: one line that says so, earlier files whole, and then on from there.

The refusals are those of the operating system's numbers at drawn operations on files, and of real file systems in
memory where this process may mount them.
"""

import errno
import os
import subprocess
from contextlib import contextmanager

import pytest
from harness_folders import harness_differences, harness_unreadable
from numpy.random import Generator, Philox
from run_folders import differences, unreadable
from unveil_evalharness.tasks.val_loss.model import ScoreError

SEED = int(os.environ.get("UNVEIL_FAULT_SEED", "0"))
REFUSALS = (errno.ENOSPC, errno.EROFS)


def one_line(ended, program, *, code=2):
    """What a refused command ends with: one line, a code, no traceback."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err, ended.err
    said = [line for line in ended.err.splitlines() if line.startswith(f"{program}: error: ")]
    assert len(said) == 1, ended.err
    assert any(words in said[0] for words in (*map(os.strerror, REFUSALS), "free space")), said[0]
    return said[0]


def draws(stream, num):
    return Generator(Philox(key=[SEED, 200 + stream])).random(num).tolist()


class Refusals:
    """Runs one command again and again, each time refused at another operation."""

    def __init__(self, program, start, check, compare, folder):
        self.program, self.start, self.check, self.compare, self.folder = program, start, check, compare, folder
        self.straight, tally = folder / "straight", folder / "tally"
        ended = start(self.straight, {"count": str(tally), "below": str(self.straight)})
        assert ended.code == 0, ended.err
        self.names = tally.read_text().splitlines()

    def refused(self, share):
        """Refused at one operation, then allowed: what is wrong."""
        number = int(share * len(self.names))
        while self.names[number].startswith(("remove", "rmdir")):
            number -= 1
        code = REFUSALS[number % 2]
        out = self.folder / f"refused{number}-{share:.9f}"  # two draws may fall on one operation
        ended = self.start(out, {"refuse": number, "code": code, "below": str(out)})
        one_line(ended, self.program)
        found = self.check(out)
        again = self.start(out, {})
        found += [again.err] if again.code else self.compare(out, self.straight)
        where = self.names[number].replace(str(self.straight), "")
        return [f"refused ({errno.errorcode[code]}) at operation {number}, {where}: {what}" for what in found]


@pytest.fixture(scope="module")
def pretrain(pretrain_server, pretrain_words, tmp_path_factory):
    """With TensorBoard's files."""

    def start(out, fault):
        return pretrain_server.run("fault_children:pretrain", pretrain_words("mim", out), fault)

    return Refusals("pretrain", start, unreadable, differences, tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def features(harness_server, harness_words, tmp_path_factory):
    def start(out, fault):
        return harness_server.run("fault_children:evalharness", harness_words("knn", out), fault)

    folder = tmp_path_factory.mktemp("features")
    return Refusals("evalharness", start, harness_unreadable, harness_differences, folder)


@pytest.fixture(scope="module")
def trained(training_server, harness_words, tmp_path_factory):
    def start(out, fault):
        return training_server.run("fault_children:evalharness", harness_words("imagenet_ft", out), fault)

    folder = tmp_path_factory.mktemp("trained")
    return Refusals("evalharness", start, harness_unreadable, harness_differences, folder)


def test_pretrain_is_refused_a_file(pretrain):
    assert pretrain.refused(draws(0, 20)[-1]) == []


def test_evalharness_is_refused_a_file(features):
    assert features.refused(draws(1, 20)[-1]) == []


@pytest.mark.slow
def test_pretrain_is_refused_at_sixteen_operations(pretrain):
    assert [what for share in draws(0, 16) for what in pretrain.refused(share)] == []


@pytest.mark.slow
def test_checkpoints_in_parts_are_refused_files(pretrain_server, pretrain_words, tmp_path):
    """Written in the background, as well; the last checkpoint of a run is whole in any case."""

    def start(out, fault):
        parts = ("--checkpoint-format", "sharded", "--async-checkpoints", "--loggers")
        return pretrain_server.run("fault_children:pretrain", pretrain_words("mim", out, *parts), fault)

    refusals = Refusals("pretrain", start, lambda _: [], differences, tmp_path)
    inside = [number for number, name in enumerate(refusals.names) if "step_00000003" in name]
    shares = [(inside[int(share * len(inside))] + 0.5) / len(refusals.names) for share in draws(3, 4)]
    assert [what for share in shares for what in refusals.refused(share)] == []


@pytest.mark.slow
def test_evalharness_is_refused_at_twelve_operations(features):
    assert [what for share in draws(1, 12) for what in features.refused(share)] == []


@pytest.mark.mm
@pytest.mark.slow
def test_a_task_that_trains_is_refused_at_twelve_operations(trained):
    assert [what for share in draws(2, 12) for what in trained.refused(share)] == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        ScoreError("pretrain score ended with code 2: cannot write /x/score.json (No space left on device); free it"),
    ],
    ids=["full", "read-only", "in_words", "of_another_process"],
)
def test_a_task_that_cannot_write_is_no_failed_task(subjects, tmp_path, error):
    """Whatever a task writes by itself: the run stops, since no row could be written about it either."""
    from toy_task import ToyTask, loader
    from unveil_evalharness.errors import OutputError
    from unveil_evalharness.results import read_rows
    from unveil_evalharness.run import RunOptions, run

    (tmp_path / "data").mkdir()
    options = RunOptions(
        ckpt=(subjects["mae"],), data_root=tmp_path / "data", output_path=tmp_path / "out", tasks=("toy",),
        device="cpu", progress=False,
    )  # fmt: skip
    with pytest.raises(OutputError, match="earlier results are intact; free space"):
        run(options, load=loader(ToyTask(fails=error)))
    assert read_rows(tmp_path / "out" / "results.jsonl") == []
    assert run(options, load=loader(ToyTask())).exit_code == 0
    failed = run(options, load=loader(ToyTask(name="toy", hash="other", fails=RuntimeError("a bug"))))
    assert failed.num_failed == 1


@contextmanager
def small_disk(folder, size):
    """A file system in memory of so many bytes; skips where it cannot be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system of a small size can be mounted here: {done.stderr.strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "option"), [("9m", "size=200m"), ("16m", "size=200m"), ("200m", "rw")])
def test_pretrain_on_a_real_disk(pretrain, pretrain_server, pretrain_words, tmp_path, size, option):
    """Full in the first checkpoint, full behind it, and read-only from the beginning."""
    with small_disk(tmp_path / "disk", size) as remount:
        run = tmp_path / "disk" / "run"
        if option == "rw":
            remount("ro")
        words = pretrain_words("mim", run)
        one_line(pretrain_server.run("fault_children:pretrain", words, {}), "pretrain")
        assert unreadable(run) == []
        assert len(list(run.glob("checkpoints/step_*"))) == (size == "16m")
        remount(option)
        assert pretrain_server.run("fault_children:pretrain", words, {}).code == 0
        assert differences(run, pretrain.straight) == []


@pytest.mark.slow
@pytest.mark.parametrize(("size", "option"), [("40k", "size=20m"), ("80k", "size=20m"), ("20m", "rw")])
def test_evalharness_on_a_real_disk(features, harness_server, harness_words, tmp_path, size, option):
    with small_disk(tmp_path / "disk", size) as remount:
        out = tmp_path / "disk" / "out"
        if option == "rw":
            remount("ro")
        words = harness_words("knn", out)
        one_line(harness_server.run("fault_children:evalharness", words, {}), "evalharness")
        assert harness_unreadable(out) == []
        remount(option)
        assert harness_server.run("fault_children:evalharness", words, {}).code == 0
        assert harness_differences(out, features.straight) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["shards", "subset", "audit", "plan", "score", "scenes", "sweep", "flip-ablation"])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_other_commands_of_pretrain(pretrain, pretrain_server, shards, eval_data, tmp_path, command, share):
    """Refused at their first operation, and in the middle; then the same command does it."""
    place, plan = tmp_path / "place", tmp_path / "plan.json"
    place.mkdir()
    data = ("--train-data", shards[0], "--val-data", shards[1], "--device", "cpu")
    kinds = ("", "classification-", "detection-", "segmentation-")
    few = [word for kind in kinds for split in ("train", "val") for word in (f"--num-{kind}{split}", "10")]
    planning = ("plan", "--recipes", "tiny_mae", "--steps", "1", "--num-images", "24", "--set", "batch_size=4",
                "--set", "image_size=32 32", "--fractions", "1")  # fmt: skip
    if command == "sweep":
        done = pretrain_server.run("fault_children:pretrain", [*planning, "--out", str(plan)], {})
        assert done.code == 0, done.err
    words = {
        "shards": ["shards", "--source", str(eval_data / "imagenet" / "train"), "--out", str(place / "out")],
        "subset": ["subset", shards[0], "--fractions", "0.5", "1", "--out", str(place / "out")],
        "audit": ["audit", shards[0], "--json", str(place / "audit.json")],
        "plan": [*planning, "--out", str(place / "plan.json")],
        "score": ["score", "--ckpt", str(pretrain.straight), "--images", shards[1], "--json", str(place / "s.json")],
        "scenes": ["scenes", "--out", str(place / "out"), *few],
        "sweep": ["sweep", str(plan), "--out", str(place / "out"), *data[:4]],
        "flip-ablation": ["flip-ablation", "tiny_flip", "--out", str(place / "out"), *data, "--steps", "2",
                          "--cells", "0x1", "0.5x1", "--no-equal-time", "--batch-size", "6", "--image-size", "32", "32",
                          "--warmup-steps", "1", "--negative-pool", "4", "--calibration-steps", "2"],
    }[command]  # fmt: skip
    tally = tmp_path / "tally"
    kept = pretrain_server.run("fault_children:pretrain", words, {"count": str(tally), "below": str(place)})
    assert kept.code == 0, kept.err
    import shutil

    shutil.rmtree(place)
    place.mkdir()
    names = tally.read_text().splitlines()
    number = next(
        number for number in range(int(share * len(names)), -1, -1) if not names[number].startswith(("remove", "rmdir"))
    )
    fault = {"refuse": number, "code": errno.ENOSPC, "below": str(place)}
    one_line(pretrain_server.run("fault_children:pretrain", words, fault), "pretrain")
    again = pretrain_server.run("fault_children:pretrain", words, {})
    assert again.code == 0, again.err
    assert [path for path in place.rglob("*") if path.name.endswith(".tmp") or "unfinished" in path.name] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "correlate", "predict", "gate init", "gate promote"])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_other_commands_of_evalharness(features, harness_server, tmp_path, command, share):
    place, code = tmp_path / "place", 4 if command.startswith("gate") else 2
    place.mkdir()
    pin = ["--baseline", str(place / "base.toml"), "--candidate", str(features.straight), "--by", "a", "--reason", "b"]
    words = {
        "report": ["report", str(features.straight), "--output", str(place / "report"), "--no-figures"],
        "correlate": ["correlate", "--published", "xie2023", "--num-resamples", "100", "--figure", f"{place}/f.png"],
        "predict": ["predict", "--published", "xie2023", "--run", "SwinV2-B IN1K-50% 250k", "--num-resamples", "100",
                    "--figures", str(place / "figures")],
        "gate init": ["gate", "init", *pin],
        "gate promote": ["gate", "promote", *pin],
    }[command]  # fmt: skip
    start = "fault_children:evalharness"

    def fresh():
        import shutil

        shutil.rmtree(place)
        place.mkdir()
        if command == "gate promote":
            done = harness_server.run(start, ["gate", "init", *pin], {})
            assert done.code == 0, done.err

    fresh()
    tally = tmp_path / "tally"
    done = harness_server.run(start, words, {"count": str(tally), "below": str(place)})
    assert done.code == 0, done.err
    names = tally.read_text().splitlines()
    fresh()
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    number = next(
        number for number in range(int(share * len(names)), -1, -1) if not names[number].startswith(("remove", "rmdir"))
    )
    fault = {"refuse": number, "code": errno.ENOSPC, "below": str(place)}
    one_line(harness_server.run(start, words, fault), "evalharness", code=code)
    assert all(path.read_bytes() == content for path, content in before.items())
    done = harness_server.run(start, words, {})
    assert done.code == 0, done.err
    assert [path for path in place.rglob("*") if path.name.endswith((".tmp", ".lock"))] == []
