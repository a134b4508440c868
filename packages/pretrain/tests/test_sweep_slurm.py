"""Sweeps on SLURM, with its programs doubled: what they are told, and what is made of what they say."""

import os
import stat
import time

import pytest
from submitit.core.utils import DelayedSubmission
from sweep_stand_in import finish, make_folder, stand_in
from unveil_backbones.errors import SlurmError
from unveil_backbones.slurm.arrays import sbatch_options
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.driver import looked_up, run_slurm
from unveil_pretrain.sweeping.executors import Resources
from unveil_pretrain.sweeping.folder import absolute_places
from unveil_pretrain.sweeping.job import CellJob, read_outcome
from unveil_pretrain.sweeping.slurm import job_settings, scripts_folder


@pytest.fixture
def fake(monkeypatch):
    """Cells run the stand-in."""
    monkeypatch.setattr("unveil_pretrain.sweeping.driver.cell_job", stand_in)


# A cluster of one machine, for submitit's own SLURM executor: sbatch runs the tasks of an array one after the other in
# the background, with the environment that SLURM would give them; srun drops its options and runs the rest.
SBATCH = """#!/bin/bash
echo "$@" >> "{log}/sbatch.log"; cat "${{@: -1}}" >> "{log}/scripts.log"
export SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
last=$(grep -oP 'array=0-\\K[0-9]+' "${{@: -1}}")
[[ -n "$last" ]] && export SLURM_ARRAY_JOB_ID=77
(for task in $(seq 0 "${{last:-0}}"); do
  [[ -n "$last" ]] && export SLURM_ARRAY_TASK_ID=$task
  bash "${{@: -1}}" > "{log}/task$task.log" 2>&1
done) > /dev/null 2>&1 &
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SQUEUE = '#!/bin/bash\ncat "{log}/queue" 2>/dev/null || true\n'
SCANCEL = '#!/bin/bash\necho $1 >> "{log}/gone"\n'
SCONTROL = '#!/bin/bash\necho "MaxArraySize            = {largest}"\n'


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """The programs on PATH; a test double, not a cluster (tests/slurm has one)."""
    programs = tmp_path / "programs"
    programs.mkdir()
    texts = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL, "scancel": SCANCEL}
    texts = {name: text.format(log=programs, largest=3) for name, text in texts.items()}
    for name, text in {"srun": SRUN, **texts}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return programs


def told(folder, resources):
    """What submitit is told of a cell."""
    return sbatch_options(scripts_folder(folder), job_settings(folder, resources, at_once=1))


def wait_for(folder, *cells):
    """Until the jobs in the background have ended."""
    until = time.monotonic() + 60
    while any(read_outcome(folder.path, cell.name) is None for cell in cells):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_slurm_by_a_stand_in(tmp_path, fake, fake_slurm):
    cells = [Cell(recipe=how, steps=3) for how in ("good", "fail", "fine")]
    folder = make_folder(tmp_path / "sweep", *cells)
    finish(folder, cells[2])
    resources = Resources(gpus=2, num_workers=3, partition="big", account="me", timeout_min=90, mem_gb=20.0)
    run_slurm(folder, resources, at_once=5, log=lambda _: None)
    wait_for(folder, *cells[:2])
    states = folder.states()
    script = (fake_slurm / "scripts.log").read_text()
    for line in ("--partition=big", "--account=me", "--time=90", "--mem=20GB", "--gpus-per-node=2", "--cpus-per-task=5",
                 "--array=0-1%2", "--requeue\n", "--signal=USR2@"):  # fmt: skip
        assert line in script, line
    logs = "".join(path.read_text() for path in fake_slurm.glob("task*.log"))
    assert [state.state for state in states] == ["done", "failed", "done"], logs
    assert states[1].reason == "planted"
    assert states[0].job == "77_0"


def test_slurm_is_asked_before_a_second_submission(tmp_path, fake, fake_slurm):
    cells = [Cell(recipe=how, steps=3) for how in ("good", "fine", "more", "even")]
    folder = make_folder(tmp_path / "sweep", *cells)
    for number, cell in enumerate(cells[:2]):
        folder.note("submitted", cell, job=f"70_{number}")
    # 70_0 runs; 70_1 has left the queue; of 71 nobody made a note: it has the third cell; 72 has nothing.
    scripts = folder.path.resolve() / "submitit"
    for number, cell in (("70_0", cells[0]), ("71", cells[2])):
        handed = CellJob(name=cell.name, command=("true",), folder=folder.path, threads=0)
        DelayedSubmission(handed).dump(scripts / f"{number}_submitted.pkl")
    rows = [f"{number}|RUNNING|None|{scripts}/s|1.sh\n" for number in ("70_0", "71", "72")]
    (fake_slurm / "queue").write_text("".join(rows) + "8|RUNNING|None|/elsewhere/s.sh\n")
    said = []
    run_slurm(folder, Resources(), at_once=5, log=said.append)
    wait_for(folder, cells[1], cells[3])
    states = folder.states()
    assert [state.state for state in states] == ["submitted", "done", "submitted", "done"]
    assert [state.job for state in states] == ["70_0", "77_0", "71", "77_1"]
    assert said[0].startswith("job 72: left by a command that was killed")
    assert "SLURM has it as job 70_0: RUNNING" in said[1]
    assert "job 70_1 has left SLURM's queue" in said[2]
    assert (fake_slurm / "gone").read_text() == "72\n"


def test_more_cells_than_an_array_takes(tmp_path, fake, fake_slurm):
    sbatch = f'#!/bin/sh\ncat "$1" >> "{fake_slurm}/scripts.log"; echo Submitted batch job 77\n'
    (fake_slurm / "sbatch").write_text(sbatch)
    cells = [Cell(recipe="good", steps=3, seed=seed) for seed in range(5)]
    folder = make_folder(tmp_path / "sweep", *cells)
    run_slurm(folder, Resources(cpus=3, timeout_min=1), at_once=2, log=lambda _: None)
    script = (fake_slurm / "scripts.log").read_text()
    assert [line for line in script.splitlines() if "--array" in line or "--dependency" in line] == [
        "#SBATCH --array=0-2%2", "#SBATCH --array=0-1%2", "#SBATCH --dependency=afterany:77",
    ]  # fmt: skip
    # A quarter of a short limit is the notice; srun is told the cores again.
    assert "--signal=USR2@15" in script
    assert "--cpus-per-task=3 " in next(line for line in script.splitlines() if line.startswith("srun"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("reservation=night exclusive", {"reservation": "night", "exclusive": True}),
        ("--nodelist='n[1-4,7]' mail_type=END", {"nodelist": "n[1-4,7]", "mail-type": "END"}),
        ("partition=other", {"partition": "other"}),
    ],
)
def test_further_options_of_sbatch(tmp_path, given, expected):
    options = told(tmp_path, Resources(sbatch=given, name="mine", setup="module load x"))
    always = {"requeue": True, "chdir": str(tmp_path / "submitit")}
    assert options["slurm_additional_parameters"] == always | expected
    assert (options["name"], options["slurm_setup"]) == ("mine", ["module load x"])
    assert told(tmp_path, Resources())["name"] == f"pretrain-{tmp_path.name}"


@pytest.mark.parametrize("given", ["-p gpu", "it's", "=x"])
def test_what_cannot_be_an_option_of_sbatch(tmp_path, given):
    with pytest.raises(SlurmError, match="--sbatch"):
        told(tmp_path, Resources(sbatch=given))


def test_data_are_named_for_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_places("a/x-{0..3}.tar::/b/*.tar") == f"{tmp_path}/a/x-{{0..3}}.tar::/b/*.tar"
    assert absolute_places("s3://b/x.tar::{/a,/b}/c.tar") == "s3://b/x.tar::{/a,/b}/c.tar"


def test_slurm_that_refuses_is_one_line(tmp_path, fake, fake_slurm):
    (fake_slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: no such partition' >&2; exit 1\n")
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    with pytest.raises(SlurmError, match=r"SLURM refused the jobs \(no such partition\); check --partition"):
        run_slurm(folder, Resources(partition="x"), at_once=1, log=lambda _: None)
    assert folder.states()[0].state == "waiting"


def test_slurm_that_does_not_answer_is_one_line(tmp_path, fake, fake_slurm):
    (fake_slurm / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: no contact' >&2; exit 1\n")
    cell = Cell(recipe="good", steps=3)
    folder = make_folder(tmp_path / "sweep", cell)
    folder.note("submitted", cell, job="7")
    said = []
    with pytest.raises(SlurmError, match="SLURM does not answer"):
        run_slurm(folder, Resources(), at_once=1, log=said.append)
    assert looked_up(folder, folder.states(), said.append) == folder.states()
    assert "SLURM does not answer (slurm_load_jobs error: no contact)" in said[-1]
    (fake_slurm / "squeue").write_text("#!/bin/sh\n")
    (state,) = looked_up(folder, folder.states(), said.append)
    assert state.state == "waiting"
    assert "job 7 has left SLURM's queue" in str(state.reason)


def test_within_a_job_sbatch_is_not_told_of_it(tmp_path, fake, fake_slurm, monkeypatch):
    (fake_slurm / "sbatch").write_text('#!/bin/sh\nenv > "$0.env"; echo Submitted batch job 5\n')
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CPUS_PER_TASK", "SLURM_CONF", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "9")
    run_slurm(make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3)), Resources(), at_once=1, log=lambda _: None)
    told = {line.partition("=")[0] for line in (fake_slurm / "sbatch.env").read_text().splitlines()}
    assert {name for name in told if name.startswith(("SLURM", "SBATCH"))} == {"SLURM_CONF", "SBATCH_PARTITION"}
    assert os.environ["SLURM_JOB_ID"] == "9"


def test_no_slurm_here(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    with pytest.raises(SlurmError, match="SLURM cannot be used here"):
        run_slurm(folder, Resources(), at_once=1, log=lambda _: None)
