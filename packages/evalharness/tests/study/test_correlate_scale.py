"""Reading large results at once gives what reading them row by row gives; a damaged file is still named by its line."""

import dataclasses

import numpy as np
import pytest
from unveil_evalharness.correlate import load as load_module
from unveil_evalharness.correlate.cells import cells_of_rows, read_cells
from unveil_evalharness.correlate.correlation import correlate_points
from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.correlate.load import load
from unveil_evalharness.correlate.table import Roles
from unveil_evalharness.errors import ResultsError


def fill(study, manifest, *, num_checkpoints: int = 12) -> None:
    generator = np.random.default_rng(0)
    for number in range(num_checkpoints):
        made = manifest(0.5 - 0.01 * number, step=100 + number)
        values = {"imagenet_ft.acc1": 0.5 + 0.01 * number + 0.01 * generator.random(), "knn.acc1": 0.25}
        study.add(made, values, seeds=(0, 1, 2))
        study.add(made, {"imagenet_ft.acc1": 0.6 + 0.01 * number}, seeds=(1,))  # a later row of one seed wins
        study.add(made, {"imagenet_ft.acc1": 0.1}, seeds=(2,), repeat=1)  # a repeat is no measurement of its own
        study.add(made, {"coco_det.bbox_mAP": None}, error="out of memory")
        study.add(made, {"imagenet_ft.acc1": 0.9}, limit=8, limited=True, standard_error=None, baseline=None)


def test_cells_of_a_whole_file_are_those_of_its_rows(study, manifest) -> None:
    fill(study, manifest)
    slow = cells_of_rows(read_evidence([study.folder]).rows)
    fast = read_cells([study.folder / "results.jsonl"])
    assert fast is not None

    def key(cell):
        return cell.column.metric, cell.sha256, cell.column.limit or 0

    assert len(slow) == len(fast) == 36
    for one, other in zip(sorted(slow, key=key), sorted(fast, key=key), strict=True):
        assert one.column == other.column
        for name in (field.name for field in dataclasses.fields(one) if field.name != "column"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert mine == (pytest.approx(theirs, abs=1e-12) if isinstance(mine, float) else theirs), name


def test_both_ways_give_the_same_correlation(study, manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(study, manifest)
    found = []
    for limit in (10**9, 0):
        monkeypatch.setattr(load_module, "LARGE_BYTES", limit)
        points = load([study.folder], published="", roles=Roles(x="")).points
        strata = correlate_points(points, outputs=(), num_resamples=100).strata
        found.append({(one.column.metric, one.column.limit): one for one in strata})
    assert found[0].keys() == found[1].keys()
    acc = ("imagenet_ft.acc1", None)
    assert found[0][acc].statistics.pearson.value == pytest.approx(found[1][acc].statistics.pearson.value, abs=1e-12)
    assert found[0]["knn.acc1", None].refusal.reason == found[1]["knn.acc1", None].refusal.reason == "constant_metric"


@pytest.mark.parametrize("line", ['{"schema_version": 1, "task": 3}', "{", '{"schema_version": 99}'])
def test_a_damaged_line_of_a_large_file_is_named(study, manifest, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    fill(study, manifest, num_checkpoints=2)
    path = study.folder / "results.jsonl"
    path.write_text(line + "\n" + path.read_text())
    assert read_cells([path]) is None
    monkeypatch.setattr(load_module, "LARGE_BYTES", 0)
    with pytest.raises(ResultsError, match=r"results\.jsonl:1"):
        load([study.folder], published="", roles=Roles(x=""))
