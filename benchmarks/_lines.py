"""What `make bench` and `make bench-gpu` measure: one benchmark a line, with the peer it is there for.

A line is stopped at its limit, and where the whole would take longer than `MOST_SECONDS`, which is what was promised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MOST_SECONDS", "Line", "cpu_lines", "gpu_lines"]

MOST_SECONDS = {"cpu": 880.0, "cuda": 520.0}
"""Of all lines together: a quarter of an hour and nine minutes, less what starting and stopping takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One benchmark."""

    name: str
    """What is measured, and against whom."""
    module: str
    """The benchmark, a module of this package."""
    options: tuple[str, ...]
    """Its options."""
    limit: float
    """Seconds after which it is stopped."""


def cpu_lines(photographs: Path, *, mae: Path | None, swin: Path | None) -> list[Line]:
    """Lines of a CPU, at most 15 minutes.

    Args:
        photographs: A folder of JPEG files for the line of decoding.
        mae: Clone of the MAE reference; its line is reported as absent without it.
        swin: Clone of the SwinV2 SimMIM reference; likewise.
    """
    clones = [*_given("--mae", mae), *_given("--swin", swin)]
    # The quick ones first: what is slower than expected takes time from the last ones.
    return [
        _line("masks (sorting per sample, timm, open_clip)", "masking", 60, "--only", "random", "--batch", "512"),
        _line("target of SimMIM (reference)", "backbones", 60, "--only", "target", "--batch", "2", *clones),
        _line("contrastive loss (open_clip)", "flip", 100, "--only", "loss", "--global-batch", "2048"),
        _line("decoding (Pillow)", "data", 60, "--only", "view", "--images", str(photographs)),
        _line("retrieval (NumPy, PyTorch, CLIP_benchmark's top k)", "retrieval", 60, "--only", "1k"),
        _line("bootstrap of coefficients (scipy)", "correlate", 60, "--only", "bootstrap"),
        _line("CLIP step (open_clip)", "flip", 150, "--only", "step", "--batch", "2", "--ratios", "0.75"),
        _line("training step of SimMIM (timm, reference)", "backbones", 240, "--only", "simmim", "--batch", "1",
              *clones),
        _line("training step of FLIP and MAE (own whole step, timm)", "backbones", 240, "--only", "flip", "mae",
              "--batch", "1", "--ratios", "0.75", *clones),
        _line("MAE step with its optimiser (reference)", "pretrain", 200, "--only", "mae", "--batch", "1", "--dtype",
              "fp32", *clones),
    ]  # fmt: skip


def gpu_lines(*, mae: Path | None, swin: Path | None) -> list[Line]:
    """Lines of one GPU, at most 9 minutes; arguments as `cpu_lines`."""
    clones = [*_given("--mae", mae), *_given("--swin", swin)]
    # Compiled block by block, as training does: whole steps took compilers longer than the nine minutes. Batches at
    # which a large GPU has more to do than its host, and which fit three at a time; the longest lines come first.
    device, compiled = ("--device", "cuda"), ("--compile", "blocks")
    table = [
        ("training step of SimMIM (timm, reference)", "backbones", "--only", "target", "simmim", "--batch", "128",
         *compiled, *clones),
        ("CLIP step (open_clip)", "flip", "--only", "step", "--batch", "512", *compiled),
        ("training step of FLIP (timm, open_clip, own whole step)", "backbones", "--only", "flip", "--batch", "512",
         *compiled),
        ("FLIP step of L/16 (own whole step)", "flip", "--only", "own", "--batch", "256", *compiled),
        ("training step of MAE (reference)", "backbones", "--only", "mae", "--batch", "512", *compiled, *clones),
        ("MAE and SimMIM steps (reference)", "pretrain", "--only", "mae", "simmim", "--batch", "64", *clones),
        ("contrastive loss and memory (open_clip)", "flip", "--only", "loss", "memory", "--batch", "128"),
        ("masks within a step (share of it)", "masking", "--only", "step", "--compile"),
    ]  # fmt: skip
    return [_line(name, module, MOST_SECONDS["cuda"], *device, *options) for name, module, *options in table]


def _line(name: str, module: str, limit: float, *options: str) -> Line:
    return Line(name=name, module=module, options=options, limit=limit)


def _given(flag: str, place: Path | None) -> Sequence[str]:
    return () if place is None else (flag, str(place))
