"""Cells without torch on a real SLURM: arrays, cancelled cells, refused options, a command killed while it submits."""

import subprocess
import sys
from pathlib import Path

import pytest
import sweep_stand_in
from sweep_stand_in import make_folder, stand_in
from unveil_backbones.errors import SlurmError
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.driver import looked_up, run_slurm
from unveil_pretrain.sweeping.executors import Resources
from unveil_pretrain.sweeping.job import CellJob, attempts_file

pytestmark = pytest.mark.slurm
ONE = Resources(cpus=1, timeout_min=5)


@pytest.fixture(autouse=True)
def cheap_cells(monkeypatch):
    monkeypatch.setattr("unveil_pretrain.sweeping.driver.cell_job", stand_in)


def starts(folder):
    """How often each cell's command was started, by the command's own count."""
    return [len((folder.run_path(cell) / "starts").read_text()) for cell in folder.plan().cells]


def attempts(slurm, folder):
    return [slurm.rows(attempts_file(folder.path, cell.name)) for cell in folder.plan().cells]


def test_more_cells_than_an_array_takes(slurm, tmp_path):
    """The cluster's MaxArraySize is 4: three arrays, of which no two run together; two cells at once, each once."""
    folder = make_folder(tmp_path / "sweep", *(Cell(recipe="good", steps=1, seed=seed) for seed in range(9)))
    run_slurm(folder, ONE, at_once=2, log=lambda _: None)
    slurm.wait_until_empty()
    states = folder.states()
    assert [state.state for state in states] == ["done"] * 9
    assert len({str(state.job).partition("_")[0] for state in states}) == 3
    assert starts(folder) == [1] * 9
    times = [(rows[0]["time"], rows[1]["time"]) for rows in attempts(slurm, folder)]
    assert max(sum(start <= moment <= end for start, end in times) for moment, _ in times) <= 2
    # The command again has nothing to do.
    run_slurm(folder, ONE, at_once=2, log=lambda _: None)
    assert slurm.queue() == {}
    assert starts(folder) == [1] * 9


def test_a_failed_and_a_cancelled_cell(slurm, tmp_path):
    """Others go on; the state of a failed job is FAILED; the command again does the rest."""
    cells = [Cell(recipe=how, steps=1) for how in ("fail", "slow", "good")]
    folder = make_folder(tmp_path / "sweep", *cells)
    said = []
    run_slurm(folder, ONE, at_once=1, log=said.append)
    jobs = [str(state.job) for state in folder.states()]
    assert [line.partition(" as ")[0] for line in said] == [f"{cell.name}: submitted" for cell in cells]
    assert all(str(folder.path / "logs" / f"{cell.name}.log") in line for cell, line in zip(cells, said, strict=True))
    slurm.ask("scancel", jobs[1])
    slurm.wait_until_empty()
    states = looked_up(folder, folder.states(), said.append)
    assert [state.state for state in states] == ["failed", "waiting", "done"]
    assert states[0].reason == "planted"
    assert f"job {jobs[1]} has left SLURM's queue" in str(states[1].reason)
    assert "JobState=FAILED" in slurm.ask("scontrol", "show", "job", jobs[0])
    run_slurm(folder, ONE, at_once=2, log=said.append)
    slurm.wait_until_empty()
    assert [state.state for state in folder.states()] == ["failed", "done", "done"]
    assert starts(folder) == [2, 1, 1]


KILLED = """
import os, signal, sys
from pathlib import Path
from sweep_stand_in import stand_in
from submitit.core.utils import JobPaths
from unveil_pretrain.sweeping import driver
from unveil_pretrain.sweeping.executors import Resources
from unveil_pretrain.sweeping.folder import SweepFolder
def die(*given, **named): os.kill(os.getpid(), signal.SIGKILL)
move = JobPaths.move_temporary_file
def die_at_the_second(paths, temporary, name, keep_as_symlink=False):
    if name == "submitted_pickle" and paths.submitted_pickle.name.endswith("_1_submitted.pkl"): die()
    move(paths, temporary, name, keep_as_symlink)
if sys.argv[2] == "before the notes": SweepFolder.note = die
else: JobPaths.move_temporary_file = die_at_the_second
driver.cell_job = stand_in
driver.run_slurm(SweepFolder(Path(sys.argv[1])), Resources(cpus=1, timeout_min=5), at_once=1, log=print)
"""


