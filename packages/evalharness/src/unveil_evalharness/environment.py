"""What a result was made with: package versions, hardware and the device."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from unveil_evalharness.errors import UsageError

__all__ = ["PACKAGES", "choose_device", "code_version", "hardware", "package_versions"]

PACKAGES: tuple[str, ...] = (
    "unveil-evalharness",
    "unveil-backbones",
    "unveil-pretrain",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "polars",
    "webdataset",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
    "pycocotools",
)
"""Distributions whose version may move a number."""


def package_versions() -> dict[str, str]:
    """Version of Python and of every installed distribution in `PACKAGES`; reads metadata, imports nothing."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def code_version() -> str:
    """The git commit that this package runs from, with ``+`` where files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    words = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        tracked = subprocess.run(
            [*words[:3], "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        if tracked.returncode:  # installed inside somebody else's repository
            return ""
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def choose_device(wanted: str) -> str:
    """``"cpu"`` or ``"cuda"`` for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: ``cuda`` was asked for and torch sees no GPU.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UsageError("--device cuda: torch sees no GPU; use --device cpu, or install a torch build for your driver")
    return "cpu"


def hardware(device: str) -> str:
    """The device in words: GPU name and memory, or processor model and the number of threads torch uses."""
    import torch

    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
