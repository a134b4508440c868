"""Zero-shot classification on a real checkpoint, against open_clip's own classifier and scikit-learn."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import unveil_backbones
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks import DEFAULT_TASKS, TASK_GROUPS, TASK_NAMES, expand, load_task
from unveil_evalharness.tasks.zs_classification.config import ZeroShotProtocol
from unveil_evalharness.tasks.zs_classification.metrics import class_vectors, nearest_classes
from unveil_evalharness.tasks.zs_classification.model import PairEmbedder, embed_classes
from unveil_evalharness.tasks.zs_classification.prompts import templates_for

TASKS = ("zs_classification", "zs_classification_80", "zs_imagenet_v2", "zs_imagenet_a", "zs_imagenet_r",
         "zs_imagenet_sketch", "zs_objectnet")  # fmt: skip


@pytest.fixture
def colours(tmp_path, encode_image):
    """Seven classes with three or four images each under ``imagenet/val``."""
    for number, name in enumerate(("red", "green", "blue", "white", "grey", "dark_red", "black")):
        folder = tmp_path / "imagenet" / "val" / name
        folder.mkdir(parents=True)
        for image in range(3 + number % 2):
            colour = (37 * number % 256, 91 * number % 256, 60 * image)
            (folder / f"{image}.jpg").write_bytes(encode_image(colour, size=(40 + image, 36)))
    return tmp_path


@pytest.fixture
def evaluate(flip_checkpoint, colours, tmp_path):
    def run(*, limit=None, batch_size=None):
        task = load_task("zs_classification")
        context = TaskContext(
            checkpoint=unveil_backbones.load(flip_checkpoint),
            data_root=colours,
            protocol=task.protocol("full"),
            seed=0,
            limit=limit,
            batch_size=batch_size,
            device="cpu",
            work_dir=tmp_path,
            log=lambda message: None,
            progress=False,
        )
        return task.run(context)

    return run


def test_the_numbers_are_those_of_open_clips_classifier_and_scikit_learn(evaluate, colours, flip_checkpoint):
    unveil_backbones.ensure_torchvision()
    from open_clip import build_zero_shot_classifier
    from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES

    result = evaluate()
    pair, tokenizer = unveil_backbones.load_pair(flip_checkpoint)

    class AsOpenClip:
        def encode_text(self, ids, normalize):
            assert normalize
            return pair.encode_text(ids)

    # Names as the folders give them, in the order of the sorted folders.
    names = ["black", "blue", "dark red", "green", "grey", "red", "white"]
    weights = build_zero_shot_classifier(AsOpenClip(), tokenizer, names, SIMPLE_IMAGENET_TEMPLATES)
    preprocessing = unveil_backbones.read_manifest(flip_checkpoint).preprocessing
    embedder = PairEmbedder(flip_checkpoint, preprocessing, device="cpu")
    ours = embed_classes(embedder, names, templates_for("clip_7"))
    torch.testing.assert_close(torch.from_numpy(ours.T), weights, atol=1e-6, rtol=0)

    labels = [names.index(label) for label in result.samples["label"]]
    predictions = [names.index(label) for label in result.samples["prediction"]]
    values = {metric.name: metric.value for metric in result.metrics}
    assert values["zs_classification.acc1"] == pytest.approx(accuracy_score(labels, predictions))
    assert values["zs_classification.mean_per_class"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    files = [colours / name for name in result.samples["image"]]
    images = embedder.images([_Opened(file) for file in files])
    scores = images @ weights.numpy()
    assert values["zs_classification.acc5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert predictions == scores.argmax(axis=1).tolist()


class _Opened:
    def __init__(self, path):
        self.path = path

    def decode(self):
        from PIL import Image

        return Image.open(self.path).convert("RGB")


def test_samples_tables_and_gallery_are_kept(evaluate):
    result = evaluate()
    assert result.samples.columns == ["image", "label", "prediction", "correct", "correct5"]
    assert result.samples["image"].n_unique() == 24
    assert result.tables["per_class"]["n"].sum() == result.tables["confusion"]["n"].sum() == 24
    assert result.tables["data"].rows() == [("classes named by their folders: 24 images of 7 classes", 24, 7)]
    assert len(result.gallery) == 12
    assert {picture.outcome for picture in result.gallery} <= {"good", "bad"}


def test_declared_metrics_are_returned_and_the_baseline_names_the_most_frequent_class(evaluate):
    metrics = evaluate().metrics
    task = load_task("zs_classification")
    assert [metric.name for metric in metrics] == [spec.name for spec in task.metrics]
    assert metrics[0].baseline == pytest.approx(4 / 24)
    assert metrics[2].baseline == pytest.approx(1 / 7)


def test_batch_size_changes_nothing(evaluate):
    assert evaluate(batch_size=1).metrics == evaluate(batch_size=13).metrics


def test_a_limit_keeps_classes_in_balance(evaluate):
    assert evaluate(limit=7).samples["label"].n_unique() == 7


def test_class_vectors_by_hand():
    # Class 0: prompts along x and y, of any length: the vector lies between them. Class 1: one prompt twice.
    prompts = np.array([[[2.0, 0.0], [0.0, 0.5]], [[0.0, -3.0], [0.0, -3.0]]])
    np.testing.assert_allclose(class_vectors(prompts), [[0.5**0.5, 0.5**0.5], [0.0, -1.0]])


def test_the_first_of_equal_classes_is_taken():
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    classes = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest_classes(images, classes, k=2).tolist() == [[2, 0], [0, 1]]
    assert nearest_classes(images, classes, k=5).shape == (2, 3)


def test_every_data_set_is_a_task_with_a_name_and_a_protocol_of_its_own(mae_checkpoint, flip_checkpoint):
    tasks = [load_task(name) for name in TASKS]
    assert len({task.protocol("full") for task in tasks}) == len(TASKS)
    for task in tasks:
        assert [spec.name for spec in task.metrics if spec.main] == [f"{task.name}.acc1"]
        assert task.protocol("short") == task.protocol("full")
        assert task.protocol("quick").max_images == 1000
        assert task.not_applicable(unveil_backbones.read_manifest(flip_checkpoint)) is None
        assert "no text tower" in task.not_applicable(unveil_backbones.read_manifest(mae_checkpoint))
    prompts = {task.name: task.protocol("full").prompts for task in tasks}
    # FLIP, appendix: seven prompts, eighty for -R, none for ObjectNet.
    assert prompts == {
        **dict.fromkeys(TASKS, "clip_7"),
        "zs_classification_80": "clip_80",
        "zs_imagenet_r": "clip_80",
        "zs_objectnet": "class_name",
    }
    assert {task.name: task.protocol("full").border for task in tasks if task.protocol("full").border} == {
        "zs_objectnet": 2
    }


def test_the_number_of_images_is_known_before_they_are_read(colours):
    task = load_task("zs_classification")
    assert task.num_images(colours, task.protocol("full")) == 24
    few = dataclasses.replace(task.protocol("full"), max_images=5)
    assert task.num_images(colours, few) == 5


def test_groups_stand_for_their_tasks_and_published_sets_are_not_asked_of_everybody():
    assert expand(["robustness", "zs_imagenet_a", "knn"]) == (*[name for name in TASKS if name[-2:] != "80"], "knn")
    assert DEFAULT_TASKS == ("imagenet_ft", "coco_det", "ade20k_seg", "zs_retrieval")
    for members in TASK_GROUPS.values():
        assert set(members) <= set(TASK_NAMES)


def test_impossible_protocols_and_unknown_suites_are_refused():
    with pytest.raises(UnknownSuiteError, match="no suite 'slow'"):
        load_task("zs_imagenet_a").protocol("slow")
    with pytest.raises(ProtocolError, match="border is -1"):
        ZeroShotProtocol(data_set="folder", prompts="clip_7", border=-1)


@pytest.mark.slow
def test_names_and_templates_come_without_a_network():
    program = (
        "import socket\n"
        "def refuse(*_): raise OSError('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from unveil_evalharness.tasks.zs_classification.prompts import imagenet_names, templates_for\n"
        "print(len(imagenet_names()), len(templates_for('clip_80')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000", "80"]
