"""torchvision becomes importable beside a torch it was not built for; in fresh processes, as imports happen once."""

import subprocess
import sys
from pathlib import Path

FAILED_IMPORT = """
try:
    import {module}
except RuntimeError as error:
    assert "torchvision::nms" in str(error), error
"""
CALL = """
from unveil_backbones import ensure_torchvision
torchvision = ensure_torchvision()
"""
WORKS = """
import sys
from torchvision.transforms import functional
import timm.layers, torch
assert sys.modules["torchvision"] is torchvision
assert torch._C._get_schema("torchvision::nms", "").name == "torchvision::nms"
assert torch._C._get_schema("torchvision::qnms", "").name == "torchvision::qnms"
print("works")
"""


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", f"import sys\nsys.path[:0] = {[str(p) for p in paths]}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_works(code: str) -> None:
    done = run(code)
    assert done.stdout.endswith("works\n"), done.stderr


def test_two_calls_and_a_kernel_that_a_detector_adds_later():
    kernel = """
if not torchvision.extension._has_ops():
    library = torch.library.Library("torchvision", "IMPL")
    library.impl("nms", lambda dets, scores, iou_threshold: torch.arange(len(scores)), "CPU")
assert torch.ops.torchvision.nms(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), 0.5).tolist() == [0]
print("works")
"""
    assert_works(CALL + "assert ensure_torchvision() is torchvision\n" + WORKS + kernel)


def test_after_a_failed_import_of_timm():
    assert_works(FAILED_IMPORT.format(module="timm") + CALL + WORKS)


def test_other_failures_pass_through(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('some other trouble')")
    done = run(CALL, tmp_path)
    assert done.returncode != 0
    assert "RuntimeError: some other trouble" in done.stderr


def test_a_torchvision_that_works_is_left_alone(tmp_path):
    (tmp_path / "torchvision.py").write_text("marker = 'native'")
    done = run(CALL + "import torch\nprint(torchvision.marker, hasattr(torch.ops.torchvision, 'qnms'))", tmp_path)
    assert done.stdout == "native False\n", done.stderr
