"""`--protocol TASK=NAME`: one task by another protocol than the suite's."""

import json
from dataclasses import replace

import pytest
from toy_task import ToyTask, loader
from unveil_evalharness.errors import UnknownSuiteError, UsageError
from unveil_evalharness.options import command_line, named_protocols
from unveil_evalharness.results import read_rows
from unveil_evalharness.run import run


def test_a_named_protocol_takes_the_place_of_the_suites(options):
    task = ToyTask()
    run(replace(options, protocol=("toy=full",)), load=loader(task))
    assert task.contexts[0].protocol.steps == 300
    rows = read_rows(options.output_path / "results.jsonl")
    assert {row.suite for row in rows} == {"full"}
    kept = json.loads((options.output_path / "protocols" / f"{rows[0].protocol}.json").read_text())
    assert (kept["suite"], kept["protocol"]) == ("full", {"steps": 300})
    # The same protocol by its suite is the same cell.
    assert run(replace(options, suite="full"), load=loader(task)).num_skipped == 1


def test_a_name_that_the_task_does_not_know_is_refused(options):
    with pytest.raises(UnknownSuiteError, match="no suite 3x"):
        run(replace(options, protocol=("toy=3x",)), load=loader(ToyTask()))


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (("toy",), "takes TASK=NAME"),
        (("=full",), "takes TASK=NAME"),
        (("toy=full", "toy=quick"), "names a task twice"),
        (("coco_det=3x",), "'coco_det', which is not among --tasks toy"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, protocol, said):
    with pytest.raises(UsageError, match=said):
        replace(options, protocol=protocol)


def test_the_command_line_keeps_it(options):
    options = replace(options, tasks=("coco_det", "ade20k_seg"), protocol=("coco_det=3x", "ade20k_seg=80k"))
    assert named_protocols(options) == {"coco_det": "3x", "ade20k_seg": "80k"}
    words = command_line(options)
    assert words[words.index("--protocol") + 1] == "coco_det=3x,ade20k_seg=80k"
