"""Captioned images from webdataset shards and from COCO, whole and damaged."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from unveil_backbones.manifest import Preprocessing
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.zs_retrieval.data import captioned_images, count_images, data_hash
from unveil_evalharness.tasks.zs_retrieval.model import to_tensor


def test_shards_are_read_in_order_with_all_captions(caption_shards):
    images = list(captioned_images(caption_shards, limit=None))
    assert [image.key for image in images] == [f"{number:04d}" for number in range(8)]
    assert images[0].captions == ("a red square", "a square that is red")
    assert images[5].captions == ("a green square", "a square that is green")
    assert images[0].decode().size == (40, 36)


def test_a_limit_takes_the_first_images(caption_shards):
    assert [image.key for image in captioned_images(caption_shards, limit=5)] == [
        "0000",
        "0001",
        "0002",
        "0003",
        "0004",
    ]


def test_the_count_is_known_beforehand(caption_shards, coco_captions):
    for root, number in ((caption_shards, 8), (coco_captions, 3)):
        assert count_images(root, limit=None) == len(list(captioned_images(root, limit=None))) == number
        assert count_images(root, limit=2) == 2
        assert count_images(root, limit=50) == number


def test_the_task_says_how_many_images_it_evaluates(caption_shards):
    task = load_task("zs_retrieval")
    assert task.num_images(caption_shards, task.protocol("full")) == 8


def test_coco_captions_come_by_annotation_id_and_only_captioned_images(coco_captions):
    images = list(captioned_images(coco_captions, limit=None))
    assert [(image.key, image.captions) for image in images] == [
        ("a", ("a red square", "a grey square")),
        ("b", ("a green square",)),
        ("d", ("a white square",)),
    ]


def test_grayscale_transparent_and_palette_images_become_rgb(coco_captions):
    assert [image.decode().mode for image in captioned_images(coco_captions, limit=None)] == ["RGB"] * 3


def test_shards_come_before_coco(caption_shards, coco_captions):
    shutil.copytree(coco_captions / "coco", caption_shards / "coco")
    assert len(list(captioned_images(caption_shards, limit=None))) == 8


def test_no_captions_at_all_says_what_is_read(tmp_path):
    with pytest.raises(DataError, match=r"no captioned images under .*captions/val-\*\.tar .*captions_val2017\.json"):
        data_hash(tmp_path)


def test_a_corrupt_jpeg_names_shard_and_key(caption_shards, make_shard, encode_image):
    picture = encode_image((200, 0, 0))
    make_shard(caption_shards / "captions" / "val-00001.tar", [("ok", picture, ["a"]), ("bad", picture[:200], ["b"])])
    *_, last = captioned_images(caption_shards, limit=None)
    with pytest.raises(DataError, match=r"cannot decode the image .*val-00001\.tar:bad\.jpg: .*; replace it"):
        last.decode()


@pytest.mark.parametrize("size", [0, 3000, 5 * 512, 10240])
def test_a_truncated_shard_is_named(caption_shards, size):
    shard = caption_shards / "captions" / "val-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-20480][:size])
    with pytest.raises(DataError, match=r"cannot read the shard .*val-00001\.tar: it does not end as a tar file does"):
        list(captioned_images(caption_shards, limit=None))


def test_a_shard_with_a_damaged_header_is_named(caption_shards):
    shard = caption_shards / "captions" / "val-00001.tar"
    content = bytearray(shard.read_bytes())
    content[:512] = b"x" * 512
    shard.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"cannot read the shard .*val-00001\.tar"):
        list(captioned_images(caption_shards, limit=None))


@pytest.mark.parametrize("captions", [[], "a red square", [1], None])
def test_captions_that_are_no_list_of_texts_name_the_record(caption_shards, make_shard, encode_image, captions):
    make_shard(caption_shards / "captions" / "val-00000.tar", [("odd", encode_image((0, 0, 0)), captions)])
    with pytest.raises(DataError, match=r"val-00000\.tar:odd: 'captions' must be a list with at least one text"):
        list(captioned_images(caption_shards, limit=None))


def test_a_record_without_json_or_without_image_is_named(caption_shards, tmp_path):
    shard = caption_shards / "captions" / "val-00000.tar"
    content = tmp_path / "content.bin"
    content.write_bytes(b"{}")
    for suffix, message in (
        ("jpg", "has no captions; expected solo.json"),
        ("json", "has no image; expected one of jpg"),
    ):
        with tarfile.open(shard, "w") as file:
            file.add(content, f"solo.{suffix}")
        with pytest.raises(DataError, match=message):
            list(captioned_images(caption_shards, limit=None))


def test_an_annotation_that_names_a_missing_image_is_found_before_any_work(coco_captions):
    (coco_captions / "coco" / "val2017" / "b.png").unlink()
    with pytest.raises(DataError, match=r"captions_val2017\.json names b\.png, which is not in .*val2017"):
        data_hash(coco_captions)


def test_a_caption_of_an_unknown_image_is_named(coco_captions):
    file = coco_captions / "coco" / "annotations" / "captions_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 9, "image_id": 99, "caption": "nothing"})
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="image_id 99"):
        data_hash(coco_captions)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_a_file_that_is_no_coco_caption_file_is_named(coco_captions, text):
    (coco_captions / "coco" / "annotations" / "captions_val2017.json").write_text(text)
    with pytest.raises(DataError, match=r"captions_val2017\.json is not a COCO caption file"):
        data_hash(coco_captions)


def test_the_hash_sees_every_change(caption_shards, coco_captions):
    first = data_hash(caption_shards)
    assert data_hash(caption_shards) == first
    shard = caption_shards / "captions" / "val-00001.tar"
    changed = bytearray(shard.read_bytes())
    changed[700] ^= 1
    shard.write_bytes(bytes(changed))
    assert data_hash(caption_shards) != first
    coco = data_hash(coco_captions)
    with (coco_captions / "coco" / "val2017" / "a.jpg").open("ab") as file:
        file.write(b"\0")
    assert data_hash(coco_captions) != coco


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (33, 97), (7, 5), (32, 48)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_preprocessing_gives_the_checkpoints_size(size, crop_fraction):
    preprocessing = Preprocessing(
        image_size=(32, 48), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_fraction=crop_fraction
    )
    assert to_tensor(Image.new("RGB", size), preprocessing).shape == (3, 32, 48)


def test_preprocessing_normalises_and_cuts_the_centre():
    # Left third red, centre green, right third blue: a square crop of a 3:1 picture is the green part.
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    for part in range(3):
        pixels[:, 16 * part : 16 * part + 16, part] = 255
    preprocessing = Preprocessing(image_size=(16, 16), mean=(0.25, 0.5, 0.0), std=(0.5, 0.25, 1.0))
    tensor = to_tensor(Image.fromarray(pixels), preprocessing)
    expected = torch.tensor([-0.5, 2.0, 0.0])[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(tensor, expected)
