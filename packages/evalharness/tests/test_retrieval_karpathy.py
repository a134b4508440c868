"""Karpathy's test splits: read in full, called by their name only when they are those images, refused otherwise."""

import json

import pytest
from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.zs_retrieval import data, splits
from unveil_evalharness.tasks.zs_retrieval.data import captioned_images, count_images, data_hash, set_title


def sentences(*texts):
    # Out of order, as sentids may be.
    return [{"raw": text, "sentid": 10 - number} for number, text in enumerate(texts)][::-1]


@pytest.fixture
def karpathy(tmp_path, encode_image):
    """COCO by both releases and Flickr30k, two test images each, and images of other splits."""
    coco = tmp_path / "coco"
    for folder, name in (("val2014", "COCO_val2014_000000000042.jpg"), ("train2017", "000000000073.jpg")):
        (coco / folder).mkdir(parents=True)
        (coco / folder / name).write_bytes(encode_image((200, 0, 0)))
    texts = [f"words {number}" for number in range(5)]
    (coco / "dataset_coco.json").write_text(
        json.dumps(
            {
                "dataset": "coco",
                "images": [
                    {"filepath": "val2014", "filename": f"COCO_val2014_{cocoid:012d}.jpg", "cocoid": cocoid,
                     "split": split, "sentences": sentences(*texts, *more)}
                    for cocoid, split, more in ((42, "test", ["a sixth "]), (1, "restval", []), (73, "test", []))
                ],
            }
        )
    )  # fmt: skip
    flickr = tmp_path / "flickr30k"
    (flickr / "flickr30k-images").mkdir(parents=True)
    for name in ("1007129816.jpg", "36979.jpg"):
        (flickr / "flickr30k-images" / name).write_bytes(encode_image((0, 200, 0)))
    images = [
        {"filename": f"{name}.jpg", "imgid": name, "split": split, "sentences": sentences(*texts)}
        for name, split in ((1007129816, "test"), (5, "train"), (36979, "test"), (6, "val"))
    ]
    (flickr / "dataset_flickr30k.json").write_text(json.dumps({"dataset": "flickr30k", "images": images}))
    return tmp_path


@pytest.fixture
def these_are_published(monkeypatch):
    """Makes the two images of each set the published split."""

    def known(title, *names):
        digest = splits.identifiers_digest(dict.fromkeys(names, 5))
        return splits.KnownSplit(title=title, num_images=len(names), digest=digest)

    coco, flickr = known("C", "42", "73"), known("F", "1007129816", "36979")
    for module in (splits, data):
        monkeypatch.setattr(module, "COCO_5K", coco)
        monkeypatch.setattr(module, "FLICKR30K_1K", flickr)


@pytest.mark.usefixtures("these_are_published")
def test_the_test_split_is_read_with_all_captions_from_either_release(karpathy):
    images = list(captioned_images(karpathy, limit=None, source="coco"))
    assert [image.key for image in images] == ["COCO_val2014_000000000042", "000000000073"]
    assert [len(image.captions) for image in images] == [6, 5]
    assert images[0].captions[0] == "a sixth"  # the smallest sentid
    assert count_images(karpathy, limit=None, source="coco") == 2
    flickr = list(captioned_images(karpathy, limit=1, source="flickr30k"))
    assert [image.key for image in flickr] == ["1007129816"]
    assert data_hash(karpathy, "coco") != data_hash(karpathy, "flickr30k")


@pytest.mark.parametrize(("source", "title"), [("coco", "COCO Karpathy test"), ("flickr30k", "Flickr30k Karpathy")])
def test_any_other_set_is_refused_under_a_published_name(karpathy, source, title):
    with pytest.raises(DataError, match=rf"are not {title}.*no published split: 2 images.*the task zs_retrieval"):
        data_hash(karpathy, source)


@pytest.mark.usefixtures("these_are_published")
def test_an_image_from_another_split_is_noticed(karpathy):
    file = karpathy / "flickr30k" / "dataset_flickr30k.json"
    file.write_text(file.read_text().replace('"val"', '"test"'))
    with pytest.raises(DataError, match="are not F"):
        data_hash(karpathy, "flickr30k")


@pytest.mark.usefixtures("these_are_published")
def test_a_set_without_all_captions_is_not_the_published_one(karpathy):
    file = karpathy / "flickr30k" / "dataset_flickr30k.json"
    content = json.loads(file.read_text())
    content["images"][0]["sentences"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="are not F"):
        data_hash(karpathy, "flickr30k")


def test_any_set_takes_karpathys_file_before_cocos_captions(karpathy, coco_captions):
    assert count_images(karpathy, limit=None) == 2
    assert count_images(coco_captions, limit=None) == 3
    (karpathy / "coco" / "dataset_coco.json").unlink()
    assert [image.key for image in captioned_images(karpathy, limit=None)] == ["1007129816", "36979"]


def test_a_missing_file_says_where_it_belongs(tmp_path):
    with pytest.raises(DataError, match=r"flickr30k/dataset_flickr30k\.json is missing"):
        data_hash(tmp_path, "flickr30k")


@pytest.mark.usefixtures("these_are_published")
def test_a_missing_image_is_named(karpathy):
    (karpathy / "coco" / "train2017" / "000000000073.jpg").unlink()
    with pytest.raises(DataError, match=r"names COCO_val2014_000000000073\.jpg, which is not in .*val2014"):
        data_hash(karpathy, "coco")


@pytest.mark.parametrize("text", ["{", '{"images": [{"split": "test"}]}', '{"images": [{"split": "train"}]}'])
def test_a_file_of_another_format_is_named(tmp_path, text):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "dataset_coco.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset_coco\.json (is not in the format|holds no image of the split)"):
        data_hash(tmp_path)


def test_identifiers_are_the_same_in_both_releases_and_nothing_else_counts():
    assert splits.identifiers_digest({"COCO_val2014_000000000042": 5}) == splits.identifiers_digest({"000000000042": 5})
    assert splits.identifiers_digest({"s0000001": 5, "x": 5}) is None
    assert splits.identifiers_digest({"0042": 5, "42": 5}) is None
    assert set_title({"1": 5, "2": 6}) == "no published split: 2 images with 11 captions"


@pytest.mark.usefixtures("these_are_published")
def test_a_set_is_called_by_its_published_name_wherever_it_is_read_from(caption_shards, make_shard, encode_image):
    for shard in (caption_shards / "captions").glob("*.tar"):
        shard.unlink()
    records = [
        (name, encode_image((0, 0, 0)), [f"t{n}" for n in range(5)]) for name in ("000000000042", "000000000073")
    ]
    make_shard(caption_shards / "captions" / "val-00000.tar", records)
    counts = {image.key: len(image.captions) for image in captioned_images(caption_shards, limit=None)}
    assert set_title(counts) == "C: 2 images with 10 captions"


def test_the_two_published_tasks_have_names_and_fingerprints_of_their_own():
    tasks = [load_task(name) for name in ("zs_retrieval", "zs_retrieval_coco", "zs_retrieval_flickr30k")]
    assert len({task.protocol("full") for task in tasks}) == 3
    for task in tasks[1:]:
        assert not task.protocol("quick").merge_identical_captions
        assert next(spec.name for spec in task.metrics if spec.main) == f"{task.name}.image_recall@5"
