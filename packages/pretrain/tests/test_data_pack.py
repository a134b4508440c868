"""The same loaders on real photographs, where the real-image pack is present."""

import os
from pathlib import Path

import pytest
from unveil_pretrain.data import PairDataset, ShardDataset, train_batches, val_batches

PACK = Path(os.environ.get("UNVEIL_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data" / "pack")
SHARDS = PACK / "coco_captions_wds"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARDS.is_dir(), reason=f"no real-image pack at {PACK}; set UNVEIL_DATA"),
]


def test_img2dataset_shards_of_photographs_are_read():
    shards = ShardDataset(f"{SHARDS}/train-{{00000..00003}}.tar")
    assert len(shards) == 640
    assert len(set(shards.sample_ids.tolist())) == 640
    pairs = PairDataset(shards, image_size=(64, 96))
    assert all(len(pairs.captions(index)) >= 5 for index in range(0, 640, 80))
    (batch,) = train_batches(pairs, batch_size=16, start_step=1, num_steps=1, seed=0)
    assert batch.images.shape == (16, 3, 64, 96)
    assert batch.images.float().std() > 20
    assert len(set(batch.captions)) == 16


def test_train_and_validation_photographs_differ():
    train = ShardDataset(f"{SHARDS}/train-*.tar")
    val = ShardDataset(f"{SHARDS}/val-00000.tar")
    assert not set(train.keys) & set(val.keys)
    batches = list(val_batches(PairDataset(val.subset(20, seed=0), image_size=(32, 32)), batch_size=16))
    assert [len(batch.images) for batch in batches] == [16, 4]
