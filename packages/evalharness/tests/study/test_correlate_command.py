"""`evalharness correlate` as a user meets it, and its freedom from torch."""

import dataclasses
import json
import subprocess
import sys

import pytest
from unveil_evalharness.cli import main
from unveil_evalharness.correlate.command import CorrelateOptions
from unveil_evalharness.errors import UsageError

LIGHT = "unveil_evalharness.correlate.command"


def run(*arguments: object) -> int:
    return main(["correlate", *map(str, arguments)])


def test_table_and_words_on_stdout(demo_study, capsys) -> None:
    assert run(demo_study.folder) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["metric", "against", "n", "Spearman"]
    row = next(line for line in lines if line.startswith("imagenet_ft.acc1") and "simmim" in line)
    assert row.split()[3] == "6"
    assert out.count("refused: too_few_points") == 1  # FLIP alone, with all its metrics
    assert "- A lower validation loss goes with a better ade20k_seg.mIoU" in out
    assert "do not beat the trivial baseline" in out
    assert err == ""


def test_json_and_filters(demo_study, capsys) -> None:
    assert (
        run(demo_study.folder, "--json", "--metric", "ade20k_seg.mIoU,coco_det", "--num-resamples", 200, "--seed", 3)
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert {stratum["column"]["metric"] for stratum in record["strata"]} == {
        "ade20k_seg.mIoU", "coco_det.bbox_mAP", "coco_det.segm_mAP"
    }  # fmt: skip
    assert (record["num_resamples"], record["seed"]) == (200, 3)


def test_nothing_to_compare_is_three(study, manifest, demo_study, capsys) -> None:
    few = type(study)(study.folder / "few")
    few.add(manifest(0.5), {"imagenet_ft.acc1": 0.5})
    assert run(few.folder) == 3
    captured = capsys.readouterr()
    assert "1 checkpoint, at least 5 are needed; evaluate more" in captured.out
    assert captured.out.endswith("[refused: too_few_points]. Metrics: imagenet_ft.acc1.\n")
    assert captured.err.count("\n") == 1
    assert run(demo_study.folder, "--joint") == 3
    assert "differ in objective" in capsys.readouterr().err
    failed = type(study)(study.folder / "failed")
    failed.add(manifest(0.5), {"imagenet_ft.acc1": None}, error="no data")
    assert run(failed.folder) == 3
    assert capsys.readouterr().out == "No finished results.\n"


def test_refusals_for_one_reason_are_one_line_which_names_loss_and_checkpoints(study, manifest, simmim, capsys) -> None:
    changed = dataclasses.replace(simmim, mask_seed=1)
    knn = {"knn.acc1@10": 0.5, "knn.acc1@20": 0.6}
    study.add(manifest(0.5), knn)
    study.add(manifest(0.4, step=400), knn)
    study.add(manifest(0.3, step=800), {"imagenet_ft.acc1": 0.5}, limit=7)
    study.add(manifest(0.5, name="vit", passport=changed), knn)
    study.add(manifest(None, step=7), knn)
    assert run(study.folder) == 3
    lines = capsys.readouterr().out.splitlines()
    need = "at least 5 are needed; evaluate more with the same loss and protocol [refused: too_few_points]. Metrics: "
    loss, other = (f"validation loss of simmim {passport.hash[:6]}" for passport in (simmim, changed))
    names = [f"simmim swinv2_tiny u=2000 s={step}" for step in (200, 400, 800)]
    assert lines == [
        f"- No correlation with the {loss} ({names[0]}, {names[1]}): 2 checkpoints, {need}knn.acc1@10, knn.acc1@20.",
        f"- No correlation with the {loss} ({names[2]}): 1 checkpoint, {need}imagenet_ft.acc1 (limited to 7).",
        f"- No correlation with the {other} (simmim vit u=2000 s=200): 1 checkpoint, {need}knn.acc1@10, knn.acc1@20.",
        "- Left out of knn.acc1@10, knn.acc1@20: simmim swinv2_tiny u=2000 s=7: it records no validation loss.",
    ]


def test_a_metric_that_was_measured_in_two_ways_is_said_once(study, manifest, capsys) -> None:
    for number in range(7):
        protocol = {} if number < 1 else {"protocol": f"{number % 2:016d}"}
        study.add(manifest(0.5 + 0.01 * number, step=200 + number), {"knn.acc1@10": 0.5}, **protocol)
    assert run(study.folder) == 3
    out = capsys.readouterr().out
    assert out.count("knn.acc1@10") == 2
    assert out.count("3 checkpoints, at least 5 are needed") == out.count("knn.acc1@10 (measured in 2 ways).") == 1
    assert "s=201, simmim swinv2_tiny u=2000 s=203, simmim swinv2_tiny u=2000 s=205, simmim swinv2_tiny u=2000 " in out
    assert " s=204 and 1 more): 3 checkpoints" in out


def test_bad_input_is_two_with_one_line(tmp_path, capsys) -> None:
    for arguments in ([tmp_path / "nowhere"], [","], [tmp_path, "--num-resamples", 5], [tmp_path, "--nonsense"], []):
        assert run(*arguments) == 2, arguments
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("evalharness: error: ")
        assert captured.out == ""


def test_comma_and_space_separate_folders(demo_study, study, manifest, tmp_path, capsys) -> None:
    other = type(study)(tmp_path / "other")
    other.add(manifest(0.2, step=1000), {"imagenet_ft.acc1": 0.95})
    for arguments in ([f"{demo_study.folder},{other.folder}"], [demo_study.folder, other.folder]):
        assert run(*arguments, "--metric", "imagenet_ft.acc1") == 0
        assert "  7  " in capsys.readouterr().out


def test_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="-1"):
        CorrelateOptions(results=("x",), seed=-1)


def loaded_modules(code: str) -> set[str]:
    process = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(process.stdout.split())


def test_loads_no_torch() -> None:
    loaded = loaded_modules(f"import {LIGHT}")
    assert LIGHT in loaded
    assert not {"torch", "timm", "matplotlib", "mmengine"} & loaded


def test_the_torch_test_can_fail(tmp_path) -> None:
    """Meta-test: a module that imports something called torch is found out."""
    (tmp_path / "torch.py").touch()
    (tmp_path / "heavy.py").write_text("import torch")
    assert "torch" in loaded_modules(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import heavy")


def test_many_checkpoints_and_seeds(study, manifest, capsys) -> None:
    """300 checkpoints × 10 seeds are averaged over seeds and keep their order."""
    for number in range(300):
        value = 0.9 - 1e-4 * number + 1e-3 * (number % 7)
        study.add(manifest(0.4 + 1e-4 * number, step=number + 1), {"imagenet_ft.acc1": value}, seeds=tuple(range(10)))
    assert run(study.folder) == 0
    assert "n = 300" in capsys.readouterr().out
