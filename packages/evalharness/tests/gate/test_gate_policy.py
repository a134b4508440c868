"""Policy files: every key typed, every mistake named."""

import pytest
from unveil_evalharness.errors import GateFileError
from unveil_evalharness.gate.policy import Margin, RatioRule, read_policy

FULL = """
alpha = 0.01
power = 0.9
multiple_testing = "bh"
stale_after = 30
min_runs = 3
required_tasks = ["imagenet_ft"]
[default]
absolute = 0.01
[metrics."zs_retrieval.text_recall@1"]
relative = 0.05
[speed."step / timm"]
slowdown = 0.1
[memory."step / timm"]
at_least = 1.0
"""


@pytest.fixture
def read(tmp_path):
    def call(text):
        (tmp_path / "policy.toml").write_text(text)
        return read_policy(tmp_path / "policy.toml")

    return call


def test_everything_is_read(read):
    policy = read(FULL)
    assert (policy.alpha, policy.power, policy.multiple_testing) == (0.01, 0.9, "bh")
    assert (policy.stale_after, policy.min_runs, policy.required_tasks) == (30, 3, ("imagenet_ft",))
    assert policy.default == Margin(absolute=0.01)
    assert policy.metrics["zs_retrieval.text_recall@1"].of(0.4) == pytest.approx(0.02)
    assert policy.speed["step / timm"] == RatioRule(slowdown=0.1)
    assert policy.memory["step / timm"].at_least == 1.0


def test_defaults_are_the_usual_ones(read):
    policy = read("[default]\nabsolute = 0.01\n")
    assert (policy.alpha, policy.power, policy.multiple_testing, policy.stale_after) == (0.05, 0.8, "holm", 90)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alhpa = 0.05\n[default]\nabsolute = 1.0", r"unknown key 'alhpa'; did you mean alpha\?"),
        ("[default]\nabsolut = 1.0", r"default: unknown key 'absolut'; did you mean absolute\?"),
        ("[metrics.\"a.b\"]\nrelativ = 1.0", r"metrics.a.b: unknown key 'relativ'; did you mean relative\?"),
        ("[default]\nabsolute = 0.1\nrelative = 0.1", "either absolute or relative"),
        ("[default]", "either absolute or relative"),
        ("[default]\nabsolute = 0", "must be above 0"),
        ("[default]\nabsolute = nan", "must be above 0"),
        ("[default]\nabsolute = \"much\"", "absolute must be a number, got 'much'"),
        ("[default]\nabsolute = true", "absolute must be a number, got True"),
        ("default = 3", "default must be a table"),
        ("[metrics]\n\"a.b\" = 3", "metrics.a.b must be a table, got 3"),
        ("metrics = 3", "metrics must be a table"),
        ("alpha = 0.6\n[default]\nabsolute = 0.1", "alpha must be between 0 and 0.5, got 0.6"),
        ("power = 0.4\n[default]\nabsolute = 0.1", "power must be between 0.5 and 1"),
        ("min_runs = 0\n[default]\nabsolute = 0.1", "min_runs must be at least 1"),
        ("stale_after = 1.5\n[default]\nabsolute = 0.1", "stale_after must be a whole number, got 1.5"),
        ("multiple_testing = \"hulm\"\n[default]\nabsolute = 0.1", r"'hulm' is unknown; did you mean holm\?"),
        ("multiple_testing = 3\n[default]\nabsolute = 0.1", "multiple_testing must be text, got 3"),
        ("required_tasks = \"a\"\n[default]\nabsolute = 0.1", "required_tasks must be a list of text"),
        ("required_tasks = [1]\n[default]\nabsolute = 0.1", "required_tasks must be a list of text"),
        ("required_tasks = [\"a\"]", "required_tasks needs a margin"),
        ("", "gates nothing"),
        ("[speed.\"x\"]\nat_least = 1.0\nslowdown = 0.1", "either at_least or slowdown"),
        ("[speed.\"x\"]\nslowdown = 1.5", "slowdown must be between 0 and 1"),
        ("[memory.\"x\"]\nat_least = 0", "at_least must be above 0"),
        ("not toml", "is not TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_named(read, text, message):
    with pytest.raises(GateFileError, match=message) as raised:
        read(text)
    assert "policy.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GateFileError, match="cannot read the policy"):
        read_policy(tmp_path / "none.toml")
