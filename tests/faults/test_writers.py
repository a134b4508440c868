"""Every module that writes files is known here, with the test of what happens when the disk refuses.

A new module that writes makes this fail until it is listed, and with that thought about.
"""

import ast
from pathlib import Path

DISKS = "tests/faults/test_full_disks.py::"
PRETRAIN_RUN = f"{DISKS}test_pretrain_is_refused_at_sixteen_operations"
PRETRAIN_COMMAND = f"{DISKS}test_other_commands_of_pretrain"
HARNESS_RUN = f"{DISKS}test_evalharness_is_refused_at_twelve_operations"
HARNESS_TRAINING = f"{DISKS}test_a_task_that_trains_is_refused_at_twelve_operations"
HARNESS_COMMAND = f"{DISKS}test_other_commands_of_evalharness"
REFUSALS = "packages/evalharness/tests/test_core_run_refusals.py::"
SAVED = "packages/backbones/tests/test_checkpoint.py::"
SMALL = "tests/faults/test_full_disks_of_small_commands.py::test_a_full_disk_under_a_command_that_writes_one_thing"
NUMBERS = "tests/faults/test_numbers_and_memory.py::"
KNOWN = {
    "unveil_backbones/_layout.py": PRETRAIN_RUN,
    "unveil_backbones/checkpoint.py": PRETRAIN_RUN,
    "unveil_backbones/conversion/outgoing.py": f"{SAVED}test_a_read_only_folder_is_refused",
    "unveil_backbones/panics.py": "no file of a user's: stderr",
    "unveil_backbones/whole_files.py": HARNESS_RUN,
    "unveil_evalharness/console.py": HARNESS_RUN,
    "unveil_evalharness/correlate/figure.py": HARNESS_COMMAND,
    "unveil_evalharness/engine/batch.py": HARNESS_TRAINING,
    "unveil_evalharness/engine/interim.py": HARNESS_TRAINING,
    "unveil_evalharness/engine/session.py": HARNESS_TRAINING,
    "unveil_evalharness/evaluate.py": HARNESS_TRAINING,
    "unveil_evalharness/executing/dispatch.py": f"{REFUSALS}test_a_read_only_output_path_is_refused",
    "unveil_evalharness/executing/job.py": f"{REFUSALS}test_a_read_only_output_path_is_refused",
    "unveil_evalharness/foreign/convert.py": f"{REFUSALS}test_a_read_only_output_path_is_refused",
    "unveil_evalharness/gate/command.py": SMALL,
    "unveil_evalharness/gate/pin.py": HARNESS_COMMAND,
    "unveil_evalharness/memory.py": "no file of a user's: /proc",
    "unveil_evalharness/output.py": HARNESS_RUN,
    "unveil_evalharness/predict/command.py": HARNESS_COMMAND,
    "unveil_evalharness/report/machine.py": "no file of a user's: text in memory",
    "unveil_evalharness/report/write.py": HARNESS_COMMAND,
    "unveil_evalharness/results.py": HARNESS_RUN,
    "unveil_evalharness/tasks/classification/features.py": HARNESS_RUN,
    "unveil_evalharness/tasks/coco_det/annotations.py": f"{DISKS}test_a_task_that_cannot_write_is_no_failed_task",
    "unveil_evalharness/tasks/linear_probe/model.py": f"{DISKS}test_a_task_that_cannot_write_is_no_failed_task",
    "unveil_evalharness/tasks/val_loss/data.py": f"{DISKS}test_a_task_that_cannot_write_is_no_failed_task",
    "unveil_masking/show/picture.py": SMALL,
    "unveil_pretrain/ablation/results.py": PRETRAIN_COMMAND,
    "unveil_pretrain/ablation/study.py": PRETRAIN_COMMAND,
    "unveil_pretrain/checkpointing.py": PRETRAIN_RUN,
    "unveil_pretrain/commands/audit.py": PRETRAIN_COMMAND,
    "unveil_pretrain/commands/flip_ablation.py": PRETRAIN_COMMAND,
    "unveil_pretrain/commands/plan.py": PRETRAIN_COMMAND,
    "unveil_pretrain/commands/score.py": PRETRAIN_COMMAND,
    "unveil_pretrain/commands/subset.py": PRETRAIN_COMMAND,
    "unveil_pretrain/data/build_shards.py": PRETRAIN_COMMAND,
    "unveil_pretrain/data/shard_writer.py": PRETRAIN_COMMAND,
    "unveil_pretrain/failures.py": f"{NUMBERS}test_a_failure_that_cannot_be_written_is_told",
    "unveil_pretrain/interrupts.py": "no file of a user's: stderr",
    "unveil_pretrain/loggers.py": PRETRAIN_RUN,
    "unveil_pretrain/record.py": PRETRAIN_RUN,
    "unveil_pretrain/resume_child.py": "no file of a user's: what `verify-resume` compares",
    "unveil_pretrain/scenes/build.py": PRETRAIN_COMMAND,
    "unveil_pretrain/scenes/write_ade20k.py": PRETRAIN_COMMAND,
    "unveil_pretrain/scenes/write_coco.py": PRETRAIN_COMMAND,
    "unveil_pretrain/scenes/write_imagenet.py": PRETRAIN_COMMAND,
    "unveil_pretrain/scenes/write_shards.py": PRETRAIN_COMMAND,
    "unveil_pretrain/sweeping/driver.py": PRETRAIN_COMMAND,
    "unveil_pretrain/sweeping/folder.py": PRETRAIN_COMMAND,
    "unveil_pretrain/sweeping/job.py": PRETRAIN_COMMAND,
    "unveil_pretrain/sweeping/table.py": PRETRAIN_COMMAND,
    "unveil_pretrain/tensor_parts.py": f"{DISKS}test_checkpoints_in_parts_are_refused_files",
    "unveil_pretrain/train_state.py": PRETRAIN_RUN,
    "unveil_pretrain/val_table.py": PRETRAIN_RUN,
}
NAMES = ("write_text", "write_bytes", "save_file", "write_parquet", "write_csv", "savefig", "mkstemp", "mkdtemp",
         "TarWriter", "SummaryWriter", "write_whole", "write_directory", "write_tensors", "fdopen")  # fmt: skip


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file, or opens one for writing; text in memory (`io`) is not told from files."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in NAMES:
        return True
    constants = [
        value.value
        for value in (*call.args, *(word.value for word in call.keywords))
        if isinstance(value, ast.Constant)
    ]
    modes = [
        value
        for value in constants
        if isinstance(value, str) and value and value[0] in "wax" and set(value) <= set("waxbt+:gz")
    ]
    owner = call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
    return (name == "open" and bool(modes)) or (owner, name) in (("os", "write"), ("torch", "save"))


def writers(root: Path) -> set[str]:
    found = set()
    for file in sorted(root.glob("packages/*/src/**/*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.Call) and writes(node) for node in ast.walk(tree)):
            found.add(file.relative_to(root).as_posix().split("/src/")[1])
    return found


def test_the_search_finds_writers():
    for code in ("p.open('w')", "open(p, 'ab')", "p.open(mode='r+b')", "f.write_text('')", "os.write(1, b'')",
                 "torch.save({}, f)", "write_whole(p, b'')", "tarfile.open(f, 'w')"):  # fmt: skip
        assert writes(ast.parse(code, mode="eval").body) is (code != "p.open(mode='r+b')"), code
    for code in ("p.open()", "open(p, 'rb')", "text.replace('a', 'b')", "tarfile.open(f, 'r:')"):
        assert not writes(ast.parse(code, mode="eval").body), code


def test_every_module_that_writes_is_listed(root):
    assert writers(root) == set(KNOWN)


def test_the_tests_of_writers_are_there(root):
    for module, test in KNOWN.items():
        file, _, name = test.partition("::")
        if name:
            tree = ast.parse((root / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (module, test)
        else:
            assert test.startswith("no file of a user's: "), (module, test)
