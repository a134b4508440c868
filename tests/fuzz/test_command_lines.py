"""Words of every command, in any order and of any kind: understood, or refused in one line with exit code 2.

Reading the words of a command takes 1 to 20 ms, so the 10,000 of each are shared by several tests.
"""

import contextlib
import io
import re
from importlib import import_module

import pytest
from fuzzing import NUM_SLOW, Parser, Place, fuzz, in_parts
from mutations import mutated_words
from unveil_backbones import cli as backbones
from unveil_evalharness import cli as evalharness
from unveil_evalharness.parsing import parse_options, with_config
from unveil_masking.show import cli as masking
from unveil_pretrain import cli as pretrain
from unveil_pretrain.errors import ResumeError

NUM_PARTS = 4
STARTS = {
    "mim": ["mim", "tiny_mae", "--out", "run", "--train-data", "t.tar", "--val-data", "v.tar", "--steps", "3"],
    "flip": ["flip", "tiny_flip", "--out", "run", "--train-data", "t.tar", "--val-data", "v.tar", "--from", "c"],
    "plan": ["plan", "--recipes", "tiny_mae", "--fractions", ".1", "--steps", "10", "--set", "steps=2"],
    "sweep": ["sweep", "plan.json", "--out", "s", "--train-data", "t.tar", "--val-data", "v.tar"],
    "flip-eval": ["flip-eval", "--ckpt", "c", "--data", "v.tar", "--views", "full,masked"],
    "score": ["score", "--ckpt", "c", "--images", "i", "--settings", '{"a": 1}'],
    "flip-ablation": ["flip-ablation", "tiny_flip", "--out", "a", "--train-data", "t.tar", "--val-data", "v.tar",
                      "--cells", "0x1", "0.5x2"],
    "status": ["status", "run", "--json", "--price-per-hour", "2"],
    "shards": ["shards", "--source", "images", "--out", "shards"],
    "audit": ["audit", "a.tar", "--num-workers", "0"],
    "subset": ["subset", "a.tar", "--fractions", ".1", "1", "--out", "lists"],
    "replay": ["replay", "run", "--device", "cpu"],
    "verify-resume": ["verify-resume", "tiny_mae", "--train-data", "t.tar", "--val-data", "v.tar", "--steps", "1"],
    "ls": ["ls"],
}  # fmt: skip
"""Of `pretrain`; every file that is named is absent. `scenes` is left out: its words write a data set."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, where none of the named files is, and no GPU, whose driver reserves too much."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("UNVEIL_DATA", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def _vocabulary(words: list[str]) -> list[str]:
    """The words of a command's help that look like options, and its own."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        pretrain.main([*words[:2], "--help"]) if words[0] in STARTS else evalharness.main([*words[:2], "--help"])
    # What asks for a long computation is left out, and so is what would be written outside the empty folder.
    flags = set(re.findall(r"--[a-z][a-z-]+", out.getvalue())) - {"--help"}
    return [*sorted(flags), *words, "0", "1", "-1", "0.5", "nan", "cpu", "none"]


