"""Folders of sweeps, and a stand-in for `pretrain` as the command of their cells."""

import sys

from unveil_pretrain.planning.plans import Plan
from unveil_pretrain.sweeping.folder import Data, SweepFolder
from unveil_pretrain.sweeping.job import CellJob

__all__ = ["DATA", "FAKE", "finish", "make_folder", "stand_in"]

DATA = Data(train_data="train.tar", val_data="val.tar", num_images=40, data_hash="abc")


def make_folder(path, *cells):
    folder = SweepFolder(path)
    folder.claim(Plan(cells=cells), DATA)
    return folder


def finish(folder, cell):
    """What a finished run leaves, as far as the state of a cell goes."""
    checkpoint = folder.run_path(cell) / "checkpoints" / f"step_{cell.steps:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")


# A stand-in for `pretrain`: writes what a run writes; fails on request, and counts how often it was started.
FAKE = """
import json, pathlib, sys, time
out, steps, how = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
(out / "checkpoints" / f"step_{steps:08d}").mkdir(parents=True, exist_ok=True)
with (out / "starts").open("a") as stream: stream.write("x")
if how == "fail": print("pretrain: error: planted", file=sys.stderr); raise SystemExit(2)
if how == "slow": time.sleep(3)
if how == "crash": raise RuntimeError("boom")
(out / "checkpoints" / f"step_{steps:08d}" / "manifest.json").write_text("{}")
"""


def stand_in(folder, cell, data, resources, *, threads):
    """The job of a cell, in place of `cell_job`; a recipe named fail, slow or crash does so."""
    del data, resources
    command = (sys.executable, "-c", FAKE, str(folder.run_path(cell)), str(cell.steps), cell.recipe)
    return CellJob(name=cell.name, command=command, folder=folder.path.resolve(), threads=threads)
