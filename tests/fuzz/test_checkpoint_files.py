"""Files of a checkpoint, ours and other programs', damaged in ten thousand ways."""

import json
import shutil
import struct

import pytest
import unveil_backbones
from fuzzing import NUM_SLOW, Parser, Place, file_parser, fuzz, in_parts, tree_of
from mutations import mutated_bytes, mutated_json, mutated_lines, mutated_text
from unveil_backbones import BpeTokenizer, WordPieceTokenizer
from unveil_backbones._files import check_header
from unveil_backbones.checkpoint import _read_tensors
from unveil_backbones.conversion.reading import read_tensors
from unveil_backbones.conversion.sources import find_source
from unveil_backbones.coverage import CoverageReport
from unveil_backbones.manifest import Manifest, Passport, read_manifest
from unveil_backbones.passport import ValPoint
from unveil_backbones.tokenizer_json import tokenizer_from_json

VOCABULARY = "[PAD]\n[UNK]\na\nfield\nred\n##s\n"
MERGES = "#version: 0.2\nt h\nth e</w>\na n\nan d</w>\n"
CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 0,
    "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def manifest(place: Place) -> Parser:
    tree = tree_of(place.good / "one" / "manifest.json")
    return Parser(
        make=lambda random: mutated_json(random, tree).decode("utf-8", "replace"), read=lambda text: _again(text)
    )


def _again(text):
    """What was accepted can be written again."""
    return Manifest.from_json(text).to_json()


def manifest_file(place: Place) -> Parser:
    tree = tree_of(place.good / "one" / "manifest.json")
    return file_parser(
        place.scratch / "manifest.json",
        lambda random: mutated_json(random, tree),
        lambda: read_manifest(place.scratch).label,
    )


def parts_of_a_manifest(place: Place) -> Parser:
    tree = tree_of(place.good / "one" / "manifest.json")
    readers = {"passport": Passport.from_json, "val": ValPoint.from_json}

    def make(random):
        name = random.choice(sorted(readers))
        value = tree["passport"] if name == "passport" else tree["val"][0]
        try:
            return name, json.loads(mutated_json(random, value))
        except (ValueError, RecursionError):
            return name, None

    return Parser(make=make, read=lambda given: readers[given[0]](given[1]))


def coverage(place: Place) -> Parser:
    tree = {
        "format": "mae", "source": "a.pth", "source_sha256": "0" * 64, "loaded": {"a": "b"}, "num_parameters": 3,
        "dropped": {"decoder": ["c"]}, "unknown": ["seed"],
    }  # fmt: skip

    def make(random):
        try:
            return json.loads(mutated_json(random, tree))
        except (ValueError, RecursionError):
            return None

    return Parser(make=make, read=CoverageReport.from_json)


def tokenizer(place: Place) -> Parser:
    tree = tree_of(place.good / "pair" / "tokenizer.json")

    def read(text):
        return tokenizer_from_json(text)(["a red field", "", "\x00 é " * 50])

    return Parser(make=lambda random: mutated_json(random, tree).decode("utf-8", "replace"), read=read)


def vocabulary(place: Place) -> Parser:
    file = place.scratch / "vocab.txt"
    return file_parser(
        file,
        lambda random: (
            mutated_bytes(random, mutated_lines(random, VOCABULARY).encode("utf-8", "surrogatepass"))
            if random.randint(0, 3) == 0
            else mutated_lines(random, VOCABULARY).encode("utf-8", "surrogatepass")
        ),
        lambda: WordPieceTokenizer.from_vocabulary(file, 5)(["a red field\x00", ""]),
    )


def merges(place: Place) -> Parser:
    file = place.scratch / "merges.txt"
    return file_parser(
        file,
        lambda random: mutated_lines(random, MERGES).encode("utf-8", "surrogatepass"),
        lambda: BpeTokenizer.from_file(file, 8),
    )


def gzipped_merges(place: Place) -> Parser:
    import gzip

    file, packed = place.scratch / "merges.txt.gz", gzip.compress(MERGES.encode(), mtime=0)
    return file_parser(file, lambda random: mutated_bytes(random, packed), lambda: BpeTokenizer.from_file(file, 8))


def captions_through_wordpiece(place: Place) -> Parser:
    file = place.scratch / "vocab.txt"
    file.write_text(VOCABULARY)
    made = WordPieceTokenizer.from_vocabulary(file, 8)
    return Parser(make=lambda random: _caption(random), read=lambda text: _fits(made([text]), (1, 8)))


def captions_through_bpe(place: Place) -> Parser:
    made = BpeTokenizer.from_open_clip(12)
    return Parser(make=lambda random: _caption(random), read=lambda text: _fits(made([text]), (1, 12)))


