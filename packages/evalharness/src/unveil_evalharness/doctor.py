"""``evalharness doctor``: whether this machine can evaluate, before hours are spent finding out."""

import importlib
import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from unveil_evalharness.datacheck import check_data, hash_data
from unveil_evalharness.errors import DependencyError, one_line
from unveil_evalharness.findings import Finding
from unveil_evalharness.task import Task
from unveil_evalharness.tasks import DEFAULT_TASKS, expand, load_task

__all__ = ["DoctorOptions", "examine", "main"]

_MM_IMPORTS = {"mmengine": "mmengine", "mmcv": "mmcv.ops", "mmdet": "mmdet.apis", "mmseg": "mmseg.apis"}
_DISTRIBUTIONS = {
    "mmcv": ("mmcv", "mmcv-lite"),
    "mmseg": ("mmsegmentation",),
    "cv2": ("opencv-python-headless", "opencv-python"),
}
_LITTLE_DISK_GIB = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """Check packages, hardware, and counts, identity and hashes of the data; exit code 1 if something is in the way."""

    data_root: Path | None = None
    """Also look through the data of the tasks."""
    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Tasks that shall run here, separated by commas."""
    json: bool = False
    """Print the findings as JSON."""


def main(options: DoctorOptions) -> int:
    """Prints the findings; 1 when one of them is a problem, else 0."""
    findings = examine(options)
    if options.json:
        text = json.dumps([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        text = "\n".join(f"{finding.state:7}  {finding.subject:{width}}  {finding.detail}" for finding in findings)
    sys.stdout.write(text + "\n")
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine(options: DoctorOptions, *, load: Callable[[str], Task] = load_task) -> list[Finding]:
    """All findings, in a fixed order: Python, packages, hardware, disk, data.

    Raises:
        UnknownTaskError: `options.tasks` names an unknown task.
    """
    tasks = [load(name) for name in expand(options.tasks)]
    findings = [Finding(subject="python", state="ok", detail=f"{platform.python_version()} on {platform.platform()}")]
    findings += [_torch(), _torchvision(), _imported("timm", "timm")]
    needed = {name for task in tasks for name in task.requires}
    findings += _mm_stack(sorted(needed & _MM_IMPORTS.keys(), key=list(_MM_IMPORTS).index))
    findings += [_imported(name, name) for name in sorted(needed - _MM_IMPORTS.keys() - {"timm", "torchvision"})]
    if needed & _MM_IMPORTS.keys():
        findings.append(_imported("cv2", "cv2"))
    findings += [_gpu(), _disk(Path.cwd())]
    if options.data_root is not None:
        findings += check_data(options.data_root, [task.name for task in tasks])
        findings += hash_data(options.data_root, tasks)
    return findings


def _distribution(name: str) -> str:
    for candidate in _DISTRIBUTIONS.get(name, (name,)):
        try:
            return f"{candidate} {version(candidate)}"
        except PackageNotFoundError:
            continue
    return f"{name} (version unknown)"


def _imported(subject: str, module: str) -> Finding:
    """Imports a module; everything an import may raise is a finding."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Finding(
            subject=subject,
            state="problem",
            detail=f"{one_line(error)}; install with: pip install 'unveil-evalharness[all]'",
        )
    except Exception as error:
        hint = "; install opencv-python-headless, which needs no display library" if "libGL" in str(error) else ""
        return Finding(subject=subject, state="problem", detail=f"{_distribution(subject)}: {one_line(error)}{hint}")
    return Finding(subject=subject, state="ok", detail=_distribution(subject))


def _torch() -> Finding:
    finding = _imported("torch", "torch")
    if finding.state != "ok":
        return finding
    import torch

    return Finding(subject="torch", state="ok", detail=f"{finding.detail}, {torch.get_num_threads()} threads")


def _torchvision() -> Finding:
    try:
        import unveil_backbones

        torchvision = unveil_backbones.ensure_torchvision()
    except (ImportError, RuntimeError) as error:
        return Finding(subject="torchvision", state="problem", detail=one_line(error))
    detail = f"{_distribution('torchvision')}, compiled operators "
    if torchvision.extension._has_ops():
        return Finding(subject="torchvision", state="ok", detail=detail + "loaded")
    return Finding(
        subject="torchvision",
        state="warning",
        detail=detail + "do not fit this torch; slower substitutes are used (install the matching torchvision build)",
    )


def _mm_stack(names: Sequence[str]) -> list[Finding]:
    if not names:
        return []
    from unveil_evalharness import compat

    try:
        compat.install()
    except (DependencyError, ImportError, RuntimeError) as error:
        return [Finding(subject="mm stack", state="problem", detail=one_line(error))]
    with compat.third_party_warnings():
        return [_imported(name, _MM_IMPORTS[name]) for name in names]


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(subject="gpu", state="ok", detail="none: tasks run on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding(subject="gpu", state="ok", detail=", ".join(names))


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    state: Literal["ok", "warning"] = "ok" if free >= _LITTLE_DISK_GIB else "warning"
    return Finding(subject="disk", state=state, detail=f"{free:.1f} GiB free at {folder}")
