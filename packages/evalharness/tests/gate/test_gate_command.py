"""`evalharness gate` and the life of a baseline, by the command line."""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from unveil_evalharness.compare.sides import read_side
from unveil_evalharness.errors import GateFileError
from unveil_evalharness.gate import command, decide
from unveil_evalharness.gate.baseline import read_baseline
from unveil_evalharness.gate.policy import Margin, Policy
from unveil_evalharness.results import append_rows

RIGHT = np.arange(400) % 10 < 7


@pytest.fixture
def place(write_side, evalharness, tmp_path):
    """Baseline and policy on disk; writes candidates with the first `broken` of the right answers lost."""
    (tmp_path / "policy.toml").write_text("[default]\nabsolute = 0.03\n")
    write_side(tmp_path / "a", {0: RIGHT})
    code, _, err = evalharness(
        "gate", "init", "--baseline", tmp_path / "base.toml", "--candidate", tmp_path / "a", "--reason", "first",
        "--by", "Ada",
    )  # fmt: skip
    assert code == 0, err

    def candidate(broken=0, *, name="b", **changes):
        correct = RIGHT.copy()
        correct[np.flatnonzero(correct)[:broken]] = False
        return write_side(tmp_path / name, {0: correct}, sha="b", **changes)

    return candidate


@pytest.fixture
def gate(evalharness, tmp_path):
    def call(candidate, *more, baseline=None):
        return evalharness(
            "gate", "--baseline", baseline or tmp_path / "base.toml", "--candidate", candidate,
            "--policy", tmp_path / "policy.toml", *more,
        )  # fmt: skip

    return call


def test_the_exit_codes_of_the_three_answers(place, gate):
    code, out, _ = gate(place(2, name="good"))
    assert (code, out.splitlines()[-1]) == (0, "The candidate stays within every margin. (exit 0)")
    code, out, _ = gate(place(60, name="bad"))
    assert (code, out.splitlines()[-1]) == (1, "The candidate is worse than the baseline. (exit 1)")
    assert "worse beyond doubt" in out


def test_undecided_says_what_would_decide(place, gate, tmp_path):
    (tmp_path / "policy.toml").write_text("[default]\nabsolute = 0.001\n")
    code, out, _ = gate(place(1))
    assert code == 2
    assert "items would decide" in out
    assert "an unchanged candidate passes with" in out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limit": 400, "limited": True}, "limit differs, none against 400"),
        ({"protocol": "f" * 16}, "protocol fingerprint differs"),
        ({"data_hash": "e" * 16}, "data hash differs"),
        ({"task_version": 2}, "task version differs"),
        ({"status": "failed", "value": None, "error": "out of memory"}, "its task failed: out of memory"),
        ({"task": "knn", "metric": "knn.acc1"}, "has no value; evaluate it there"),
    ],
)
def test_what_is_not_comparable_exits_3_with_the_reason(place, gate, changes, reason):
    code, out, _ = gate(place(2, **changes))
    assert code == 3
    assert reason in out


def test_a_limit_on_both_sides_is_refused_too(write_side, gate, tmp_path):
    (tmp_path / "policy.toml").write_text("[default]\nabsolute = 0.03\n")
    sides = [write_side(tmp_path / sha, {0: RIGHT}, sha=sha, limit=400, limited=True) for sha in "ab"]
    code, out, _ = gate(sides[1], baseline=sides[0])
    assert code == 3
    assert "both sides were made with --limit 400" in out


def test_missing_tasks_and_runs_exit_3(place, gate, tmp_path):
    (tmp_path / "policy.toml").write_text(
        'required_tasks = ["coco_det"]\n[default]\nabsolute = 0.03\n[metrics."imagenet_ft.acc7"]\nabsolute = 0.1\n'
    )
    code, out, _ = gate(place(2))
    assert code == 3
    assert "the policy requires coco_det" in out
    assert "did you mean imagenet_ft.acc1" in out
    (tmp_path / "policy.toml").write_text("min_runs = 3\n[default]\nabsolute = 0.03\n")
    code, out, _ = gate(place(2))
    assert code == 3
    assert "pinned by 1 run(s), the policy wants 3" in out


