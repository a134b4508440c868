"""Checks shapes and types of every call into the package while its tests run, and makes small things to test with."""

from collections.abc import Callable
from pathlib import Path

import jaxtyping

# The hook rewrites modules as they are imported, so it has to stand before the first import of the package.
jaxtyping.install_import_hook("unveil_backbones", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from unveil_backbones import (  # noqa: E402
    Encoder,
    ImageTextPair,
    Manifest,
    Passport,
    Preprocessing,
    TextSpec,
    ValPoint,
    WordPieceTokenizer,
    create,
    create_text,
    save,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def passport() -> Passport:
    return Passport(
        objective="simmim",
        target_normalisation="window47",
        reduction="hidden_pixels",
        mask={"strategy": "unit", "ratio": 0.6, "unit": 8, "rounding": "ceil_hidden"},
        realised_ratio=0.611,
        mask_seed=0,
        mask_epoch=0,
        image_size=(64, 64),
        crop="center",
        images_hash="abc",
        negative_pool=0,
        dtype="float32",
    )


@pytest.fixture
def manifest_for(passport: Passport) -> Callable[..., Manifest]:
    def make(encoder: Encoder, *, text: TextSpec | None = None, step: int = 200) -> Manifest:
        return Manifest(
            encoder=encoder.spec,
            text=text,
            preprocessing=Preprocessing(image_size=(64, 64)),
            objective="flip" if text else "simmim",
            mask=passport.mask,
            realised_ratio=0.611,
            seed=0,
            step=step,
            samples_seen=step * 8,
            unique_samples=64,
            tokens_seen=step * 8 * 256,
            device_seconds=1.5,
            data_hash="abc",
            val=(ValPoint(step=step, loss=0.5, standard_error=0.01, num_images=32, train_loss=0.4),),
            passport=passport,
            num_parameters=encoder.num_parameters,
            versions={"torch": torch.__version__},
            created="2024-01-01T00:00:00+00:00",
        )

    return make


@pytest.fixture
def saved(tmp_path: Path, manifest_for: Callable[..., Manifest]) -> Path:
    """A checkpoint of a tiny ViT with a decoder tensor and a train state."""
    encoder = create("vit_tiny")

    def extra(folder: Path) -> None:
        (folder / "train_state").mkdir()
        (folder / "train_state" / "optimiser.bin").write_bytes(b"moments")

    return save(
        tmp_path / "run" / "checkpoints" / "step_00000200",
        encoder=encoder,
        manifest=manifest_for(encoder),
        heads={"objective.weight": torch.arange(6.0).reshape(2, 3)},
        extra=extra,
    )


@pytest.fixture
def saved_pair(tmp_path: Path, manifest_for: Callable[..., Manifest]) -> tuple[Path, ImageTextPair, WordPieceTokenizer]:
    """A checkpoint of an image-text pair, and what was saved."""
    tokenizer = WordPieceTokenizer.train(["a red zero above a blue one", "two green threes"], 64, length=8)
    pair = ImageTextPair(create("vit_tiny"), create_text("text_tiny", tokenizer.vocab_size, tokenizer.length), 32)
    path = save(
        tmp_path / "pair",
        encoder=pair.encoder,
        manifest=manifest_for(pair.encoder, text=pair.text.spec),
        heads={**pair.heads_state(), "objective.unused": torch.zeros(1)},
        tokenizer_json=tokenizer.to_json(),
    )
    return path, pair.eval(), tokenizer
