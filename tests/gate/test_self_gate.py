"""The repository's gate on itself by the real commands: unchanged it passes, with a planted regression it fails."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def self_gate(*arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "self_gate.py"), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_unchanged_passes_and_a_planted_regression_fails(tmp_path):
    code, text = self_gate("--junit", tmp_path / "gate.xml")
    assert code == 0, text
    cases = list(ET.parse(tmp_path / "gate.xml").getroot().iter("testcase"))
    assert {case.get("classname") for case in cases} == {"zs_retrieval", "knn"}
    assert not any(len(case) for case in cases)
    code, text = self_gate("--perturb", 0.3)
    assert code == 1, text
    assert "REGRESSED       zs_retrieval.image_recall@5" in text


def test_the_committed_baseline_is_whole():
    """Every hash holds, and the policy finds what it gates."""
    from unveil_evalharness.gate import read_baseline, read_policy

    here = Path(__file__).parent
    baseline, policy = read_baseline(here / "baseline.toml"), read_policy(here / "policy.toml")
    mains = {one.task: one for one in baseline.measured if one.main}
    assert set(policy.required_tasks) == set(mains)
    assert all(path is not None and path.is_file() for one in mains.values() for path in one.samples)
    assert baseline.promotions[-1].reason
