"""`evalharness ls` and `evalharness doctor`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict

import pytest
from toy_task import ToyTask
from unveil_evalharness.cli import main
from unveil_evalharness.datacheck import check_data, hash_data
from unveil_evalharness.doctor import DoctorOptions, examine
from unveil_evalharness.errors import DataError, UnknownTaskError, UsageError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.identity import ade20k_title, coco_title, imagenet_title
from unveil_evalharness.listing import ListOptions, describe
from unveil_evalharness.published_sizes import PUBLISHED_SIZES
from unveil_evalharness.tasks import TASK_NAMES
from unveil_evalharness.tasks.val_loss.config import ValLossProtocol

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
    records = json.loads(describe("suites", ListOptions(json=True), names=ONLY))
    quick, _, full = records
    assert [record["suite"] for record in records] == ["quick", "short", "full"]
    assert quick["protocol"] != full["protocol"]


def test_protocols_show_every_constant_under_its_fingerprint():
    (record,) = json.loads(describe("protocols", ListOptions(json=True, suite="full"), names=("val_loss",)))
    protocol = ValLossProtocol()
    assert record["fingerprint"] == fingerprint("val_loss", record["version"], protocol)
    assert record["constants"] == asdict(protocol)
    text = describe("protocols", ListOptions(suite="full"), names=("val_loss",))
    head, *lines = text.splitlines()
    assert head == f"val_loss version {record['version']}, suite full: {record['fingerprint']}"
    assert [line.split()[0] for line in lines] == list(record["constants"])
    assert len(describe("protocols", ListOptions(), names=("val_loss",)).split("\n\n")) == 3


def test_only_what_is_asked_for_is_listed():
    text = describe("tasks", ListOptions(tasks=("val_loss", "retrieval")))
    listed = [line.split()[0] for line in text.splitlines()[1:]]
    assert listed == ["val_loss", "zs_retrieval_coco", "zs_retrieval_flickr30k"]
    with pytest.raises(UnknownTaskError):
        describe("tasks", ListOptions(tasks=("val_lost",)))
    with pytest.raises(UsageError, match="cannot list 'protocol'; did you mean protocols"):
        ListOptions(what="protocol")


def test_every_task_of_the_package_has_a_published_size():
    assert PUBLISHED_SIZES.keys() == set(TASK_NAMES)


def test_published_sets_are_recognised_by_all_of_their_marks():
    classes = {f"n{number:08d}": 50 for number in range(1000)}
    assert imagenet_title("val", classes) == "ImageNet-1K validation"
    assert imagenet_title("val", {**classes, "n00000000": 49}) is None
    assert imagenet_title("val", {name.replace("n", "c"): 50 for name in classes}) is None
    assert imagenet_title("train", {**dict.fromkeys(classes, 1281), "n00000000": 1_281_167 - 999 * 1281}) is not None
    assert coco_title("val2017", num_images=5000, num_categories=80) == "COCO val2017"
    assert coco_title("val2017", num_images=5000, num_categories=79) is None
    assert ade20k_title("validation", num_images=2000, num_classes=150) is not None
    assert ade20k_title("training", num_images=2000, num_classes=150) is None


def test_a_task_of_no_known_layout_says_what_its_data_lacks(tmp_path):
    class Own(ToyTask):
        def data_hash(self, data_root):
            raise DataError("no colours here")

    (finding,) = hash_data(tmp_path, [Own()])
    assert (finding.state, finding.detail) == ("problem", "no colours here")


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
    assert by_subject["captions"].detail == "no published split: 8 images with 16 captions"
    assert by_subject["zs_retrieval data"].detail.startswith("hash ")
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