def test_bad_input_exits_4_in_one_line(place, gate, evalharness, tmp_path):
    (tmp_path / "policy.toml").write_text("alhpa = 1\n")
    for code, _, err in (
        gate(place(2)),
        gate("nowhere"),
        gate(place(2), baseline=tmp_path / "none.toml"),
        gate(place(2), "--num-resamples", 3),
        evalharness("gate", "--nonsense"),
        evalharness("gate", "promote"),
        evalharness("gate", "show", tmp_path / "none.toml"),
    ):
        assert code == 4
        assert err.startswith("evalharness: error: ")
        assert "Traceback" not in err


def test_a_crash_of_the_gate_is_no_regression(place, gate, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "gate", broken)
    code, _, err = gate(place(2))
    assert code == 70
    assert "the gate itself broke" in err


def test_junit_markdown_and_json_say_the_same(place, gate, tmp_path):
    junit, markdown = tmp_path / "out" / "gate.xml", tmp_path / "summary.md"
    markdown.write_text("before\n")
    code, out, _ = gate(place(60), "--junit", junit, "--markdown", markdown, "--json")
    answer = json.loads(out)
    assert (code, answer["exit_code"], answer["status"]) == (1, 1, "regressed")
    (finding,) = answer["findings"]
    assert finding["verdict"]["outcome"] == "regressed"
    assert finding["contrast"]["discordant"] == [0, 60]
    text = markdown.read_text()
    assert text.startswith("before\n### The candidate is worse than the baseline.")
    assert "**REGRESSED** | imagenet_ft.acc1 | 0.7000 | 0.5500 |" in text
    (suite,) = ET.parse(junit).getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("testsuite", "1", "1", "0")


def junit_problems(text):
    """What violates the common schema (windyroad/JUnit-Schema): elements, their order and their attributes."""
    needed = {
        "testsuite": "id package name timestamp hostname tests failures errors time",
        "testcase": "name classname time",
        "property": "name value",
        "failure": "type",
        "error": "type",
    }
    order = ["properties", "testcase", "system-out", "system-err"]
    root = ET.fromstring(text)
    problems = [] if root.tag == "testsuites" else [f"the root is {root.tag}"]
    for suite in root:
        tags = [child.tag for child in suite]
        if suite.tag != "testsuite" or [tag for tag in order for _ in range(tags.count(tag))] != tags:
            problems.append(f"{suite.tag} holds {tags}")
        cases = suite.findall("testcase")
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            if int(suite.get(name, -1)) != sum(case.find(tag) is not None for case in cases):
                problems.append(f"{name} does not count")
        problems += ["a case with two answers" for case in cases if len(case) > 1]
        datetime.strptime(suite.get("timestamp", ""), "%Y-%m-%dT%H:%M:%S")
        for element in suite.iter():
            problems += [
                f"{element.tag} lacks {name}"
                for name in needed.get(element.tag, "").split()
                if name not in element.attrib
            ]
    return problems


def test_junit_is_valid_with_every_answer_in_it(place, gate, tmp_path):
    (tmp_path / "policy.toml").write_text(
        "[default]\nabsolute = 0.03\n"
        '[metrics."knn.acc1"]\nabsolute = 0.1\n'
        '[speed."a < b & \\"c\\" \\u0007"]\nat_least = 1.0\n[memory."m"]\nat_least = 1.0\n'
    )
    ratios = [
        {"name": 'a < b & "c" \x07', "ratio": 1.0, "quartiles": [0.9, 1.1]},
        {"name": "m", "ratio": 1.5, "quartiles": [1.5, 1.5], "kind": "memory"},
    ]
    (tmp_path / "ratios.json").write_text(json.dumps(ratios))
    code, _, _ = gate(place(60), "--junit", tmp_path / "gate.xml", "--ratios", tmp_path / "ratios.json")
    assert code == 1
    text = (tmp_path / "gate.xml").read_text()
    assert junit_problems(text) == []
    answers = {case.get("classname"): [child.tag for child in case] for case in ET.fromstring(text).iter("testcase")}
    assert answers == {"imagenet_ft": ["failure"], "knn": ["error"], "speed": ["skipped"], "memory": []}
    assert junit_problems(text.replace('failures="1"', 'failures="0"')) == ["failures does not count"]
    assert junit_problems(text.replace(' classname="knn"', "")) == ["testcase lacks classname"]


