"""Plans as files: what is written is read, flags of a cell, and bad plans by name."""

import pytest
from unveil_pretrain.errors import PlanError
from unveil_pretrain.planning.plans import Cell, Plan, read_plan


def test_plan_is_what_was_written(tmp_path):
    plan = Plan(
        cells=(
            Cell(recipe="tiny_mae", steps=10, fraction=0.1, settings={"encoder": "timm:x", "batch_size": 4}),
            Cell(recipe="tiny_flip", command="flip", steps=20, seed=3, verdict="over-fits", flops=1e9),
        ),
        num_images=40,
        notes=("why",),
    )
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert read_plan(tmp_path / "plan.json") == plan
    assert [cell.name for cell in plan.cells] == ["tiny_mae-timm-x-f0.1-s10-r0", "tiny_flip-f1-s20-r3"]


def test_flags_of_a_cell(tmp_path):
    cell = Cell(recipe="tiny_mae", steps=10, fraction=0.1, settings={"image_size": "32 32", "mask_ratio": 0.5})
    words = cell.flags(num_images=44)
    assert " ".join(words) == "--steps 10 --seed 0 --num-unique 4 --image-size 32 32 --mask-ratio 0.5"
    assert "--num-unique" not in Cell(recipe="tiny_mae", steps=10).flags(num_images=44)
    assert str(tmp_path / "S10.txt") in cell.flags(num_images=44, lists=tmp_path)
    assert cell.list_file(tmp_path).name == "S10.txt"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as a plan"),
        ('{"cells": 3}', "is no plan"),
        ('{"cells": []}', "no cells"),
        ('{"cells": [{"recipe": "a"}]}', "lacks steps"),
        ('{"cells": [{"recipe": "a", "steps": 1, "stepz": 2}]}', "unknown field 'stepz'"),
        ('{"cells": [{"recipe": "a", "steps": "1"}]}', "give int"),
        ('{"cells": [{"recipe": "a", "steps": true}]}', "give int"),
        ('{"cells": [{"recipe": "a", "steps": 0}]}', "at least 1 step"),
        ('{"cells": [{"recipe": "a", "steps": 1, "fraction": 0}]}', "above 0"),
        ('{"cells": [{"recipe": "a", "steps": 1, "command": "rm"}]}', "mim, flip"),
        ('{"cells": [{"recipe": "a", "steps": 1, "name": "../x"}]}', "letters"),
        ('{"cells": [{"recipe": "a", "steps": 1, "settings": {"out": "x"}}]}', "sets out"),
        ('{"cells": [{"recipe": "a", "steps": 1}, {"recipe": "a", "steps": 1}]}', "two cells"),
        ('{"cells": [{"recipe": "a", "steps": 1}], "format_version": 2}', "format 2"),
    ],
)
def test_bad_plans_are_named(tmp_path, content, says):
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(PlanError, match=says):
        read_plan(file)
