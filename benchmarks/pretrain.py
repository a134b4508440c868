"""Whole training steps of MAE, SimMIM and VideoMAE, and their peak memory, against the reference implementations.

    python -m benchmarks.pretrain --mae CLONE --swin CLONE --json figures.json

A step is what the training loop does with a batch of uint8 pixels: normalise, masks, forward, backward, clip,
optimiser. Times are interleaved in one process. Memory is that of a few steps in a fresh process for each candidate: on
a GPU what PyTorch allocated at most, on a CPU the peak of the resident set above what Python and PyTorch held before
the model was built. VideoMAE has no peer: its reference asks for what today's PyTorch does not have.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from unveil_backbones import create, ensure_torchvision
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.recipes import mae_vit_b16, simmim_swinv2_s, tiny_videomae, videomae_b16

from benchmarks._compare import FEWEST_ROUNDS, Candidate, Comparison, UnequalOutputsError, compare
from benchmarks._device import open_device
from benchmarks._mae import MAE_EXPLICIT, MAE_FUSED, mae_difference, mae_flops, our_mae, reference_mae
from benchmarks._reference import MAE_URL, SWIN_URL, missing
from benchmarks._report import Report, add_arguments, settings_of
from benchmarks._simmim import our_simmim, reference_simmim, simmim_difference, simmim_flops
from benchmarks._steps import Work
from benchmarks._train_step import our_step, reference_step, uint8_batch

__all__ = ["main"]

_ROWS: Final = ("mae", "simmim", "videomae")
_WINDOW: Final = 47
_MEMORY_STEPS: Final = 2  # the optimiser's moments exist after the first one


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if outputs were unequal."""
    chosen = _parser().parse_args(arguments)
    ensure_torchvision()
    device = open_device(chosen.device, chosen.threads)
    batch = chosen.batch or (4 if device.torch.type == "cpu" else 128)
    autocast = chosen.dtype == "bf16" if chosen.dtype else device.fast_bfloat16
    work = Work(device=device, batch=batch, autocast=autocast, quick=chosen.quick)
    if chosen.memory_of is not None:
        print(json.dumps({"bytes": _memory_here(chosen.memory_of, work, chosen)}))
        return 0
    report = Report(device.name, headline=device.headline, threads=chosen.threads, path=chosen.json)
    precision = "bfloat16 (autocast)" if work.autocast else "float32"
    print(f"whole training steps, batch {batch}, products in {precision}, quick {work.quick}", flush=True)
    if chosen.rounds < FEWEST_ROUNDS:
        report.note(f"trial: {chosen.rounds} rounds, a result needs {FEWEST_ROUNDS}")
    try:
        for row in chosen.only:
            report.add(compare(_comparison(row, work, chosen), settings_of(chosen), device.clock))
            gc.collect()
            for name in _names(row, chosen):
                report.note(f"peak memory, {row}, {name}: {_memory(row, name, chosen) / 2**20:.0f} MiB")
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _names(row: str, chosen: argparse.Namespace) -> list[str]:
    """Who can be measured in a row."""
    if row == "mae" and missing("", "--mae", MAE_URL, chosen.mae, "models_mae.py") is None:
        return ["ours", MAE_EXPLICIT, MAE_FUSED]
    if row == "simmim" and missing("", "--swin", SWIN_URL, chosen.swin, "models/simmim.py") is None:
        return ["ours", "reference"]
    return ["ours"]


def _comparison(row: str, work: Work, chosen: argparse.Namespace) -> Comparison:
    return {"mae": _mae, "simmim": _simmim, "videomae": _videomae}[row](work, chosen)


def _mae(work: Work, chosen: argparse.Namespace) -> Comparison:
    ours, config, settings = our_mae(work)
    recipe, batch = replace(mae_vit_b16(), image_size=config.image_size), uint8_batch(work, config.image_size)
    absent = missing("reference", "--mae", MAE_URL, chosen.mae, "models_mae.py")
    towers = {name: reference_mae(work, chosen.mae, name, ours) for name in _names("mae", chosen)[1:]}
    few, flops = work.images(config.image_size[0], work.check_batch), work.batch * mae_flops(config, settings)
    differences = {name: mae_difference(ours, tower, few) for name, tower in towers.items()}
    steps = {name: reference_step(tower, recipe, batch, work, clip=False) for name, tower in towers.items()}
    return Comparison(
        title=f"whole MAE step, {ours.objective.encoder.spec.name} at {config.image_size[0]}, batch {work.batch}",
        ours=Candidate(name="ours", run=our_step(ours.objective, recipe, batch, work), flops=flops),
        peers=[*(Candidate(name=name, run=run, flops=flops) for name, run in steps.items()), *filter(None, [absent])],
        differences=lambda: differences,
        tolerance=1e-4,
    )