def test_a_better_candidate_does_not_move_the_baseline(place, gate, write_side, tmp_path):
    before = (tmp_path / "base.toml").read_bytes()
    code, _, _ = gate(write_side(tmp_path / "c", {0: np.ones(400, bool)}, sha="c"))
    assert code == 0
    assert (tmp_path / "base.toml").read_bytes() == before


def test_promotion_needs_a_reason_and_keeps_the_history(place, evalharness, tmp_path):
    worse = place(60)
    promote = ["gate", "promote", "--baseline", tmp_path / "base.toml", "--candidate", worse, "--by", "Bob"]
    code, _, err = evalharness(*promote, "--reason", " ")
    assert (code, "say why" in err) == (4, True)
    code, _, err = evalharness(*promote, "--reason", "smaller", "--policy", tmp_path / "policy.toml")
    assert code == 4
    assert "worse than the baseline in imagenet_ft.acc1" in err
    code, out, _ = evalharness(
        *promote, "--reason", "smaller", "--policy", tmp_path / "policy.toml", "--accept-regression"
    )
    assert code == 0
    assert "−0.1500" in out
    baseline = read_baseline(tmp_path / "base.toml")
    assert [(one.by, one.reason) for one in baseline.promotions] == [("Ada", "first"), ("Bob", "smaller")]
    assert baseline.drift("imagenet_ft.acc1") == pytest.approx(-0.15)
    assert len(list((tmp_path / "base.samples").iterdir())) == 1
    code, out, _ = evalharness("gate", "show", tmp_path / "base.toml")
    assert (code, "Bob: smaller" in out, "−0.1500" in out) == (0, True, True)
    code, out, _ = evalharness("gate", "show", tmp_path / "base.toml", "--json")
    assert json.loads(out)["metrics"]["imagenet_ft.acc1"]["mean"] == pytest.approx(0.55)


def test_init_does_not_overwrite(place, evalharness, tmp_path):
    code, _, err = evalharness(
        "gate",
        "init",
        "--baseline",
        tmp_path / "base.toml",
        "--candidate",
        tmp_path / "a",
        "--reason",
        "x",
        "--by",
        "y",
    )
    assert (code, "exists" in err) == (4, True)


def test_limited_rows_cannot_be_pinned(write_side, evalharness, tmp_path):
    side = write_side(tmp_path / "a", {0: RIGHT}, limit=5, limited=True)
    code, _, err = evalharness("gate", "init", "--baseline", tmp_path / "b.toml", "--candidate", side, "--reason", "x")
    assert (code, "--limit 5 only" in err) == (4, True)


