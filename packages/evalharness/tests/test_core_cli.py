"""The command line: exit codes, one-line errors, what goes to which stream, and what stays unloaded."""

import json
import subprocess
import sys

import pytest
import unveil_evalharness
from unveil_evalharness.cli import main
from unveil_evalharness.results import read_rows


@pytest.fixture
def evalharness(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def retrieval(evalharness, caption_shards, tmp_path):
    """`evalharness run` on retrieval alone."""

    def call(checkpoints, *more):
        return evalharness(
            "run", "--ckpt", checkpoints, "--tasks", "zs_retrieval", "--data-root", caption_shards,
            "--output-path", tmp_path / "out", "--device", "cpu", "--no-progress", *more,
        )  # fmt: skip

    return call


def error_line(err):
    lines = [line for line in err.splitlines() if line.startswith("evalharness: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("evalharness: error: ")


def test_a_run_prints_a_table_on_stdout_and_the_rest_on_stderr(retrieval, flip_checkpoint, mae_checkpoint, tmp_path):
    code, out, err = retrieval(f"{mae_checkpoint},{flip_checkpoint}")
    assert code == 0
    table = out.splitlines()
    assert all(line.startswith("|") and line.endswith("|") for line in table)
    assert [cell.strip() for cell in table[0].split("|")[1:4]] == ["Checkpoint", "Task", "Version"]
    assert sum("image_recall@5" in line for line in table) == 1
    assert sum("not applicable" in line for line in table) == 1
    assert "the checkpoint has no text tower" in err
    assert f"results: {tmp_path / 'out' / 'results.jsonl'}" in err
    assert len(read_rows(tmp_path / "out" / "results.jsonl")) == 7


def test_a_second_run_finds_everything_finished(retrieval, flip_checkpoint, tmp_path):
    _, first, _ = retrieval(flip_checkpoint)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    code, second, err = retrieval(flip_checkpoint)
    assert (code, second) == (0, first)
    assert "finished earlier" in err
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_json_is_all_there_is_on_stdout(retrieval, flip_checkpoint):
    code, out, _ = retrieval(flip_checkpoint, "--json", "--limit", 3)
    answer = json.loads(out)
    assert code == answer["exit_code"] == 0
    assert (answer["num_run"], answer["num_skipped"], answer["num_failed"]) == (1, 0, 0)
    assert {row["metric"] for row in answer["rows"]} >= {"zs_retrieval.text_recall@10"}
    assert all(row["limited"] for row in answer["rows"])


def test_underscores_and_several_seeds_are_understood(evalharness, flip_checkpoint, caption_shards, tmp_path):
    code, out, _ = evalharness(
        "run", "--ckpt", flip_checkpoint, "--tasks", "zs_retrieval", "--data_root", caption_shards,
        "--output_path", tmp_path / "out", "--seeds", "0,1", "--batch_size", "2", "--no_progress",
    )  # fmt: skip
    assert code == 0
    assert "Seed" in out.splitlines()[0]
    assert sum("image_recall@5" in line for line in out.splitlines()) == 3
    assert sum("over 2 seeds" in line for line in out.splitlines()) == 6


def test_a_failing_task_gives_exit_code_one_and_its_reason(retrieval, flip_checkpoint, caption_shards):
    (caption_shards / "captions" / "val-00001.tar").write_bytes(b"cut")
    code, out, err = retrieval(flip_checkpoint)
    assert code == 1
    assert "failed" in out
    assert "val-00001.tar: it does not end as a tar file does; copy it again" in err
    assert "Traceback" not in err


def test_missing_captions_fail_the_task_and_say_what_is_read(evalharness, flip_checkpoint, tmp_path):
    code, _, err = evalharness(
        "run", "--ckpt", flip_checkpoint, "--tasks", "zs_retrieval", "--data-root", tmp_path,
        "--output-path", tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert "no captioned images under" in err


def test_an_interrupt_shows_what_is_finished_and_gives_130(retrieval, flip_checkpoint, monkeypatch):
    from unveil_evalharness.tasks.zs_retrieval.task import ZeroShotRetrieval

    def interrupt(*args):
        raise KeyboardInterrupt

    retrieval(flip_checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(ZeroShotRetrieval, "run", interrupt)
        code, out, err = retrieval(flip_checkpoint, "--seeds", "0,1")
    assert code == 130
    assert "image_recall@5" in out
    assert "evalharness: interrupted; finished tasks are kept" in err
    assert retrieval(flip_checkpoint, "--seeds", "0,1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command; use one of run, ls"),
        (["rum"], "unknown command 'rum'; did you mean run?"),
        (["run"], "missing --ckpt, --data-root, --output-path (see evalharness run --help)"),
        (
            ["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c", "--taks", "d"],
            "unknown option --taks; did you mean --tasks?",
        ),
        (["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c", "--suite", "huge"], "invalid choice 'huge'"),
        (
            ["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c", "--limit", "0"],
            "--limit must be at least 1",
        ),
        (["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c", "--limit", "x"], "Error parsing --limit"),
        (["run", "--ckpt", "a", "--data-root", "b", "--output-path", "c", "--seeds", "0,x"], "Error parsing --seeds"),
        (["run", "--ckpt", ",", "--data-root", "b", "--output-path", "c"], "--ckpt is empty"),
        (
            ["run", "--ckpt", "a", "--data-root", "/no/such", "--output-path", "c"],
            "--data-root /no/such is not a folder",
        ),
        (["ls", "metric"], "cannot list 'metric'; did you mean metrics?"),
        (["ls", "--tree"], "unknown option --tree (see evalharness ls --help)"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_two(evalharness, arguments, message):
    code, out, err = evalharness(*arguments)
    assert (code, out) == (2, "")
    assert message in error_line(err)
    assert len(err.strip().splitlines()) == 1


def test_an_unknown_task_names_the_nearest(evalharness, mae_checkpoint, tmp_path):
    code, _, err = evalharness(
        "run",
        "--ckpt",
        mae_checkpoint,
        "--tasks",
        "imagenet",
        "--data-root",
        tmp_path,
        "--output-path",
        tmp_path / "out",
    )
    assert code == 2
    assert "unknown task 'imagenet'; did you mean imagenet_ft" in error_line(err)


def test_a_missing_checkpoint_is_bad_input(retrieval, tmp_path):
    code, out, err = retrieval(tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere does not exist; give a checkpoint directory" in error_line(err)


@pytest.mark.parametrize("command", ["run", "ls", "doctor", "report", "correlate"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: evalharness {command}" in capsys.readouterr().out


def test_help_and_version(evalharness):
    code, out, _ = evalharness("--help")
    assert code == 0
    assert all(command in out for command in ("run", "ls", "doctor", "report", "correlate"))
    assert evalharness("--version")[1] == f"evalharness {unveil_evalharness.__version__}\n"


def test_the_options_of_run_are_a_decision():
    """Another option is another promise: change this list on purpose."""
    from unveil_evalharness.run import RunOptions

    assert list(RunOptions.__dataclass_fields__) == [
        "ckpt", "data_root", "output_path", "tasks", "suite", "protocol", "seeds", "repeats", "limit", "batch_size",
        "device", "devices", "executor", "cluster", "overwrite", "dry_run", "format", "model_args", "allow_download",
        "config", "progress", "json",
    ]  # fmt: skip


def test_public_names_are_there_and_sorted():
    assert sorted(unveil_evalharness.__all__) == dir(unveil_evalharness)
    for name in unveil_evalharness.__all__:
        assert getattr(unveil_evalharness, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unveil_evalharness.nothing


@pytest.mark.parametrize(
    "command", ["import unveil_evalharness", "from unveil_evalharness.cli import main; main(['rum'])"]
)
def test_starting_loads_no_torch(command):
    program = f"import sys; {command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