@pytest.mark.parametrize("moment", ["before the notes", "between two cells"])
def test_a_command_killed_while_it_submits(slurm, tmp_path, moment, monkeypatch):
    """What SLURM got is found in its queue, what it did not get is submitted; no cell is lost, none is run twice."""
    folder = make_folder(tmp_path / "sweep", *(Cell(recipe="slow", steps=1, seed=seed) for seed in range(3)))
    monkeypatch.setenv("PYTHONPATH", str(Path(str(sweep_stand_in.__file__)).parent))
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder.path), moment], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert [state.job for state in folder.states()] == [None] * 3
    said = []
    run_slurm(folder, ONE, at_once=2, log=said.append)
    lost = [line for line in said if "left by a command that was killed" in line]
    found = [line for line in said if "SLURM has it as job" in line]
    assert (len(lost), len(found)) == ((0, 3) if moment == "before the notes" else (2, 1)), said
    assert all(state.job is not None for state in folder.states())
    slurm.wait_until_empty()
    assert [state.state for state in folder.states()] == ["done"] * 3
    assert starts(folder) == [1] * 3
    assert all(slurm.each_alone(rows) for rows in attempts(slurm, folder))


def test_what_slurm_refuses_is_told_at_once(slurm, tmp_path):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=1))
    with pytest.raises(SlurmError, match=r"SLURM refused the jobs \(invalid partition specified: nowhere"):
        run_slurm(folder, Resources(cpus=1, partition="nowhere"), at_once=1, log=lambda _: None)
    with pytest.raises(SlurmError, match="SLURM refused the jobs"):
        run_slurm(folder, Resources(cpus=1, sbatch="reservation=none"), at_once=1, log=lambda _: None)
    assert folder.states()[0].state == "waiting"
    assert slurm.queue() == {}


def test_a_cell_gets_what_it_asked_for(slurm, tmp_path, monkeypatch):
    """srun does not take --cpus-per-task from sbatch: the step of the job must have been told, too."""

    def show(folder, cell, data, resources, *, threads):
        del data, resources
        words = f"env > {tmp_path}/cell.env; pwd > {tmp_path}/cell.pwd"
        return CellJob(name=cell.name, command=("sh", "-c", words), folder=folder.path.resolve(), threads=threads)

    monkeypatch.setattr("unveil_pretrain.sweeping.driver.cell_job", show)
    shell = tmp_path / "shell"
    shell.mkdir()
    monkeypatch.chdir(shell)
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=1))
    resources = Resources(cpus=2, timeout_min=5, setup="export FROM_SETUP=1", name="mine", sbatch="hold comment=why")
    run_slurm(folder, resources, at_once=1, log=lambda _: None)
    job = str(folder.states()[0].job)
    monkeypatch.chdir(tmp_path)
    shell.rmdir()  # before the job starts
    slurm.ask("scontrol", "release", job)
    slurm.wait_until_empty()
    variables = dict(line.partition("=")[::2] for line in (tmp_path / "cell.env").read_text().splitlines())
    assert (variables["SLURM_CPUS_PER_TASK"], variables["FROM_SETUP"]) == ("2", "1")
    assert variables["SLURM_STEP_NUM_TASKS"] == "1"
    assert Path((tmp_path / "cell.pwd").read_text().strip()) == folder.path.resolve() / "submitit"
    shown = slurm.ask("scontrol", "show", "job", job)
    assert "JobName=mine" in shown
    assert "Comment=why" in shown
