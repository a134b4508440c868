"""Shape and type checks on the whole package, and small checkpoints and data sets for all tests."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from unveil_evalharness.run import RunOptions

# Before the package is imported for the first time: every annotated function then checks its arguments.
install_import_hook(["unveil_evalharness"], "beartype.beartype")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., Path]:
    """Writes a tiny ViT checkpoint; with `captions`, an image-text pair whose vocabulary knows them."""

    def save(path: Path, *, seed: int = 0, step: int = 10, captions: Sequence[str] = ()) -> Path:
        import torch
        import unveil_backbones
        from unveil_backbones.manifest import Manifest, Preprocessing

        torch.manual_seed(seed)
        encoder = unveil_backbones.create("vit_tiny", image_size=32)
        heads, text, tokenizer_json = None, None, None
        if captions:
            tokenizer = unveil_backbones.WordPieceTokenizer.train(list(captions), 80, length=12)
            tower = unveil_backbones.create_text("text_tiny", tokenizer.vocab_size, tokenizer.length)
            pair = unveil_backbones.ImageTextPair(encoder, tower, embed_dim=16)
            heads, text, tokenizer_json = pair.heads_state(), tower.spec, tokenizer.to_json()
        manifest = Manifest(
            encoder=encoder.spec,
            text=text,
            preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            objective="flip" if captions else "mae",
            mask={"strategy": "random", "ratio": 0.5},
            realised_ratio=0.5,
            seed=seed,
            step=step,
            samples_seen=step * 8,
            unique_samples=16,
            tokens_seen=step * 8 * 8,
            device_seconds=1.0,
            data_hash="0" * 16,
            num_parameters=encoder.num_parameters,
            versions={"torch": torch.__version__},
            created="2024-01-01T00:00:00+00:00",
        )
        return unveil_backbones.save(
            path, encoder=encoder, manifest=manifest, heads=heads, tokenizer_json=tokenizer_json
        )

    return save


@pytest.fixture(scope="session")
def mae_checkpoint(save_checkpoint, tmp_path_factory) -> Path:
    """An image encoder without a text tower. Shared: do not write into it."""
    return save_checkpoint(tmp_path_factory.mktemp("mae") / "step_00000010")


@pytest.fixture(scope="session")
def flip_checkpoint(save_checkpoint, tmp_path_factory) -> Path:
    """An image-text pair. Shared: do not write into it."""
    captions = [caption for colour in COLOURS for caption in _captions(colour)]
    return save_checkpoint(tmp_path_factory.mktemp("flip") / "step_00000010", captions=captions)


@pytest.fixture(scope="session")
def encode_image() -> Callable[..., bytes]:
    """A picture of one colour with a darker corner, encoded."""

    def encode(
        colour: tuple[int, ...], *, size: tuple[int, int] = (40, 36), kind: str = "JPEG", mode: str = "RGB"
    ) -> bytes:
        from PIL import Image

        image = Image.new("RGB", size, colour)
        image.paste((10, 10, 10), (0, 0, size[0] // 3, size[1] // 3))
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind)
        return buffer.getvalue()

    return encode


@pytest.fixture
def caption_shards(tmp_path, encode_image) -> Path:
    """A data root with eight captioned images in two webdataset shards."""
    root = tmp_path / "data"
    colours = list(COLOURS) * 2
    for shard in range(2):
        records = []
        for number in range(4 * shard, 4 * shard + 4):
            colour = colours[number]
            picture = encode_image(tuple(max(0, value - 3 * number) for value in COLOURS[colour]))
            records.append((f"{number:04d}", picture, _captions(colour)))
        write_shard(root / "captions" / f"val-{shard:05d}.tar", records)
    return root


@pytest.fixture
def coco_captions(tmp_path, encode_image) -> Path:
    """A data root with four images in COCO's caption layout: sizes, modes and formats mixed, one without captions."""
    root = tmp_path / "coco_data"
    folder = root / "coco" / "val2017"
    folder.mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    shapes = [("a.jpg", "JPEG", "L", (20, 50)), ("b.png", "PNG", "RGBA", (64, 33)), ("c.jpg", "JPEG", "RGB", (32, 32))]
    for (name, kind, mode, size), colour in zip(shapes, COLOURS.values(), strict=False):
        (folder / name).write_bytes(encode_image(colour, size=size, kind=kind, mode=mode))
    (folder / "d.png").write_bytes(encode_image(COLOURS["white"], kind="PNG", mode="P"))
    content = {
        "images": [{"id": 10 + i, "file_name": name} for i, name in enumerate(["a.jpg", "b.png", "c.jpg", "d.png"])],
        "annotations": [
            {"id": 3, "image_id": 10, "caption": "a grey square "},
            {"id": 1, "image_id": 10, "caption": "a red square"},
            {"id": 2, "image_id": 11, "caption": "a green square"},
            {"id": 4, "image_id": 13, "caption": "a white square"},
        ],
    }
    (root / "coco" / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def make_shard() -> Callable[..., Path]:
    """Writes a webdataset shard from (key, image bytes, captions)."""
    return write_shard


def write_shard(path: Path, records: Sequence[tuple[str, bytes, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for key, picture, captions in records:
            for suffix, content in (("jpg", picture), ("json", json.dumps({"captions": captions}).encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return path


def _captions(colour: str) -> list[str]:
    return [f"a {colour} square", f"a square that is {colour}"]


@pytest.fixture
def options(mae_checkpoint: Path, tmp_path: Path) -> "RunOptions":
    """`run` of a task called toy on one checkpoint."""
    from unveil_evalharness.run import RunOptions

    data = tmp_path / "data"
    data.mkdir()
    return RunOptions(
        ckpt=(mae_checkpoint,),
        data_root=data,
        output_path=tmp_path / "out",
        tasks=("toy",),
        device="cpu",
        progress=False,
    )
