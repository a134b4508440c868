"""VideoMAE on Kinetics-400 (arXiv:2203.12602), and a small one for CPUs.

Values are those of the paper's released scripts: batch, base rate per 256 clips, 40 epochs of warm-up, AdamW with betas
0.9 and 0.95, no drop path, 1600 epochs. Chosen here: an epoch counts 240,000 videos (Kinetics-400 loses some of its
videos every year; give `--steps` for yours), the rate ends at 0 where the scripts stop at 1e-5, and gradients are
clipped at a norm of 5, which the scripts do not do. The paper's text has decoders of 4 blocks; the scripts of L and H
give them 12.
"""

from dataclasses import replace

from unveil_pretrain.config import MimConfig
from unveil_pretrain.data.clip_sampling import ClipSettings
from unveil_pretrain.objectives.videomae import VideoMAEConfig

__all__ = ["tiny_videomae", "videomae_b16", "videomae_h16", "videomae_l16"]

_VIDEOS, _EPOCHS, _WARMUP_EPOCHS = 240_000, 1600, 40


def videomae_b16() -> MimConfig:
    """VideoMAE's ViT-B/16 (arXiv:2203.12602): 16 frames of Kinetics-400, stride 4, 90 % hidden, batch 2048."""
    return _videomae("vit_video_b16", batch_size=2048, objective=VideoMAEConfig())


def videomae_l16() -> MimConfig:
    """VideoMAE's ViT-L/16: as `videomae_b16` with batch 512 and a decoder of 12 blocks of width 512."""
    objective = VideoMAEConfig(decoder_width=512, decoder_depth=12, decoder_heads=8)
    return _videomae("vit_video_l16", batch_size=512, objective=objective)


def videomae_h16() -> MimConfig:
    """VideoMAE's ViT-H/16: as `videomae_b16` with batch 1024 and a decoder of 12 blocks of width 640."""
    objective = VideoMAEConfig(decoder_width=640, decoder_depth=12, decoder_heads=8)
    return _videomae("vit_video_h16", batch_size=1024, objective=objective)


def tiny_videomae() -> MimConfig:
    """VideoMAE on a ViT of width 128, 8 frames of 32 pixels; 75 % of 8-pixel tubes hidden."""
    return replace(
        videomae_b16(),
        objective=VideoMAEConfig(
            clips=ClipSettings(num_frames=8, frame_stride=2),
            mask_ratio=0.75,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=3,
        ),
        encoder="vit_video_tiny",
        image_size=(32, 32),
        steps=400,
        batch_size=16,
        base_lr=1.6e-2,
        warmup_steps=20,
        validate_every=50,
        checkpoint_every=0,
        gap_images=100,
    )


def _videomae(encoder: str, *, batch_size: int, objective: VideoMAEConfig) -> MimConfig:
    return MimConfig(
        objective=objective,
        encoder=encoder,
        image_size=(224, 224),
        steps=_EPOCHS * _VIDEOS // batch_size,
        batch_size=batch_size,
        base_lr=1.5e-4,
        lr_reference_batch=256,
        warmup_steps=_WARMUP_EPOCHS * _VIDEOS // batch_size,
        schedule="cosine",
        betas=(0.9, 0.95),
        mirror=False,
        validate_every=4000,
        checkpoint_every=4000,
    )