def _simmim(work: Work, chosen: argparse.Namespace) -> Comparison:
    ours, config, mask = our_simmim(work, _WINDOW)
    recipe, batch = replace(simmim_swinv2_s(), image_size=config.image_size), uint8_batch(work, config.image_size)
    absent = missing("reference", "--swin", SWIN_URL, chosen.swin, "models/simmim.py")
    flops = work.batch * simmim_flops(config)
    peers: list[Candidate] = []
    differences: dict[str, float] = {}
    if absent is None:
        model = reference_simmim(ours, config, mask, _WINDOW, chosen.swin).to(work.device.torch)
        differences["reference"] = simmim_difference(ours, model, work.images(config.image_size[0], work.check_batch))
        peers.append(
            Candidate(name="reference", run=reference_step(model, recipe, batch, work, clip=True), flops=flops)
        )
    return Comparison(
        title=f"whole SimMIM step, {ours.objective.encoder.spec.name} at {config.image_size[0]}, "
        f"target normalised by {_WINDOW} pixels, batch {work.batch}",
        ours=Candidate(name="ours", run=our_step(ours.objective, recipe, batch, work), flops=flops),
        peers=[*peers, *filter(None, [absent])],
        differences=lambda: differences,
        tolerance=1e-4,
    )


def _videomae(work: Work, chosen: argparse.Namespace) -> Comparison:
    del chosen
    recipe = tiny_videomae() if work.quick else videomae_b16()
    frames = recipe.objective.clip_settings()
    num_frames = 1 if frames is None else frames.num_frames
    torch.manual_seed(0)
    encoder = create(recipe.encoder, image_size=recipe.image_size, num_frames=num_frames)
    objective = recipe.objective.build(BuildContext(encoder, recipe.image_size, lambda _: [], None))
    batch = uint8_batch(work, (num_frames, *recipe.image_size))
    run = our_step(objective.to(work.device.torch), recipe, batch, work)
    flops = sample_flops(recipe).total
    return Comparison(
        title=f"whole VideoMAE step, {recipe.encoder}, {num_frames} frames of {recipe.image_size[0]}, "
        f"batch {work.batch}",
        ours=Candidate(name="ours", run=run, flops=None if flops is None else work.batch * flops),
        peers=[],
        differences=dict,
        tolerance=0.0,
    )


def _memory(row: str, name: str, chosen: argparse.Namespace) -> int:
    """Peak memory of one candidate's steps, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pretrain", "--memory-of", row, name, "--device", chosen.device]
    command += ["--threads", str(chosen.threads), *(["--quick"] if chosen.quick else [])]
    for option in ("batch", "dtype", "mae", "swin"):
        value = getattr(chosen, option)
        command += [] if value is None else [f"--{option}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def _memory_here(of: list[str], work: Work, chosen: argparse.Namespace) -> int:
    row, name = of
    before = _memory_line("VmRSS")
    run = _alone(row, name, work, chosen)
    work.device.clock.forget_peak()
    for _ in range(_MEMORY_STEPS):
        run()
    work.device.clock.synchronise()
    allocated = work.device.clock.peak_bytes()
    # Not getrusage: its peak begins with that of the process that started this one.
    return _memory_line("VmHWM") - before if allocated is None else allocated


def _alone(row: str, name: str, work: Work, chosen: argparse.Namespace) -> Callable[[], object]:
    """One candidate and nothing else."""
    if row == "mae" and name != "ours":
        recipe = mae_vit_b16()
        size = (64, 64) if work.quick else recipe.image_size
        return reference_step(reference_mae(work, chosen.mae, name), recipe, uint8_batch(work, size), work, clip=False)
    if row == "simmim" and name != "ours":
        ours, config, mask = our_simmim(work, _WINDOW)
        model = reference_simmim(ours, config, mask, _WINDOW, chosen.swin).to(work.device.torch)
        del ours  # its weights, that is; they were there before the first step
        gc.collect()
        return reference_step(model, simmim_swinv2_s(), uint8_batch(work, config.image_size), work, clip=True)
    without = argparse.Namespace(**{**vars(chosen), "mae": None, "swin": None})
    return _comparison(row, work, without).ours.run


def _memory_line(name: str) -> int:
    """Bytes of this process as Linux counts them: resident now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=list(_ROWS), help="rows to run")
    parser.add_argument("--batch", type=int, default=None, help="images per step (4 on a CPU, 128 on a GPU)")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32"), default=None, help="bf16 where there are instructions for it"
    )
    parser.add_argument("--mae", type=Path, default=None, metavar="PATH", help="clone of the MAE reference")
    parser.add_argument("--swin", type=Path, default=None, metavar="PATH", help="clone of the SwinV2 SimMIM reference")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that it runs, measures nothing")
    parser.add_argument("--memory-of", nargs=2, default=None, metavar=("ROW", "NAME"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
