"""Samples in, batches out: every image a pure function of (seed, epoch, sample id), every batch of (seed, step)."""

from unveil_pretrain.data.captions import CaptionCounts
from unveil_pretrain.data.clips import ClipDataset
from unveil_pretrain.data.datasets import ImageDataset
from unveil_pretrain.data.folder import FolderDataset
from unveil_pretrain.data.loader import Batch, WorkerKind, train_batches, val_batches
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.data.order import step_indices
from unveil_pretrain.data.pairs import PairDataset
from unveil_pretrain.data.samples import Samples, sample_id_of
from unveil_pretrain.data.shards import ShardDataset

__all__ = [
    "Batch",
    "CaptionCounts",
    "ClipDataset",
    "FolderDataset",
    "ImageDataset",
    "PairDataset",
    "Samples",
    "ShardDataset",
    "WorkerKind",
    "open_samples",
    "sample_id_of",
    "step_indices",
    "train_batches",
    "val_batches",
]
