"""FLIP (arXiv:2212.00794): contrastive image-text training in which most image patches are dropped before the blocks.

Patches are removed, not replaced; the text is whole; the loss is the symmetric InfoNCE over the global batch with a
learned, clipped temperature. `flip_model.py` is the model; everything that the paper varies is a setting here.
"""

from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import ClassVar, Final, Literal

import torch
from jaxtyping import Int64
from torch import Tensor
from unveil_backbones import BpeTokenizer, Encoder, ImageTextPair, WordPieceTokenizer, create_text
from unveil_backbones.tokenizer_base import CaptionTokenizer
from unveil_backbones.tokenizer_json import tokenizer_from_json
from unveil_masking import RandomMask, ResizeReduction, UnitMask

from unveil_pretrain.data.captions import MAX_CHARACTERS
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, ObjectiveConfig
from unveil_pretrain.objectives.flip_model import FLIP, PairLoss, PairLossSettings, Reduction
from unveil_pretrain.objectives.flip_text import TABLES, TextInput, TextMasking, frequency_table, syntax_table
from unveil_pretrain.objectives.mae import check_decoder
from unveil_pretrain.objectives.reconstruction import Reconstruction

__all__ = ["FLIP", "FLIPConfig", "ImageReduction", "TokenizerKind"]

ImageReduction = Literal["drop", "resize"]
"""How images lose tokens: patches are dropped (FLIP), or the image is made smaller (CLIPA's baseline)."""

TokenizerKind = Literal["wordpiece", "bpe"]
"""WordPiece and a bidirectional tower read at its first piece (FLIP); CLIP's BPE and a causal one read at its end."""

_INITIAL_SCALES: Final[dict[PairLoss, float]] = {"infonce": 1 / 0.07, "sigmoid": 10.0}
_TABLE: Final = "objective.text_table"


