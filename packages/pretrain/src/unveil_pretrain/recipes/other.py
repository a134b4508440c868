"""Other objectives at the size of their papers: which values are the authors' is said at each recipe."""

from dataclasses import replace

from unveil_pretrain.config import MimConfig
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig
from unveil_pretrain.recipes.simmim import simmim_swinv2

__all__ = ["beit_vit_b16", "ijepa_vit_h14", "simmim_vit_b16", "sparse_simmim_swinv2_b", "splitmask_vit_b16"]

_EPOCH = 1_281_167 / 2048  # steps of an epoch of ImageNet-1K at batch 2048


def simmim_vit_b16() -> MimConfig:
    """SimMIM's ViT-B/16 (arXiv:2111.09886) at 224 pixels: raw pixels as target, 800 epochs of ImageNet-1K.

    Masks, target and length are the paper's. Batch, rates, decay and clipping are those of the SwinV2 recipe: our
    choice. The authors' ViT has relative position biases instead of the fixed positions here.
    """
    return replace(
        simmim_swinv2("b", "in1k_100", "500k"),
        objective=SimMIMConfig(mask_unit=32, mask_ratio=0.6, target_window=0),
        encoder="vit_b16",
        image_size=(224, 224),
        steps=round(800 * _EPOCH),
    )


def sparse_simmim_swinv2_b() -> MimConfig:
    """Sparse SimMIM on SwinV2-B, 125K steps: settings of the study's dense cell; the objective is ours.

    Everything but the objective is `simmim_swinv2_b_in1k_100_125k`; nobody has published a run of this.
    """
    return replace(simmim_swinv2("b", "in1k_100", "125k"), objective=SparseSimMIMConfig())


def beit_vit_b16() -> MimConfig:
    """BEiT-style tokens (arXiv:2106.08254) on a ViT-B/16: 75 of 196 patches in blocks, 8192 visual tokens.

    Masks and the size of the vocabulary are the paper's; the tokenizer is a vocabulary of patches instead of a discrete
    VAE. Length, batch and optimiser are our choice.
    """
    return MimConfig(
        objective=BEiTConfig(),
        encoder="vit_b16",
        image_size=(224, 224),
        drop_path=0.1,
        steps=round(800 * _EPOCH),
        batch_size=2048,
        base_lr=1.5e-3,
        lr_reference_batch=2048,
        warmup_steps=round(10 * _EPOCH),
        schedule="cosine",
        clip_norm=3.0,
        validate_every=6250,
        checkpoint_every=6250,
    )


def splitmask_vit_b16() -> MimConfig:
    """SplitMask (arXiv:2112.10740) on a ViT-B/16: two halves, a decoder of 2 blocks, InfoNCE beside the tokens.

    The paper has the task, the shallow decoder and the nearest-patch tokenizer; its numbers were not read. Vocabulary,
    length, batch, optimiser, temperature and the weight of the contrast are our choice.
    """
    return replace(beit_vit_b16(), objective=SplitMaskConfig())


def ijepa_vit_h14() -> MimConfig:
    """I-JEPA's ViT-H/14 (arXiv:2301.08243): 4 target blocks, batch 2048, rate 1e-3, 300 epochs of ImageNet-1K.

    Blocks, predictor, momentum, batch, rate and length are those of the released configuration. Crops, warm-up (40
    epochs), a constant weight decay, clipping, and a rate that ends at 0 are our choice.
    """
    return MimConfig(
        objective=IJEPAConfig(),
        encoder="vit_h14",
        image_size=(224, 224),
        crop_scale=(0.3, 1.0),
        mirror=False,
        steps=round(300 * _EPOCH),
        batch_size=2048,
        base_lr=1e-3,
        lr_reference_batch=2048,
        warmup_steps=round(40 * _EPOCH),
        schedule="cosine",
        validate_every=6250,
        checkpoint_every=6250,
    )
