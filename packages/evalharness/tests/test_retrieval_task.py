"""The retrieval task on real checkpoints, cross-checked with a plain computation."""

import numpy as np
import polars
import pytest
import torch
import unveil_backbones
from unveil_evalharness.errors import DataError, ProtocolError, UnknownSuiteError
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.zs_retrieval import task as task_module
from unveil_evalharness.tasks.zs_retrieval.config import RetrievalProtocol
from unveil_evalharness.tasks.zs_retrieval.data import captioned_images
from unveil_evalharness.tasks.zs_retrieval.model import ROWS, PairEmbedder, to_tensor
from unveil_evalharness.tasks.zs_retrieval.ranking import ranks_both_ways


@pytest.fixture
def evaluate(flip_checkpoint, tmp_path):
    def run(data_root, *, protocol=None, limit=None, batch_size=None):
        task = load_task("zs_retrieval")
        context = TaskContext(
            checkpoint=unveil_backbones.load(flip_checkpoint),
            data_root=data_root,
            protocol=protocol or task.protocol("full"),
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


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


@pytest.mark.parametrize("merge", [True, False])
def test_the_numbers_are_those_of_a_plain_computation(evaluate, caption_shards, flip_checkpoint, merge):
    protocol = RetrievalProtocol(merge_identical_captions=merge)
    result = evaluate(caption_shards, protocol=protocol)

    pair, tokenizer = unveil_backbones.load_pair(flip_checkpoint)
    preprocessing = unveil_backbones.read_manifest(flip_checkpoint).preprocessing
    records = list(captioned_images(caption_shards, limit=None))
    captions = [(i, text) for i, record in enumerate(records) for text in record.captions]
    texts = sorted({text for _, text in captions})
    with torch.inference_mode():
        image = pair.encode_image(torch.stack([to_tensor(record.decode(), preprocessing) for record in records]))
        text = pair.encode_text(tokenizer(texts))
    scores = (image @ text.T).numpy()[:, [texts.index(words) for _, words in captions]]
    says = [{words for i, words in captions if i == j} for j in range(len(records))]
    right = np.array(
        [[words in says[j] if merge else i == j for i, words in captions] for j in range(len(records))]
    )  # fmt: skip

    def recall(table, good, k):
        found = [
            1 + sum(not g and s >= max(row[gs]) for s, g in zip(row, gs, strict=True)) <= k
            for row, gs in zip(table, good, strict=True)
        ]
        return float(np.mean(found))

    expected = {}
    for k in (1, 5, 10):
        expected[f"zs_retrieval.image_recall@{k}"] = recall(scores.T, right.T, k)
        expected[f"zs_retrieval.text_recall@{k}"] = recall(scores, right, k)
    assert values(result) == pytest.approx(expected)
    assert {metric.name: metric.n for metric in result.metrics if metric.name.endswith("@1")} == {
        "zs_retrieval.image_recall@1": 16,
        "zs_retrieval.text_recall@1": 8,
    }


def test_declared_metrics_are_returned_with_one_main(evaluate, caption_shards):
    task = load_task("zs_retrieval")
    assert [spec.name for spec in task.metrics] == [metric.name for metric in evaluate(caption_shards).metrics]
    assert [spec.name for spec in task.metrics if spec.main] == ["zs_retrieval.image_recall@5"]


def test_the_baseline_is_the_recall_of_a_random_ranking(evaluate, caption_shards):
    baseline = {metric.name: metric.baseline for metric in evaluate(caption_shards).metrics}
    # One image of eight for a caption; two captions of sixteen for an image.
    assert baseline["zs_retrieval.image_recall@5"] == pytest.approx(5 / 8)
    assert baseline["zs_retrieval.text_recall@1"] == pytest.approx(2 / 16)
    assert baseline["zs_retrieval.image_recall@10"] == 1.0


def test_samples_hold_the_rank_of_every_query(evaluate, caption_shards):
    result = evaluate(caption_shards)
    assert result.samples["key"].n_unique() == 24
    assert result.samples["key"].head(2).to_list() == ["image:0000#0", "image:0000#1"]
    counts = result.samples.group_by("direction").len().sort("direction")
    assert counts.rows() == [("image", 16), ("text", 8)]
    found = result.samples.filter(polars.col("direction") == "image").select((polars.col("rank") <= 5).mean()).item()
    assert values(result)["zs_retrieval.image_recall@5"] == pytest.approx(found)


def test_copies_of_a_caption_count_as_hits_only_when_merged(evaluate, caption_shards):
    apart = values(evaluate(caption_shards, protocol=RetrievalProtocol()))
    merged = values(evaluate(caption_shards, protocol=RetrievalProtocol(merge_identical_captions=True)))
    # Two images carry each caption, so an image's own captions always tie with the other image's copies.
    assert apart["zs_retrieval.text_recall@1"] == 0.0
    assert all(merged[name] >= apart[name] for name in apart)


def test_batch_size_changes_nothing_to_the_last_bit(evaluate, caption_shards, monkeypatch):
    seen = []
    monkeypatch.setattr(
        task_module, "ranks_both_ways", lambda *given: seen.append(given[:2]) or ranks_both_ways(*given)
    )
    results = [evaluate(caption_shards, batch_size=size) for size in (1, 7)]
    assert values(results[0]) == values(results[1])
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)