def test_git_says_who(write_side, evalharness, tmp_path, monkeypatch):
    side = write_side(tmp_path / "a", {0: RIGHT})
    (tmp_path / "config").write_text("[user]\n\tname = Grace\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    init = ["gate", "init", "--candidate", side, "--reason", "x", "--baseline"]
    assert evalharness(*init, tmp_path / "b.toml")[0] == 0
    assert read_baseline(tmp_path / "b.toml").promotions[0].by == "Grace"
    (tmp_path / "config").write_text("")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    code, _, err = evalharness(*init, tmp_path / "c.toml")
    assert (code, "give --by NAME" in err) == (4, True)


def test_the_file_is_read_as_it_was_written_and_alterations_are_noticed(place, write_side, evalharness, tmp_path):
    baseline = read_baseline(tmp_path / "base.toml")
    (one,) = baseline.measured
    written = read_side(str(tmp_path / "a")).measured[0]
    assert replace(one, samples=()) == replace(written, samples=())
    (file,) = (tmp_path / "base.samples").iterdir()
    assert file.stat().st_size < 8000
    kept = file.read_bytes()
    file.write_bytes(kept + b"x")
    with pytest.raises(GateFileError, match="its hash differs"):
        read_baseline(tmp_path / "base.toml")
    file.write_bytes(kept)
    text = (tmp_path / "base.toml").read_text()
    for change, message in (
        (text.replace("schema_version = 1", "schema_version = 2"), "schema_version 2"),
        (text.replace("mean =", "moon ="), "is damaged: KeyError"),
        (text[: len(text) // 2], "is not TOML|is damaged"),
    ):
        (tmp_path / "base.toml").write_text(change)
        with pytest.raises(GateFileError, match=message):
            read_baseline(tmp_path / "base.toml")


def test_without_outcomes_it_is_unpaired_and_said(place, gate, tmp_path):
    shutil.rmtree(tmp_path / "base.samples")
    code, out, _ = gate(place(2))
    assert code == 2
    assert "UNPAIRED" in out


def test_warnings_of_age_versions_drift_and_of_the_same_checkpoint(place, tmp_path, write_side):
    baseline = read_baseline(tmp_path / "base.toml")
    policy = Policy(default=Margin(absolute=0.03), stale_after=30)

    def warnings(candidate, *, now=None, base=baseline):
        report = decide.gate(base, candidate, policy, ratios={}, settings=decide.Settings(num_resamples=200), now=now)
        return " ".join(report.warnings)

    other = read_side(str(place(2, versions={"python": "3.11.7", "torch": "2.5.0"}, hardware="a GPU")))
    assert "versions differ: torch 2.4.0 → 2.5.0" in warnings(other)
    assert "hardware differs" in warnings(other)
    assert "stale: promoted 31 days ago" in warnings(other, now=datetime.now(UTC) + timedelta(days=31))
    assert "stale" not in warnings(other, now=datetime.now(UTC) + timedelta(days=30))
    same = read_side(str(tmp_path / "a"))
    assert "an A/A run" in warnings(same)
    assert "not a pinned file" in warnings(other, base=same)
    last = baseline.promotions[-1]
    first = replace(last, means=tuple((name, mean + 0.1) for name, mean in last.means))
    assert "promotions have lost 0.1000" in warnings(other, base=replace(baseline, promotions=(first, last)))


def test_several_runs_pin_a_baseline_with_its_spread(write_side, evalharness, gate, tmp_path):
    generator = np.random.default_rng(0)
    seeds = {seed: RIGHT ^ (generator.random(400) < 0.1) for seed in range(4)}
    write_side(tmp_path / "a", {seed: seeds[seed] for seed in range(3)})
    (tmp_path / "policy.toml").write_text("min_runs = 3\n[default]\nrelative = 0.1\n")
    code, _, err = evalharness(
        "gate", "init", "--baseline", tmp_path / "base.toml", "--candidate", tmp_path / "a", "--reason", "x",
        "--by", "y", "--policy", tmp_path / "policy.toml",
    )  # fmt: skip
    assert code == 0, err
    one = read_baseline(tmp_path / "base.toml").measured[0]
    assert len(one.values) == 3
    assert one.spread == pytest.approx(np.std([seeds[seed].mean() for seed in range(3)], ddof=1))
    code, out, _ = gate(write_side(tmp_path / "b", {0: seeds[3]}, sha="b"), "--json")
    (finding,) = json.loads(out)["findings"]
    assert finding["contrast"]["runs"] == [3, 1]
    assert finding["contrast"]["seed_error"] == pytest.approx(one.spread * np.sqrt(1 / 3 + 1))
    assert code in (0, 2)


def test_a_proven_regression_is_told_before_what_cannot_be_compared(place, gate, blank, tmp_path):
    candidate = place(60)
    append_rows(
        candidate / "results.jsonl", [replace(blank, checkpoint_sha256="b" * 64, task="knn", metric="knn.acc1")]
    )
    (tmp_path / "policy.toml").write_text('[default]\nabsolute = 0.03\n[metrics."knn.acc1"]\nabsolute = 0.1\n')
    code, out, _ = gate(candidate)
    assert code == 1
    assert "NOT COMPARABLE" in out
