"""Checkpoints of ours and of other programs, and vocabularies, damaged in every way."""

import gzip
import shutil
from pathlib import Path

import pytest
import unveil_backbones
from damage import Case, command, problems_of
from unveil_backbones import BpeTokenizer, WordPieceTokenizer, cli
from unveil_backbones.conversion.reading import read_tensors

TEXT = "plain text that people edit: a changed letter is another word"
WEIGHTS = "this format has no checksum; `convert` records the SHA-256 of the file it read in the manifest"


def copied(name: str, file: str):
    """A copy of a specimen's folder, and the file in it that will be damaged."""

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copytree(specimens / name, folder / "copy")
        return folder / "copy" / file

    return make


def written(name: str, content):
    """One file with this content, bytes or a function that gives them."""

    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return make


def weights(folder: Path):
    """What `load` gives, as numbers that can be compared."""
    found = unveil_backbones.load(folder / "copy")
    return [found.manifest.to_json(), *(float(tensor.sum()) for tensor in found.encoder.state_dict().values())]


def pair(folder: Path):
    built, tokenizer = unveil_backbones.load_pair(folder / "copy")
    return tokenizer(["a red field"]).tolist(), [float(tensor.sum()) for tensor in built.state_dict().values()]


def state(folder: Path):
    """The training state behind a run's last checkpoint, verified."""
    place = unveil_backbones.train_state(folder / "copy" / "run" / "checkpoints" / "step_00000004")
    return sorted((entry.name, entry.read_bytes()) for entry in place.iterdir())


def verified(folder: Path):
    return command(cli.main, "verify", folder / "copy")


def sums(file: Path):
    return {name: float(tensor.sum()) for name, tensor in read_tensors(file)[0].items()}


def torch_file(**options):
    def content() -> bytes:
        import io

        import torch

        stream = io.BytesIO()
        torch.save({"model": {"a": torch.arange(12.0), "b": torch.ones(3, 4)}}, stream, **options)
        return stream.getvalue()

    return content


def hugging_face(specimens, folder: Path) -> Path:
    """timm's folder layout: config.json and model.safetensors."""
    import json

    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    folder.mkdir(exist_ok=True)
    state = VisionTransformer(img_size=32, patch_size=16, embed_dim=192, depth=1, num_heads=3, num_classes=0)
    save_file(state.state_dict(), folder / "model.safetensors")
    mean = {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    text = json.dumps({"architecture": "vit_tiny_patch16_224", "num_classes": 0, "pretrained_cfg": mean})
    (folder / "config.json").write_text(text)
    return folder / "config.json"


def safetensors_of_hugging_face(specimens, folder: Path) -> Path:
    return hugging_face(specimens, folder).with_name("model.safetensors")


def foreign(folder: Path):
    loaded = unveil_backbones.load_foreign(folder)
    return str(loaded.encoder.spec), [float(tensor.sum()) for tensor in loaded.encoder.state_dict().values()]


VOCABULARY = b"[PAD]\n[UNK]\na\nfield\nred\n##s\n"
MERGES = b"#version: 0.2\nt h\nth e</w>\na n\nan d</w>\n"
MISSING_CONFIG = "without a config.json the shapes of the tensors say what the model is"

CASES = {
    "manifest.json": Case(
        make=copied("one", "manifest.json"),
        read=weights,
        unchecked="the one file that nothing inside the checkpoint hashes: its own hash is the checkpoint's name, by "
        "which results, baselines and runs know it (`evalharness verify` finds the change)",
    ),
    "encoder.safetensors": Case(make=copied("one", "encoder.safetensors"), read=weights),
    "heads.safetensors": Case(make=copied("pair", "heads.safetensors"), read=pair),
    "tokenizer.json": Case(make=copied("pair", "tokenizer.json"), read=pair),
    "encoder.safetensors by `verify`": Case(make=copied("one", "encoder.safetensors"), read=verified, flips=8),
    "optimizer.safetensors": Case(
        make=copied("image", "run/checkpoints/step_00000004/train_state/optimizer.safetensors"), read=state
    ),
    "position.json": Case(make=copied("image", "run/checkpoints/step_00000004/train_state/position.json"), read=state),
    "weights.pth": Case(
        make=written("w.pth", torch_file()), read=lambda folder: sums(folder / "w.pth"), unchecked=WEIGHTS
    ),
    "legacy weights.pth": Case(
        make=written("w.pth", torch_file(_use_new_zipfile_serialization=False)),
        read=lambda folder: sums(folder / "w.pth"),
        unchecked=WEIGHTS,
    ),
    "model.safetensors": Case(
        make=safetensors_of_hugging_face, read=lambda folder: sums(folder / "model.safetensors"), unchecked=WEIGHTS
    ),
    "config.json": Case(
        make=hugging_face, read=foreign, flips=8, unchecked=TEXT, tolerated={"missing": MISSING_CONFIG}
    ),
    "vocab.txt": Case(
        make=written("vocab.txt", VOCABULARY),
        read=lambda folder: WordPieceTokenizer.from_vocabulary(folder / "vocab.txt", 5)(["a red field"]).tolist(),
        unchecked=TEXT,
        tolerated={"cut in half": "a list of words that ends early is a shorter list", "cut by a byte": TEXT},
    ),
    "merges.txt": Case(
        make=written("merges.txt", MERGES),
        read=lambda folder: BpeTokenizer.from_file(folder / "merges.txt", 8)(["and the"]).tolist(),
        unchecked=TEXT,
        tolerated={"cut in half": "a list of rules that ends early is a shorter list", "cut by a byte": TEXT},
    ),
    "merges.txt.gz": Case(
        make=written("merges.txt.gz", gzip.compress(MERGES, mtime=0)),
        read=lambda folder: BpeTokenizer.from_file(folder / "merges.txt.gz", 8)(["and the"]).tolist(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []


def test_a_careless_reader_is_caught(specimens, tmp_path):
    """The harness itself: a reader that trusts its file fails in every column of the table."""
    case = Case(
        make=written("a.bin", bytes(range(200))), read=lambda folder: sum((folder / "a.bin").read_bytes()[:100])
    )
    problems = problems_of(case, specimens, tmp_path)
    assert any("another result without a word" in problem for problem in problems)
    assert any(problem.startswith("bit ") for problem in problems)

    def foreign_error(folder):
        content = (folder / "a.bin").read_bytes()
        return {"a": 1}["a" if content == bytes(range(200)) else "b"]

    tmp_path.joinpath("second").mkdir()
    problems = problems_of(Case(make=case.make, read=foreign_error), specimens, tmp_path / "second")
    assert any("KeyError" in problem for problem in problems)


def test_unreadable_is_unreadable_even_for_root(tmp_path):
    from damage import without_rights

    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with without_rights(), pytest.raises(PermissionError):
        (tmp_path / "a").read_text()