def _caption(random):
    # What reaches a tokenizer has been cleaned of halves of surrogate pairs (`data/captions.py`).
    text = mutated_text(random, "A red field, the <b>3rd</b> of a&amp;b; it's 12:30!")
    return text.encode("utf-8", "replace").decode("utf-8")


def _fits(rows, shape):
    assert tuple(rows.shape) == shape


def safetensors_header(place: Place) -> Parser:
    file = place.scratch / "encoder.safetensors"
    whole = (place.good / "one" / "encoder.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    tree = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}
    small = struct.pack("<Q", len(json.dumps(tree))) + json.dumps(tree).encode() + bytes(24)

    def make(random):
        kind = random.randint(0, 9)
        if kind == 0:
            return mutated_bytes(random, whole[: size + 4000])
        if kind < 4:
            return mutated_bytes(random, small)
        header = mutated_json(random, tree)
        return struct.pack("<Q", len(header)) + header + bytes(24)

    def read():
        check_header(file)
        return _read_tensors(file)

    return file_parser(file, make, read)


def foreign_safetensors(place: Place) -> Parser:
    file = place.scratch / "model.safetensors"
    tree = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}

    def make(random):
        header = mutated_json(random, tree)
        return mutated_bytes(random, struct.pack("<Q", len(header)) + header + bytes(24))

    return file_parser(file, make, lambda: read_tensors(file))


def foreign_pickle(place: Place) -> Parser:
    import torch

    file = place.scratch / "model.pth"
    torch.save({"model": {"a": torch.zeros(2, 3), "b": torch.ones(4)}}, file)
    archive = file.read_bytes()
    torch.save({"model": {"a": torch.zeros(2, 3)}}, file, _use_new_zipfile_serialization=False)
    legacy = file.read_bytes()
    return file_parser(
        file,
        lambda random: mutated_bytes(random, archive if random.randint(0, 1) else legacy),
        lambda: read_tensors(file),
    )


def foreign_config(place: Place) -> Parser:
    (place.scratch / "model.safetensors").write_bytes(b"")
    file = place.scratch / "config.json"
    return file_parser(file, lambda random: mutated_json(random, CONFIG), lambda: find_source(place.scratch))


def foreign_folder(place: Place) -> Parser:
    """The whole way of another program's folder into ours; a model is built of each accepted one."""
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    unveil_backbones.ensure_torchvision()
    state = VisionTransformer(img_size=32, patch_size=16, embed_dim=192, depth=1, num_heads=3, num_classes=0)
    save_file(state.state_dict(), place.scratch / "model.safetensors")
    file = place.scratch / "config.json"
    return file_parser(
        file,
        lambda random: mutated_json(random, CONFIG),
        lambda: unveil_backbones.load_foreign(place.scratch),
        num_fast=20,  # a model is built of each
    )


def whole_checkpoint(place: Place) -> Parser:
    """`load` with everything that it checks; a flip anywhere has to be found, since every file is hashed."""
    folder = place.scratch / "c"
    shutil.copytree(place.good / "pair", folder)
    names = [name for name in tree_of(folder / "manifest.json")["files"] if not name.startswith("train_state")]
    whole = {name: (folder / name).read_bytes() for name in names}

    def make(random):
        name = random.choice(names)
        return name, mutated_bytes(random, whole[name])

    def read(given):
        name, content = given
        if content == whole[name]:
            return
        (folder / name).write_bytes(content)
        try:
            unveil_backbones.load(folder)
        except unveil_backbones.CheckpointError:
            return
        finally:
            (folder / name).write_bytes(whole[name])
        raise AssertionError(f"{name} differs and was read all the same")

    return Parser(make=make, read=read, num_fast=40)  # 5 ms each: three files are hashed


PARSERS = {
    function.__name__: function
    for function in (
        manifest, manifest_file, parts_of_a_manifest, coverage, tokenizer, vocabulary, merges, gzipped_merges,
        captions_through_wordpiece, captions_through_bpe, safetensors_header, foreign_safetensors, foreign_pickle,
        foreign_config, foreign_folder, whole_checkpoint,
    )
}  # fmt: skip

PARTS = {"foreign_folder": 10, "whole_checkpoint": 2}
"""Tests that share the ten thousand of a slow parser, so that several cores can take them."""


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs(name, place):
    parser = PARSERS[name](place)
    fuzz(parser, parser.num_fast)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(PARSERS, PARTS))
def test_ten_thousand_inputs(name, part, num_parts, place):
    fuzz(PARSERS[name](place), NUM_SLOW // num_parts, part=part)
