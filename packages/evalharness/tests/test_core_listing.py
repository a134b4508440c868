"""`evalharness ls` and `evalharness doctor`."""

import json
import shutil
from collections.abc import Callable

import pytest
from unveil_evalharness.cli import main
from unveil_evalharness.datacheck import check_data
from unveil_evalharness.doctor import DoctorOptions, examine
from unveil_evalharness.listing import ListOptions, describe

ONLY = ("zs_retrieval",)


def test_tasks_with_main_metric_time_and_dependencies():
    (record,) = json.loads(describe("tasks", ListOptions(json=True), names=ONLY))
    assert record["main metric"] == "zs_retrieval.image_recall@5"
    assert record["dependencies"] == "present"
    assert "data" not in record
    assert all(isinstance(value, str) and value for value in record.values())


def test_data_is_looked_for_when_a_root_is_given(caption_shards, tmp_path):
    (record,) = json.loads(describe("tasks", ListOptions(data_root=caption_shards, json=True), names=ONLY))
    assert record["data"].startswith("present (")
    (record,) = json.loads(describe("tasks", ListOptions(data_root=tmp_path / "no", json=True), names=ONLY))
    assert record["data"].startswith("missing: no captioned images under")


def test_suites_show_protocol_fingerprints():
    quick, full = json.loads(describe("suites", ListOptions(json=True), names=ONLY))
    assert (quick["suite"], full["suite"]) == ("quick", "full")
    assert quick["protocol"] != full["protocol"]


def test_metrics_mark_the_main_one():
    text = describe("metrics", ListOptions(), names=ONLY)
    lines = text.splitlines()
    assert lines[0].split() == ["metric", "main", "better", "unit"]
    assert [line.split()[0] for line in lines if " main " in line and line != lines[0]] == [
        "zs_retrieval.image_recall@5"
    ]


@pytest.mark.mm
def test_every_task_can_be_listed(capsys):
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("imagenet_ft", "coco_det", "ade20k_seg", "zs_retrieval"))


def test_doctor_examines_packages_hardware_and_data(caption_shards):
    findings = examine(DoctorOptions(data_root=caption_shards, tasks=ONLY))
    by_subject = {finding.subject: finding for finding in findings}
    assert {"python", "torch", "torchvision", "timm", "webdataset", "gpu", "disk", "captions"} <= by_subject.keys()
    assert "mmdet" not in by_subject
    assert by_subject["captions"].detail == "16 captions of 8 images"
    assert [finding for finding in findings if finding.state == "problem"] == []


def test_doctor_exits_with_one_when_data_is_missing(tmp_path, capsys):
    assert main(["doctor", "--tasks", "zs_retrieval", "--data-root", str(tmp_path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in findings if finding["state"] == "problem"] == ["captions"]


def test_doctor_prints_one_line_per_finding(caption_shards, capsys):
    assert main(["doctor", "--tasks", "zs_retrieval", "--data-root", str(caption_shards)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warning") for line in lines)


@pytest.mark.mm
@pytest.mark.slow
def test_doctor_imports_the_whole_stack():
    findings = {finding.subject: finding for finding in examine(DoctorOptions())}
    for name in ("mmengine", "mmcv", "mmdet", "mmseg", "cv2"):
        assert findings[name].state == "ok", findings[name]


@pytest.fixture
def make_data(tmp_path, encode_image) -> Callable:
    """A small data root in the layouts of the three trained tasks."""
    root = tmp_path / "root"
    picture = encode_image((9, 9, 9), kind="PNG")

    def put(path: str, content: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    for split in ("train", "val"):
        for name in ("cat", "dog"):
            put(f"imagenet/{split}/{name}/1.png", picture)
        put(f"coco/{split}2017/1.png", picture)
        content = {
            "images": [{"id": 1, "file_name": "1.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        put(f"coco/annotations/instances_{split}2017.json", json.dumps(content).encode())
    for split in ("training", "validation"):
        put(f"ade20k/images/{split}/1.jpg", picture)
        put(f"ade20k/annotations/{split}/1.png", picture)
    put("ade20k/objectInfo2.txt", b"Idx\tRatio\tTrain\tVal\tName\n1\t0.5\t1\t1\tcat\n2\t0.5\t1\t1\tdog\n")
    return lambda: root


TRAINED = ("imagenet_ft", "coco_det", "ade20k_seg")


def test_sound_data_is_counted(make_data):
    findings = check_data(make_data(), TRAINED)
    assert {finding.subject: finding.detail for finding in findings} == {
        "imagenet/train": "2 images in 2 classes",
        "imagenet/val": "2 images in 2 classes",
        "coco/train2017": "1 images, 1 objects, 1 categories",
        "coco/val2017": "1 images, 1 objects, 1 categories",
        "ade20k": "2 classes in objectInfo2.txt",
        "ade20k/training": "1 images with annotations",
        "ade20k/validation": "1 images with annotations",
    }
    assert all(finding.state == "ok" for finding in findings)


@pytest.mark.parametrize(
    ("damage", "subject", "message"),
    [
        (lambda root: shutil.rmtree(root / "imagenet" / "val"), "imagenet/val", "is missing; imagenet_ft reads"),
        (lambda root: shutil.rmtree(root / "imagenet/val/dog"), "imagenet", "classes differ between train and val"),
        (lambda root: (root / "imagenet/val/dog/1.png").unlink(), "imagenet/val", "no images in dog"),
        (lambda root: (root / "coco/annotations/instances_val2017.json").unlink(), "coco/val2017", "is missing"),
        (
            lambda root: (root / "coco/annotations/instances_val2017.json").write_text("{}"),
            "coco/val2017",
            "is not a COCO instance file: KeyError",
        ),
        (lambda root: (root / "coco/val2017/1.png").unlink(), "coco/val2017", "names 1 images that are not in"),
        (lambda root: (root / "ade20k/annotations/training/1.png").unlink(), "ade20k/training", "image without"),
        (lambda root: shutil.rmtree(root / "ade20k/images/training"), "ade20k/training", "no images in"),
        (lambda root: (root / "ade20k/objectInfo2.txt").unlink(), "ade20k", "holds 0 objectInfo"),
    ],
)  # fmt: skip
def test_damage_is_found(make_data, damage, subject, message):
    root = make_data()
    damage(root)
    problems = [finding for finding in check_data(root, TRAINED) if finding.state == "problem"]
    assert [(finding.subject, message in finding.detail) for finding in problems] == [(subject, True)]


def test_a_missing_root_is_one_problem(tmp_path):
    (finding,) = check_data(tmp_path / "no", TRAINED)
    assert finding.state == "problem"