def test_an_image_has_one_embedding_whoever_its_neighbours_are(flip_checkpoint, caption_shards):
    preprocessing = unveil_backbones.read_manifest(flip_checkpoint).preprocessing
    embedder = PairEmbedder(flip_checkpoint, preprocessing, device="cpu")
    images = list(captioned_images(caption_shards, limit=None))
    together = embedder.images(images * 5)
    assert together.shape[0] == 40 > ROWS
    np.testing.assert_array_equal(together[:8], together[32:])
    np.testing.assert_array_equal(together[:1], embedder.images(images[:1]))


def test_the_gallery_shows_queries_of_both_kinds_chosen_by_their_keys(evaluate, caption_shards):
    gallery = evaluate(caption_shards).gallery
    assert [picture.caption.split(":")[0] for picture in gallery] == ["caption → image"] * 6 + ["image → caption"] * 6
    assert gallery[0].encoded.startswith(b"\xff\xd8")
    for picture in gallery:
        assert (picture.outcome == "good") == ("at rank" in picture.caption)


def test_what_the_numbers_are_of_is_recorded(evaluate, caption_shards):
    assert evaluate(caption_shards).tables["data"].rows() == [("no published split: 8 images with 16 captions", 8, 16)]


def test_a_limit_takes_the_first_images(evaluate, caption_shards):
    assert next(metric.n for metric in evaluate(caption_shards, limit=3).metrics) == 6


def test_coco_layout_with_odd_images(evaluate, coco_captions):
    assert next(metric.n for metric in evaluate(coco_captions).metrics) == 4


def test_a_corrupt_image_stops_the_task_with_its_name(evaluate, coco_captions):
    (coco_captions / "coco" / "val2017" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"cannot decode the image .*b\.png"):
        evaluate(coco_captions)


def test_an_empty_caption_set_is_refused(evaluate, coco_captions):
    file = coco_captions / "coco" / "annotations" / "captions_val2017.json"
    file.write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match="holds no image with a caption"):
        evaluate(coco_captions)


def test_only_a_text_tower_can_be_asked(mae_checkpoint, flip_checkpoint):
    task = load_task("zs_retrieval")
    assert task.not_applicable(unveil_backbones.read_manifest(flip_checkpoint)) is None
    assert "no text tower" in task.not_applicable(unveil_backbones.read_manifest(mae_checkpoint))


def test_suites():
    task = load_task("zs_retrieval")
    assert task.protocol("quick").merge_identical_captions
    assert not task.protocol("full").merge_identical_captions
    assert task.protocol("short") == task.protocol("full")
    with pytest.raises(UnknownSuiteError, match="no suite 'slow'; use one of quick, short, full"):
        task.protocol("slow")


@pytest.mark.parametrize("recall_at", [(), (0, 1), (5, 1), (1, 1)])
def test_recall_cut_offs_must_make_sense(recall_at):
    with pytest.raises(ProtocolError, match="ascending positive"):
        RetrievalProtocol(recall_at=recall_at)