def _ended(main, words):
    """Exit code 0, 1 (something failed) or 2 (bad input); on 2, a message, and never a traceback."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
    assert code in (None, 0, 1, 2, 3, 4), code
    assert "Traceback" not in error.getvalue(), error.getvalue()
    if code in (2, 4):
        assert error.getvalue().strip(), "it says nothing"


def _of_pretrain(words: list[str]) -> Parser:
    known = _vocabulary(words)
    # A path that is absolute or leads upwards could name something that is there.
    return Parser(
        make=lambda random: [word for word in mutated_words(random, words, known) if _is_safe(word)],
        read=lambda line: _ended(pretrain.main, line) if line[:1] != ["scenes"] else None,
        allowed=(),
        num_fast=20,
    )


def _is_safe(word: str) -> bool:
    return not any(part in word for part in ("..", "/", "~", "s3:", "http", "pipe"))


@pytest.mark.parametrize("name", STARTS)
def test_words_of_pretrain(name):
    fuzz(_of_pretrain(STARTS[name]), 2 if name == "verify-resume" else 20)  # it starts processes


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(STARTS, dict.fromkeys(STARTS, NUM_PARTS)))
def test_many_words_of_pretrain(name, part, num_parts, monkeypatch):
    def refuse(*args, **settings):
        raise ResumeError("the words were understood; no process is started for them")

    monkeypatch.setattr("unveil_pretrain.commands.verify_resume.prove_resume", refuse)
    fuzz(_of_pretrain(STARTS[name]), NUM_SLOW // num_parts, part=part)


WORDS = {
    "run": [
        "--ckpt",
        "a,b",
        "--data-root",
        "d",
        "--output-path",
        "o",
        "--tasks",
        "knn",
        "--seeds",
        "0,1",
        "--limit",
        "3",
    ],
    "ls": ["metrics"],
    "doctor": ["--data-root", "d", "--tasks", "knn,coco_det"],
    "verify": ["out", "--json"],
    "report": ["out", "--output", "r", "--format", "md,json"],
    "correlate": ["out", "--x", "loss", "--y", "a,b", "--num-resamples", "100"],
    "predict": ["--run", "r", "--task", "knn", "--known", "a,b", "--level", "0.9"],
    "compare": ["a", "b", "--json"],
    "gate": ["--baseline", "b.toml", "--candidate", "c", "--policy", "p.toml"],
    "gate init": ["--baseline", "b.toml", "--candidate", "c", "--reason", "x"],
    "gate promote": ["--baseline", "b.toml", "--candidate", "c", "--reason", "x", "--accept-regression"],
    "gate show": ["b.toml", "--json"],
}
"""Of `evalharness`, behind the name of the command; only read, since some of them compute."""


def _of_evalharness(name: str, place_words: list[str]) -> Parser:
    command = evalharness.COMMANDS[name]
    kind = import_module(f"unveil_evalharness.{command.module}").__dict__[command.options]
    known = _vocabulary([*name.split(), *place_words])

    def read(words):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                return parse_options(kind, name, with_config(words))
            except SystemExit as stop:
                code = stop.code
        assert code in (0, None), code  # help was asked for
        return None

    return Parser(make=lambda random: mutated_words(random, place_words, known), read=read, num_fast=20)


@pytest.mark.parametrize("name", WORDS)
def test_words_of_evalharness(name):
    fuzz(_of_evalharness(name, WORDS[name]), 20)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(WORDS, dict.fromkeys(WORDS, NUM_PARTS)))
def test_many_words_of_evalharness(name, part, num_parts):
    fuzz(_of_evalharness(name, WORDS[name]), NUM_SLOW // num_parts, part=part)


OTHERS = {
    "masking": (masking.main, ["show", "--strategy", "random", "--grid", "2x2", "--ratio", "0.5", "-o", "m.txt"]),
    "backbones inspect": (backbones.main, ["inspect", "c", "--json"]),
    "backbones convert": (backbones.main, ["convert", "c", "out", "--format", "mae", "--num-heads", "3"]),
}


def _of_another(name: str) -> Parser:
    main, words = OTHERS[name]
    known = [*words, "ls", "verify", "schema", "--image", "--seed", "--image-size", "--mean", "1", "-1", "x"]
    return Parser(
        make=lambda random: [word for word in mutated_words(random, words, known) if _is_safe(word)],
        read=lambda line: _ended(main, line),
        allowed=(),
        num_fast=20,
    )


@pytest.mark.parametrize("name", OTHERS)
def test_words_of_the_other_packages(name):
    fuzz(_of_another(name), 20)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(OTHERS, dict.fromkeys(OTHERS, NUM_PARTS)))
def test_many_words_of_the_other_packages(name, part, num_parts):
    fuzz(_of_another(name), NUM_SLOW // num_parts, part=part)


def test_every_command_is_here(place: Place):
    assert set(STARTS) == set(pretrain.COMMANDS) - {"scenes", "export"}
    assert set(WORDS) == set(evalharness.COMMANDS)
