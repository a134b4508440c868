"""Labelled images in tar shards: as webdataset reads them, in any order, with damage named."""

import io
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.imagenet_ft.data import folder_hash, image_name, open_image, read_folders
from unveil_evalharness.tasks.imagenet_ft.shards import Member, name_classes


def write_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def root(tmp_path, encode_image):
    """Three training shards of two images each and one of two validation images, classes 2 and 10."""
    for split, count in (("train", 3), ("val", 1)):
        for shard in range(count):
            members = []
            for number in range(2):
                key, label = f"{split}/{shard}{number}", (2, 10)[number]
                members += [(f"{key}.cls", b"%d\n" % label), (f"{key}.jpg", encode_image((40 * shard, 100, label)))]
            write_tar(tmp_path / "imagenet" / f"{split}-{shard:03d}.tar", members)
    return tmp_path


def test_numbers_are_classes_in_the_order_of_numbers(root):
    train, val = read_folders(root)
    assert train.classes == val.classes == ("2", "10")
    assert train.labels.tolist() == [0, 1] * 3
    assert image_name(train.images[2][0], root) == "imagenet/train-001.tar/train/10.jpg"


def test_a_file_of_names_says_what_the_numbers_mean(root):
    before = folder_hash(root)
    (root / "imagenet" / "classes.txt").write_text("\n".join(f"class {number}" for number in range(11)))
    assert read_folders(root)[0].classes == ("class 2", "class 10")
    assert folder_hash(root) != before
    (root / "imagenet" / "classes.txt").write_text("only one")
    with pytest.raises(DataError, match=r"classes\.txt has 1 lines, but the shards hold class 10"):
        read_folders(root)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_images_are_those_that_webdataset_reads(root):
    shards = [str(path) for path in sorted((root / "imagenet").glob("train-*.tar"))]
    expected = [(sample["jpg"], int(sample["cls"])) for sample in webdataset.WebDataset(shards, shardshuffle=False)]
    train, _ = read_folders(root)
    assert [(image.read(), (2, 10)[label]) for image, label in train.images if isinstance(image, Member)] == expected
    assert open_image(train.images[-1][0]).size == (40, 36)


def test_the_hash_follows_the_shards_and_not_their_place(root, tmp_path_factory):
    before = folder_hash(root)
    moved = root.rename(tmp_path_factory.mktemp("elsewhere") / "data")
    assert folder_hash(moved) == before
    write_tar(moved / "imagenet" / "train-003.tar", [("a.jpg", b"x"), ("a.cls", b"2")])
    assert folder_hash(moved) != before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], r"1 keys have an image or a class but not both: \['a'\]"),
        ([("a.cls", b"1")], r"have an image or a class but not both"),
        ([("a.jpg", b"x"), ("a.cls", b" \n")], r"the class of 'a' is empty"),
        ([("a.txt", b"x")], r"hold no image"),
    ],
)
def test_shards_without_images_or_classes_are_refused(root, members, message):
    for path in (root / "imagenet").glob("train-*.tar"):
        write_tar(path, members)
    with pytest.raises(DataError, match=message):
        read_folders(root)


def test_a_compressed_a_cut_and_a_shrunken_shard_are_named(root):
    train, _ = read_folders(root)
    shard = root / "imagenet" / "train-000.tar"
    content = shard.read_bytes()
    first = train.images[0][0]
    assert isinstance(first, Member)
    shard.write_bytes(content[: first.offset + 10])
    with pytest.raises(DataError, match=r"train-000\.tar is (cut short inside train/00|not an uncompressed tar)"):
        read_folders(root)
    with pytest.raises(DataError, match=r"train-000\.tar ends inside train/01\.jpg"):
        open_image(train.images[1][0])
    write_tar(shard, [("a.jpg", b"x"), ("a.cls", b"2")], mode="w:gz")
    with pytest.raises(DataError, match=r"train-000\.tar is not an uncompressed tar file"):
        read_folders(root)


def test_an_image_that_is_none_is_named_with_its_shard(root):
    write_tar(root / "imagenet" / "train-000.tar", [("a.jpg", b"no picture"), ("a.cls", b"2")])
    with pytest.raises(DataError, match=r"cannot decode .*train-000\.tar/a\.jpg"):
        open_image(read_folders(root)[0].images[0][0])


def test_folders_beside_shards_are_refused(root):
    (root / "imagenet" / "train").mkdir()
    with pytest.raises(DataError, match="keep the folder or the shards"):
        read_folders(root)


@given(st.sets(st.integers(0, 2000), min_size=1))
def test_numbers_written_in_any_way_mean_the_same_class(tmp_path_factory, numbers):
    nowhere = tmp_path_factory.getbasetemp() / "absent.txt"
    classes, meaning = name_classes([f"{number:04d}" for number in numbers], nowhere)
    assert classes == tuple(str(number) for number in sorted(numbers))
    assert {int(text): name for text, name in meaning.items()} == {number: str(number) for number in numbers}


def test_words_are_names_and_repeated_names_keep_their_numbers(tmp_path):
    assert name_classes(["dog", "cat", "dog"], tmp_path / "absent")[0] == ("cat", "dog")
    names = tmp_path / "classes.txt"
    names.write_text("crane\nlathe\ncrane\n")
    assert name_classes(["0", "2"], names)[0] == ("0 crane", "2 crane")