@dataclass(frozen=True, kw_only=True, slots=True)
class FLIPConfig(ObjectiveConfig):
    """Settings of FLIP."""

    name: ClassVar[str] = "flip"
    needs_captions: ClassVar[bool] = True

    mask_ratio: float = 0.5
    """Share of image patches to drop; 0 is CLIP. The kept count is rounded down."""
    image_reduction: ImageReduction = "drop"
    """Drop patches, or make the image smaller until it has as few: CLIPA's baseline (arXiv:2305.07017)."""
    loss: PairLoss = "infonce"
    """InfoNCE over the global batch, or SigLIP's sigmoid loss (arXiv:2303.15343)."""
    initial_scale: float = 0.0
    """Factor of similarities at the start, learned, at most 100; 0 is that of the loss: 1/0.07, or 10 for sigmoid."""
    initial_bias: float = -10.0
    """sigmoid: what is added to every similarity at the start, learned."""
    loss_chunk: int = 512
    """Images whose similarities to all texts are in memory at once; only speed and rounding depend on it."""
    text: str = "text_s"
    """Name of the text tower."""
    tokenizer: TokenizerKind = "wordpiece"
    """Tokenizer, and with it the kind of text tower: bidirectional, or causal."""
    max_caption_characters: int = MAX_CHARACTERS
    """Longer captions are cut here, before the tokenizer; counted by `pretrain audit`."""
    text_length: int = 32
    """Pieces of a caption after cutting or padding."""
    attend_padding: bool = True
    """wordpiece: whether padding is attended like words, as in FLIP's code; false hides it, and saves its cost."""
    vocabulary: str = ""
    """Vocabulary file: BERT's vocab.txt or CLIP's merges. Without one, wordpiece is trained and bpe is open_clip's."""
    vocab_size: int = 30522
    """wordpiece: largest vocabulary where it is trained on the training captions."""
    tokenizer_captions: int = 200_000
    """Captions of the training set, from its beginning, that the vocabulary and word frequencies are taken from."""
    text_masking: TextMasking = "none"
    """Which pieces of a caption stay in training; FLIP keeps all."""
    text_keep: int = 16
    """Pieces that stay under text_masking."""
    text_tags: str = ""
    """syntax: file with a word, a tabulator and its Penn Treebank tag on each line."""
    text_threshold: float = 1e-6
    """frequency: words rarer than this share of all have no reason to be dropped."""
    embed_dim: int = 512
    """Width of the space in which images and texts are compared."""
    reconstruction_weight: float = 0.0
    """Factor of MAE's loss on the dropped patches; 0 leaves its decoder out. The paper found no gain (table 1f)."""
    decoder_width: int = 512
    """Width of the reconstruction's decoder; a multiple of 4 and of decoder_heads."""
    decoder_depth: int = 2
    """Blocks of the reconstruction's decoder."""
    decoder_heads: int = 16
    """Attention heads of the reconstruction's decoder."""
    negative_pool: int = 100
    """Validation pairs that are compared with each other; the validation set is cut into pools in key order."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_choices(self)

    def caption_limit(self) -> int:
        """See `max_caption_characters`."""
        return self.max_caption_characters

    def build(self, context: BuildContext) -> FLIP:
        """FLIP around the encoder; trains the tokenizer unless the context brings one.

        Raises:
            ConfigError: patches are to be dropped but the encoder needs all of its tokens, or settings contradict it.
            TokenizerError: the vocabulary cannot be read.
        """
        encoder = context.encoder
        strategy = self._strategy(encoder)
        tokenizer = self._tokenizer(context)
        causal = self.tokenizer == "bpe"
        text = create_text(
            self.text,
            vocab_size=tokenizer.vocab_size,
            length=self.text_length,
            causal=causal,
            attend_padding=self.attend_padding,
        )
        pair = ImageTextPair(encoder, text, self.embed_dim)
        with torch.no_grad():
            pair.raw_logit_scale.fill_(log(self.initial_scale or _INITIAL_SCALES[self.loss]))
        return FLIP(
            pair,
            TextInput(tokenizer, causal=causal, masking=self.text_masking, num_kept=self.text_keep),
            strategy,
            context.image_size,
            loss=PairLossSettings(kind=self.loss, initial_bias=self.initial_bias, chunk_size=self.loss_chunk),
            negative_pool=self.negative_pool,
            reconstruction=self._reconstruction(encoder),
            table=self._table(tokenizer, context),
        )

    def _strategy(self, encoder: Encoder) -> Reduction:
        if self.image_reduction == "resize":
            return ResizeReduction(self.mask_ratio)
        if not encoder.accepts_subset and self.mask_ratio > 0.0:
            raise ConfigError(
                f"flip drops patches, which {encoder.spec.name} cannot; choose a vit encoder, or mask_ratio 0"
            )
        strategy = RandomMask(self.mask_ratio)
        if encoder.mask_unit != 1:
            return UnitMask(encoder.mask_unit, self.mask_ratio, strategy.rounding)
        return strategy

    def _tokenizer(self, context: BuildContext) -> CaptionTokenizer:
        if context.tokenizer_json is not None:
            tokenizer = tokenizer_from_json(context.tokenizer_json)
            if tokenizer.length != self.text_length or isinstance(tokenizer, BpeTokenizer) != (self.tokenizer == "bpe"):
                raise ConfigError(
                    f"the checkpoint's tokenizer is {type(tokenizer).__name__} with {tokenizer.length} pieces; the "
                    f"settings want {self.tokenizer} with {self.text_length}; give its tokenizer and text_length"
                )
            return tokenizer
        if self.tokenizer == "bpe":
            if self.vocabulary:
                return BpeTokenizer.from_file(self.vocabulary, self.text_length)
            return BpeTokenizer.from_open_clip(self.text_length)
        if self.vocabulary:
            return WordPieceTokenizer.from_vocabulary(self.vocabulary, self.text_length)
        captions = context.captions(self.tokenizer_captions)
        return WordPieceTokenizer.train(captions, self.vocab_size, length=self.text_length)

    def _table(self, tokenizer: CaptionTokenizer, context: BuildContext) -> Int64[Tensor, " v"] | None:
        """What text masking knows of the vocabulary: that of the checkpoint, so that a run continues with the same."""
        if self.text_masking not in TABLES:
            return None
        if context.stored_heads is not None and _TABLE in context.stored_heads:
            return context.stored_heads[_TABLE].clone()
        if self.text_masking == "syntax":
            return syntax_table(tokenizer, Path(self.text_tags))
        return frequency_table(tokenizer, context.captions(self.tokenizer_captions), threshold=self.text_threshold)

    def _reconstruction(self, encoder: Encoder) -> Reconstruction | None:
        if not self.reconstruction_weight:
            return None
        if encoder.mask_unit != 1 or not encoder.accepts_subset:
            raise ConfigError(
                f"reconstruction_weight is {self.reconstruction_weight}, but {encoder.spec.name} hides no single "
                "patches; choose a vit encoder, or reconstruction_weight 0"
            )
        return Reconstruction(
            encoder,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            weight=self.reconstruction_weight,
        )


def _check_numbers(config: FLIPConfig) -> None:
    if not 0.0 <= config.mask_ratio < 1.0:
        raise ConfigError(f"mask_ratio is {config.mask_ratio}; give a number in [0, 1), for example 0.5")
    sizes = {
        "text_length": config.text_length,
        "vocab_size": config.vocab_size,
        "tokenizer_captions": config.tokenizer_captions,
        "embed_dim": config.embed_dim,
        "text_keep": config.text_keep,
        "loss_chunk": config.loss_chunk,
        "max_caption_characters": config.max_caption_characters,
        "decoder_depth": config.decoder_depth,
        "decoder_heads": config.decoder_heads,
    }
    for field, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{field} is {value}; give a positive number")
    if config.negative_pool < 2:
        raise ConfigError(f"negative_pool is {config.negative_pool}; give at least 2 pairs to compare")
    if not (config.initial_scale == 0.0 or 1.0 <= config.initial_scale <= 100.0):
        raise ConfigError(f"initial_scale is {config.initial_scale}; give 1 to 100, or 0 for that of the loss")
    if not (config.reconstruction_weight >= 0.0 and config.reconstruction_weight < float("inf")):
        raise ConfigError(f"reconstruction_weight is {config.reconstruction_weight}; give a number of at least 0")
    if not 0.0 < config.text_threshold <= 1.0:
        raise ConfigError(f"text_threshold is {config.text_threshold}; give a frequency in (0, 1], such as 1e-6")
    check_decoder(width=config.decoder_width, depth=config.decoder_depth, heads=config.decoder_heads)


def _check_choices(config: FLIPConfig) -> None:
    if config.text_masking != "none" and config.text_keep > config.text_length:
        raise ConfigError(
            f"text_keep is {config.text_keep} of {config.text_length} pieces; give at most text_length, or "
            "text_masking none"
        )
    if (config.text_masking == "syntax") != bool(config.text_tags):
        raise ConfigError(
            f"text_masking is {config.text_masking!r} and text_tags {config.text_tags!r}; syntax needs a file of words "
            "and tags, and nothing else takes one"
        )
    if config.tokenizer == "bpe" and not config.attend_padding:
        raise ConfigError("attend_padding is for wordpiece: causal towers never see padding; leave it out")
    if config.reconstruction_weight and (config.image_reduction == "resize" or config.mask_ratio == 0.0):
        raise ConfigError(
            f"reconstruction_weight is {config.reconstruction_weight}, but no patch is dropped to be predicted; give "
            "image_reduction drop and a mask_ratio above 0, or reconstruction_weight 0"
        )
