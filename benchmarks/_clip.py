"""A whole CLIP step (both towers, the loss) with our pair and open_clip's model: the same weights, the same patches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from unveil_backbones import ImageTextPair
from unveil_backbones.conversion import clip_models
from unveil_backbones.flops import block_multiply_adds, encoder_cost
from unveil_backbones.manifest import Preprocessing
from unveil_backbones.pair_presets import PAIR_PRESETS, PairConfig, create_pair
from unveil_backbones.text import TextTower
from unveil_backbones.vit import VitEncoder
from unveil_backbones.vit_config import VitConfig
from unveil_masking import Grid, RandomMask
from unveil_pretrain.contrastive import info_nce

from benchmarks._compare import Absent, Candidate, Comparison
from benchmarks._steps import Work, candidate, difference, drawn, noise_that_keeps, scramble

__all__ = ["RATIOS", "Captions", "OurStep", "ideal_ratio", "own_rows", "peer_rows", "step_flops"]

RATIOS = (0.0, 0.5, 0.75)
_BARS = {0.0: 1.3, 0.5: 1.3, 0.75: 1.55}
_TOLERANCE = 1e-4
_PIECES = 20  # mean length of captions


class Captions(nn.Module):
    """Rows of word pieces as CLIP's tokenizer makes them: about 20 of 77 used, the rest padded with 0."""

    def __init__(self, batch: int, length: int, vocab_size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        rows = torch.zeros(batch, length, dtype=torch.int64)
        lengths = torch.randint(_PIECES // 2, 3 * _PIECES // 2 + 1, (batch,), generator=generator)
        for row, used in zip(rows, lengths.clamp(max=length).tolist(), strict=True):
            row[:used] = torch.randint(1, vocab_size - 2, (used,), generator=generator)
            row[0], row[used - 1] = vocab_size - 2, vocab_size - 1
        self.rows = rows


class OurStep(nn.Module):
    """From images to the mean loss; captions are those of the same number of images."""

    def __init__(self, pair: ImageTextPair, captions: Tensor, ratio: float) -> None:
        super().__init__()
        self.pair = pair
        # On the CPU whatever the device, as the training loop has them: how long they are is known without waiting.
        self.captions = captions
        self.mask = RandomMask(ratio)

    def keep(self, images: Tensor) -> Tensor | None:
        """The kept patches [b, k] of these images, or None for all."""
        grid = Grid(*self.pair.encoder.grid(images.shape[-2], images.shape[-1]))
        if self.mask.num_hidden(grid) == 0:
            return None
        ids = torch.arange(len(images), device=images.device)
        return self.mask.sample(grid, ids, seed=0, epoch=0).keep

    def forward(self, images: Tensor) -> Tensor:
        """The mean loss."""
        keep, grid = self.keep(images), self.pair.encoder.grid(images.shape[-2], images.shape[-1])
        vectors = self.pair.encode_image_tokens(self.pair.encoder.embed(images, keep), grid, keep)
        texts = self.pair.encode_text(self.captions[: len(images)])
        return info_nce(vectors, texts, self.pair.logit_scale.exp()).mean()


class _TheirStep(nn.Module):
    """open_clip's model and loss."""

    def __init__(self, model: nn.Module, loss: nn.Module, captions: Tensor) -> None:
        super().__init__()
        self.model, self.loss, self.captions = model, loss, captions

    def forward(self, images: Tensor) -> Tensor:
        vectors, texts, scale = self.model(images, self.captions[: len(images)].to(images.device))
        return self.loss(vectors, texts, scale)


def peer_rows(work: Work, ratios: Sequence[float] = RATIOS) -> Iterator[Comparison]:
    """Yield the whole step at each ratio against open_clip."""
    for ratio in ratios:
        yield _peer_row(work, ratio)


def own_rows(work: Work) -> Iterator[tuple[float, Comparison]]:
    """Yield our step at each masked ratio against our own unmasked step: the FLIP pair, 32 pieces."""
    for ratio in RATIOS[1:]:
        masked, whole = (_flip_step(work, one) for one in (ratio, 0.0))
        images = work.images(masked.pair.encoder.config.image_size[0])
        yield (
            ratio,
            Comparison(
                title=f"FLIP step of {_size(work)}, {ratio:.0%} dropped, over our own whole step, batch {work.batch}",
                ours=candidate("ours", masked, images, work, flops=step_flops(work, ratio)),
                peers=[candidate("all patches", whole, images, work, flops=step_flops(work, 0.0))],
                differences=lambda: {"all patches": 0.0},  # other patches: another loss, by design
                tolerance=0.0,
                bars={"all patches": ideal_ratio(work, ratio) / 1.1},
            ),
        )


def ideal_ratio(work: Work, ratio: float) -> float:
    """Multiply-adds of the unmasked FLIP step over those of the masked one."""
    return step_flops(work, 0.0) / step_flops(work, ratio)


def step_flops(work: Work, ratio: float) -> float:
    """Floating point operations of one FLIP step of `work.batch` pairs, without the loss."""
    pair = _flip_step(work, 0.0).pair
    config, text = pair.encoder.config, pair.text.config
    assert isinstance(config, VitConfig)
    patches = (config.image_size[0] // config.patch_size) ** 2
    of_image = encoder_cost(config, num_kept=int(patches * (1 - ratio))).multiply_adds
    return 6.0 * work.batch * (of_image + text.depth * block_multiply_adds(text.length, text.width))


def _peer_row(work: Work, ratio: float) -> Comparison:
    pair = _clip_pair(work)
    length, vocab_size = pair.text.config.length, pair.text.config.vocab_size
    captions = Captions(max(work.batch, work.check_batch), length, vocab_size).rows
    ours = OurStep(pair, captions, ratio).to(work.device.torch).train()
    side = pair.encoder.config.image_size[0]
    images, few = work.images(side), work.images(side, work.check_batch)
    title = f"CLIP step of {_size(work)} with {_PIECES}-piece captions, {ratio:.0%} dropped, batch {work.batch}"
    theirs = _open_clip(pair, captions, ratio)
    peers: list[Candidate | Absent]
    if isinstance(theirs, Absent):
        peers, differences = [theirs], dict
    else:
        peer = theirs.to(work.device.torch).train()
        peers = [candidate("open_clip", peer, images, work)]

        def differences() -> dict[str, float]:
            return {"open_clip": _apart(ours, peer, few)}

    return Comparison(
        title=title,
        ours=candidate("ours", ours, images, work),
        peers=peers,
        differences=differences,
        tolerance=_TOLERANCE,
        bars={"open_clip": _BARS[ratio] if work.device.torch.type == "cpu" else 1.25},
    )


def _apart(ours: OurStep, theirs: nn.Module, images: Tensor) -> float:
    """Loss and gradients of both towers, on the patches that our mask keeps."""
    names = {
        "pair.encoder.patch_embed.proj.weight": "model.visual.conv1.weight",
        "pair.encoder.pos_embed": "model.visual.positional_embedding",
        "pair.text.token_embed.weight": "model.token_embedding.weight",
        "pair.text.blocks.0.mlp.fc1.weight": "model.transformer.resblocks.0.mlp.c_fc.weight",
    }
    keep = ours.keep(images)
    if keep is None:
        return difference(ours, theirs, images, names)
    rows, cols = ours.pair.encoder.grid(images.shape[-2], images.shape[-1])
    with drawn("randn", noise_that_keeps(keep, rows * cols, largest=True)):
        return difference(ours, theirs, images, names)


def _open_clip(pair: ImageTextPair, captions: Tensor, ratio: float) -> nn.Module | Absent:
    try:
        from open_clip.loss import ClipLoss
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    except ImportError as error:
        return Absent(name="open_clip", reason=f"{error}; pip install open_clip_torch")
    size = pair.encoder.config.image_size
    written = clip_models.write(pair, Preprocessing(image_size=size))
    config = written.configs["open_clip_config.json"]["model_cfg"]
    model = CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"], patch_dropout=ratio),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
    )
    model.load_state_dict(written.tensors)
    return _TheirStep(model, ClipLoss(), captions)


def _clip_pair(work: Work) -> ImageTextPair:
    torch.manual_seed(0)
    pair = _small(PAIR_PRESETS["clip_b16"]) if work.quick else create_pair("clip_b16")
    scramble(pair)
    with torch.no_grad():
        pair.raw_logit_scale.fill_(2.5)
    return pair


def _flip_step(work: Work, ratio: float) -> OurStep:
    torch.manual_seed(0)
    pair = _small(PAIR_PRESETS["flip_l16"]) if work.quick else create_pair("flip_l16")
    config = pair.text.config
    captions = torch.randint(0, config.vocab_size, (work.batch, config.length))
    return OurStep(pair, captions, ratio).to(work.device.torch).train()


def _small(preset: PairConfig) -> ImageTextPair:
    """A pair of the preset's kind, of a size that shows that the benchmark runs."""
    image = replace(preset.encoder, width=64, depth=2, num_heads=2, image_size=(32, 32), patch_size=8)
    text = replace(preset.text, width=32, depth=2, num_heads=2, vocab_size=100)
    return ImageTextPair(VitEncoder(image), TextTower(text), 16)


def _size(work: Work) -> str:
    return "a tiny pair" if work.quick else "a B/16 or L/16 pair"
