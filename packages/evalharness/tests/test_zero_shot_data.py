"""What the folders of each data set mean: synsets, numbers, ObjectNet's mappings, the user's own words."""

import json

import pytest
from PIL import Image
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.zs_classification import data as data_module
from unveil_evalharness.tasks.zs_classification.data import Photograph, data_hash, read_set
from unveil_evalharness.tasks.zs_classification.prompts import imagenet_names, templates_for


@pytest.fixture
def folders(tmp_path, encode_image):
    """Makes ``<root>/<class>/<image>.png``, a picture each."""
    picture = encode_image((200, 100, 0), size=(9, 8), kind="PNG")

    def make(root, *names):
        for name in names:
            path = tmp_path / root / name
            path.mkdir(parents=True)
            (path / "a.png").write_bytes(picture)
        return tmp_path

    return make


@pytest.fixture
def few_classes(monkeypatch):
    """Lets a published set be complete with two classes."""
    monkeypatch.setattr(data_module, "_NUM_CLASSES", dict.fromkeys(data_module._NUM_CLASSES, 2))


def read(root, data_set):
    found = read_set(root, data_set)
    return [(path.parent.name, found.images.classes[label]) for path, label in found.images.images]


def test_names_and_order_of_imagenets_classes():
    names = imagenet_names()
    assert len(names) == 1000
    assert list(names) == sorted(names)
    assert (names["n01440764"], names["n15075141"]) == ("tench", "toilet paper")
    assert names["n02123045"] == "tabby cat"


def test_seven_and_eighty_templates():
    seven, eighty = ([template("X") for template in templates_for(kind)] for kind in ("clip_7", "clip_80"))
    assert seven == [
        "itap of a X.",
        "a bad photo of the X.",
        "a origami X.",
        "a photo of the large X.",
        "a X in a video game.",
        "art of the X.",
        "a photo of the small X.",
    ]
    assert len(set(eighty)) == 80
    assert set(seven) <= set(eighty)
    assert [template("X") for template in templates_for("class_name")] == ["X"]


@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize(
    ("data_set", "root"),
    [("imagenet_a", "imagenet_a"), ("imagenet_r", "imagenet-r"), ("imagenet_sketch", "sketch")],
)
def test_synset_folders_are_looked_up(folders, data_set, root):
    root = folders(root, "n02123045", "n01440764")
    assert read(root, data_set) == [("n01440764", "tench"), ("n02123045", "tabby cat")]


@pytest.mark.usefixtures("few_classes")
def test_numbers_are_labels_and_not_places_in_an_alphabet(folders):
    root = folders("imagenetv2-matched-frequency-format-val", "281", "3")
    assert read(root, "imagenet_v2") == [("3", "tiger shark"), ("281", "tabby cat")]


@pytest.mark.usefixtures("few_classes")
def test_objectnet_by_its_own_mappings_without_the_classes_imagenet_lacks(folders):
    root = folders("objectnet/images", "tv", "banana", "air_freshener")
    mappings = root / "objectnet" / "mappings"
    mappings.mkdir()
    labels = {"tv": "TV", "banana": "Banana", "air_freshener": "Air freshener"}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"TV": "television", "Banana": "banana"}))
    assert read(root, "objectnet") == [("banana", "banana"), ("tv", "tv")]
    (mappings / "objectnet_to_imagenet_1k.json").unlink()
    with pytest.raises(
        DataError, match=r"cannot read folder_to_objectnet_label\.json and objectnet_to_imagenet_1k\.json"
    ):
        read_set(root, "objectnet")


@pytest.mark.parametrize("data_set", ["imagenet_a", "imagenet_v2"])
def test_a_published_set_in_part_is_refused(folders, data_set):
    root = folders(data_set, *(("7", "8") if data_set == "imagenet_v2" else ("n01440764",)))
    with pytest.raises(DataError, match=rf"has images of \d classes, {data_set} has \d+; complete it"):
        read_set(root, data_set)


def test_a_missing_set_says_where_it_is_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"imagenet_r is missing .* imagenet_r/ or imagenet-r/"):
        data_hash(tmp_path, "imagenet_r")


def test_any_folder_is_named_by_synsets_by_a_file_or_by_itself(folders):
    root = folders("imagenet/val", "n02123045", "n01440764")
    found = read_set(root, "folder")
    assert found.images.classes == ("tench", "tabby cat")
    assert found.title == "ImageNet-1K in part: 2 images of 2 classes"
    assert found.templates is None
    first = data_hash(root, "folder")
    (root / "imagenet" / "classnames.txt").write_text("a fish\na cat\n")
    (root / "imagenet" / "templates.txt").write_text("a drawing of {c}.\n{}\n")
    found = read_set(root, "folder")
    assert found.images.classes == ("a fish", "a cat")
    assert [template("a cat") for template in found.templates] == ["a drawing of a cat.", "a cat"]
    assert data_hash(root, "folder") != first
    (root / "imagenet" / "classnames.txt").unlink()
    folders("imagenet/val", "sea_lion")
    assert read_set(root, "folder").images.classes == ("n01440764", "n02123045", "sea lion")


def test_names_and_templates_that_do_not_fit_are_refused(folders):
    root = folders("imagenet/val", "x", "y")
    (root / "imagenet" / "templates.txt").write_text("no place\n")
    with pytest.raises(DataError, match=r"'no place'; a template has \{c\}"):
        read_set(root, "folder")
    (root / "imagenet" / "classnames.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"has 1 names, .* has 2 folders"):
        read_set(root, "folder")


def test_an_empty_class_folder_is_named(folders):
    root = folders("imagenet/val", "x", "y")
    (root / "imagenet" / "val" / "y" / "a.png").unlink()
    with pytest.raises(DataError, match=r"class folder .*y holds no image"):
        read_set(root, "folder")


def test_the_border_is_cut_and_nothing_else(tmp_path):
    image = Image.new("RGB", (7, 6), (255, 0, 0))
    image.paste((0, 255, 0), (2, 2, 5, 4))
    image.save(tmp_path / "a.png")
    cut = Photograph(tmp_path / "a.png", 2).decode()
    assert cut.size == (3, 2)
    assert cut.getcolors() == [(6, (0, 255, 0))]
    with pytest.raises(DataError, match="nothing is left within its border"):
        Photograph(tmp_path / "a.png", 3).decode()


def test_a_limit_takes_classes_in_turn(folders, tmp_path):
    root = folders("imagenet/val", "x", "y", "z")
    for name in ("b.png", "c.png"):
        (root / "imagenet" / "val" / "x" / name).write_bytes((root / "imagenet" / "val" / "x" / "a.png").read_bytes())
    labels = [label for _, label in read_set(root, "folder").limited(3).images.images]
    assert labels == [0, 1, 2]
