"""Image folders and zip files as sources: the protocol and keys of shards, and every way in which they are wrong."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from unveil_pretrain.data import FolderDataset, ImageDataset, ShardDataset, open_samples, sample_id_of, train_batches
from unveil_pretrain.data.folder import key_of_path
from unveil_pretrain.errors import ConfigError, DataError


def image_bytes(number, kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_folder(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number) if not name.endswith(".txt") else b"no image")
    return root


NAMES = ("cat/a.png", "cat/b.c.PNG", "dog/deep/a.png", "dog/notes.txt", ".hidden/x.png", "dog/.DS_Store.png")
KEYS = ("cat/a", "cat/b_c", "dog/deep/a")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images", NAMES)


def test_a_folder_offers_what_shards_offer(folder):
    samples = FolderDataset(str(folder))
    assert samples.keys == KEYS
    assert samples.sample_ids.tolist() == [sample_id_of(key) for key in KEYS]
    assert [samples.label(index) for index in range(3)] == ["cat", "cat", "dog"]
    assert samples.extensions(1) == ("png",)
    assert samples.read(1) == {"png": image_bytes(1)}
    assert samples.where(2) == f"{folder}: dog/deep/a.png"
    assert samples.ignored == ("dog/notes.txt",)
    assert samples.select([2, 0]).keys == ("dog/deep/a", "cat/a")
    assert samples.subset(2, seed=0).content_hash != samples.content_hash
    with pytest.raises(ConfigError, match="give 1 to 3"):
        samples.subset(4, seed=0)


def test_a_flat_folder_has_no_classes(tmp_path):
    samples = FolderDataset(str(write_folder(tmp_path / "flat", ("b.png", "a.png"))))
    assert samples.keys == ("a", "b")
    assert samples.label(0) is None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_file_is_the_folder_in_it(folder, tmp_path, method):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in NAMES:
            archive.write(folder / name, name)
    plain, zipped = FolderDataset(str(folder)), open_samples(str(path))
    assert zipped.keys == plain.keys
    assert zipped.content_hash == plain.content_hash
    assert [zipped.read(index) for index in range(3)] == [plain.read(index) for index in range(3)]


def test_the_hash_does_not_depend_on_the_place(folder, tmp_path):
    elsewhere = write_folder(tmp_path / "copy" / "of", NAMES)
    assert FolderDataset(str(elsewhere)).content_hash == FolderDataset(str(folder)).content_hash
    (elsewhere / "cat" / "a.png").write_bytes(b"shorter")
    assert FolderDataset(str(elsewhere)).content_hash != FolderDataset(str(folder)).content_hash


def test_folder_and_shard_give_the_same_batches(folder, tmp_path, shard_writer):
    files = {key: {"png": image_bytes(number)} for number, key in enumerate(KEYS)}
    shards = ShardDataset(shard_writer(tmp_path / "a.tar", files))
    batches = [
        next(train_batches(ImageDataset(source, image_size=(8, 8)), batch_size=5, start_step=0, num_steps=1, seed=0))
        for source in (FolderDataset(str(folder)), shards)
    ]
    assert batches[0].sample_ids.tolist() == batches[1].sample_ids.tolist()
    assert torch.equal(batches[0].images, batches[1].images)


def test_links_are_followed_once(folder):
    (folder / "loop").symlink_to(folder)
    assert FolderDataset(str(folder)).keys == KEYS


def test_keys_of_paths():
    assert [key_of_path(path) for path in ("a.jpg", "n01/b.c.JPEG", "x.y/z.png")] == ["a", "n01/b_c", "x.y/z"]


def test_what_a_name_stands_for(folder, tmp_path, shard_writer):
    shard_writer(tmp_path / "shards" / "b.tar", {"b": {"png": image_bytes(1)}})
    shard_writer(tmp_path / "shards" / "a.tar", {"a": {"png": image_bytes(0)}})
    assert isinstance(open_samples(str(folder)), FolderDataset)
    assert open_samples(str(tmp_path / "shards")).keys == ("a", "b")
    assert open_samples(f"{tmp_path}/shards/b.tar").keys == ("b",)
    shard_writer(folder / "c.tar", {"c": {"png": image_bytes(1)}})
    with pytest.raises(DataError, match=r"holds \.tar files and folders"):
        open_samples(str(folder))


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        FolderDataset(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="holds no image"):
        FolderDataset(str(write_folder(tmp_path / "texts", ("a.txt",))))
    with pytest.raises(DataError, match=r"a\.b\.png and a_b\.png would both have the key 'a_b'"):
        FolderDataset(str(write_folder(tmp_path / "twice", ("a.b.png", "a_b.png"))))
    (tmp_path / "no.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"no\.zip: not a readable zip file"):
        open_samples(str(tmp_path / "no.zip"))


def test_files_that_vanish_or_change_are_named(folder, tmp_path):
    samples = FolderDataset(str(folder))
    (folder / "cat" / "a.png").unlink()
    with pytest.raises(DataError, match=r"cat/a\.png: the file can no longer be read"):
        samples.read(0)
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", image_bytes(0))
    zipped = FolderDataset(str(path))
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="checksum is wrong"):
        zipped.read(0)
    path.write_bytes(bytes(len(damaged)))
    with pytest.raises(DataError, match="changed since it was listed"):
        zipped.read(0)
