"""What `pretrain` reads of data: shards and their names, zip files, images, videos, captions, lists."""

import io
import json
import os
import tarfile
import zipfile

import pytest
from fuzzing import NAMED, NUM_SLOW, Parser, Place, file_parser, fuzz, in_parts
from good_files import captioned_shard, image_bytes
from mutations import mutated_bytes, mutated_json, mutated_lines, mutated_text
from unveil_pretrain.data.balance import exact_fraction
from unveil_pretrain.data.caption_files import read_caption_file
from unveil_pretrain.data.captions import read_captions
from unveil_pretrain.data.crops import CropBox
from unveil_pretrain.data.decode import decode, decode_crop
from unveil_pretrain.data.folder import FolderDataset
from unveil_pretrain.data.lists import read_list
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.data.shard_index import index_from_json
from unveil_pretrain.data.shard_urls import expand_shards
from unveil_pretrain.data.tar_index import index_shard


def shard_names(place: Place) -> Parser:
    for number in range(3):
        (place.scratch / f"train-{number:05d}.tar").write_bytes(b"x")
    good = (
        f"{place.scratch}/train-{{00000..00002}}.tar",
        f"{place.scratch}/train-00000.tar::{place.scratch}/train-00001.tar",
        f"{place.scratch}/*.tar",
        f"file://{place.scratch}/train-0000[01].tar",
        "memory://bucket/{0..2}.tar",
    )
    return Parser(
        make=lambda random: _bounded_range(mutated_text(random, random.choice(good))),
        read=expand_shards,
        num_fast=50,
    )


def _bounded_range(text):
    """Without the schemes that would look something up on a network, where there is none."""
    schemes = ("http", "s3", "gs", "gcs", "az", "abfs", "hf", "ftp", "sftp", "ssh", "github", "hdfs", "webhdfs", "smb")
    return "file" + text[text.find(":") :] if text.lower().startswith(schemes) else text


def shard(place: Place) -> Parser:
    whole = captioned_shard(place.scratch / "a.tar", range(2)).read_bytes()
    return Parser(
        make=lambda random: mutated_bytes(random, whole),
        read=lambda data: index_shard(0, "a.tar", io.BytesIO(data)),
    )


def shard_headers(place: Place) -> Parser:
    """Headers with a right checksum over wrong fields, which bytes flipped at random never have."""

    def make(random):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for number in range(2):
                info = tarfile.TarInfo(mutated_text(random, f"a/00000{number}.jpg").encode("utf-8", "replace").decode())
                info.size = 3
                info.type = random.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"Z"))
                archive.addfile(info, io.BytesIO(b"abc") if info.type == tarfile.REGTYPE else None)
        content = bytearray(stream.getvalue())
        start, length = random.choice(((124, 12), (100, 8), (156, 1), (257, 8), (0, 100)))
        content[start : start + length] = random.choice(
            (b"7" * length, b"\xff" * length, b"\x80" + b"\0" * (length - 1), b" " * length, random.randbytes(length))
        )
        content[148:156] = b"        "
        content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
        return bytes(content)

    return Parser(make=make, read=lambda data: index_shard(0, "a.tar", io.BytesIO(data)))


def shard_index(place: Place) -> Parser:
    record = {"name": "a.tar", "sha256": "0" * 64, "num_bytes": 3, "num_samples": 1, "left_out": ["x"]}
    tree = {"format_version": 1, "settings": {"a": 1}, "num_samples": 3, "content_hash": "0" * 64, "classes": ["a"],
            "shards": [record]}  # fmt: skip
    return Parser(
        make=lambda random: mutated_json(random, tree).decode("utf-8", "replace"),
        read=lambda text: index_from_json(text, "index.json"),
    )


def zip_folder(place: Place) -> Parser:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"red/{number}.jpg", image_bytes(number, side=8))
    whole, file = stream.getvalue(), place.scratch / "a.zip"

    def read():
        samples = FolderDataset(str(file))
        for index in range(len(samples)):
            samples.read(index)

    return file_parser(file, lambda random: mutated_bytes(random, whole), read)


def images(place: Place) -> Parser:
    kinds = ("JPEG", "RGB"), ("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), (
        "WEBP", "RGB"), ("GIF", "animated"), ("BMP", "RGB"), ("TIFF", "RGB"), ("PPM", "RGB")  # fmt: skip
    whole = [image_bytes(1, kind=kind, mode=mode, side=12) for kind, mode in kinds]
    return Parser(
        make=lambda random: mutated_bytes(random, random.choice(whole)), read=lambda data: _pixels(decode(data, "here"))
    )


def _pixels(pixels):
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def cropped_jpegs(place: Place) -> Parser:
    whole = [image_bytes(1, side=96), image_bytes(2, mode="L", side=96)]

    def box(size):
        return CropBox(top=0, left=0, height=size[0], width=size[1], flip=True)

    return Parser(
        make=lambda random: mutated_bytes(random, random.choice(whole)),
        read=lambda data: _view(decode_crop(data, "here", (8, 8), box)),
    )


def _view(view):
    assert tuple(view.shape) == (3, 8, 8)


def videos(place: Place) -> Parser:
    pytest.importorskip("av")
    from clip_helpers import video_bytes
    from unveil_pretrain.data.clip_decode import read_frames

    whole = {kind: video_bytes(1, kind=kind, num=6) for kind in ("mp4", "avi", "mkv")}

    def make(random):
        kind = random.choice(sorted(whole))
        return {kind: mutated_bytes(random, whole[kind])}

    return Parser(make=make, read=lambda files: read_frames(files, tuple(files), "here", _ends), num_fast=40)


def _ends(num):
    return [0, num - 1]


def captions(place: Place) -> Parser:
    tree = {"captions": ["a red field", "b&amp;b <b>x</b>"], "caption": "a field", "url": "x"}

    def make(random):
        files = {"json": mutated_json(random, tree)}
        if random.randint(0, 1):
            files["txt"] = mutated_bytes(random, "a rêd field".encode())
        return files

    def read(files):
        reading = read_captions(files)
        assert all(text and text == text.encode("utf-8").decode("utf-8") for text in reading.texts)
        return [reading.counts_of(index) for index in range(len(reading.captions))]

    return Parser(make=make, read=read, allowed=())  # "never raises for what is in them"


def coco_captions(place: Place) -> Parser:
    tree = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a field"}]}
    file = place.scratch / "captions.json"
    return file_parser(file, lambda random: mutated_json(random, tree), lambda: read_caption_file(file))


def caption_lines(place: Place) -> Parser:
    file = place.scratch / "captions.txt"
    text = 'image,caption\na.jpg,a field\nb.jpg,"two, fields"\n'
    return file_parser(file, lambda random: _encoded(random, text), lambda: read_caption_file(file))


def sample_list(place: Place) -> Parser:
    file = place.scratch / "S10.txt"
    text = f"# list of samples 1\n# list: {'0' * 64}\n000001\n000002\n"
    return file_parser(file, lambda random: _encoded(random, text), lambda: read_list(file))


def _encoded(random, text):
    encoded = mutated_lines(random, text).encode("utf-8", "surrogatepass")
    return encoded if random.randint(0, 3) else mutated_bytes(random, encoded)


def classes_in_json(place: Place) -> Parser:
    """A .json and a .cls beside an image in a shard: what `label` makes of them."""
    from good_files import write_tar
    from unveil_pretrain.data.shards import ShardDataset

    file = place.scratch / "a.tar"

    def read(given):
        write_tar(file, {"k": {"jpg": b"x", "json": given[0], "cls": given[1]}})
        return ShardDataset(str(file)).label(0)

    tree = {"label": 3, "class": "red", "captions": ["a"]}
    return Parser(
        make=lambda random: (mutated_json(random, tree), mutated_bytes(random, b"3\n")), read=read, num_fast=50
    )


def places_of_samples(place: Place) -> Parser:
    folder = place.scratch / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(image_bytes(1, side=8))
    good = (f"{folder}", f"{folder}/a.jpg", f"{folder}.zip", "list.txt")
    inside = str(place.scratch)

    def make(random):
        text = _bounded_range(mutated_text(random, random.choice(good)))
        odd = "\0" in text or not text.isprintable()  # nothing is called so
        return text if odd or os.path.realpath(text).startswith(inside) else f"{inside}/absent/{len(text)}"

    return Parser(make=make, read=open_samples)


def fractions(place: Place) -> Parser:
    return Parser(make=lambda random: mutated_text(random, random.choice(("0.1", "1/8", "1"))), read=exact_fraction)


PARSERS = {
    function.__name__: function
    for function in (
        shard_names, shard, shard_headers, shard_index, zip_folder, images, cropped_jpegs, videos, captions,
        coco_captions, caption_lines, sample_list, classes_in_json, places_of_samples, fractions,
    )
}  # fmt: skip

PARTS = {"videos": 5, "shard_names": 2, "classes_in_json": 2}
"""Tests that share the ten thousand of a slow parser, so that several cores can take them."""


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs(name, place):
    parser = PARSERS[name](place)
    fuzz(parser, parser.num_fast)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "num_parts"), in_parts(PARSERS, PARTS))
def test_ten_thousand_inputs(name, part, num_parts, place):
    fuzz(PARSERS[name](place), NUM_SLOW // num_parts, part=part)


def test_a_planted_mistake_is_found_by_some_inputs(place):
    """The reader of shards' index without its net: one kind of damage in several leads to a foreign error."""

    def careless(text):
        value = json.loads(text)
        return {name: value[name] for name in ("settings", "shards", "classes")}

    parser = shard_index(place)
    with pytest.raises(AssertionError, match=r"(KeyError|TypeError|JSONDecodeError|RecursionError).*\ninput: "):
        fuzz(Parser(make=parser.make, read=careless), parser.num_fast)


@pytest.mark.parametrize("mistake", ["silence", "hang", "memory"])
def test_other_mistakes_are_found_too(mistake, place, monkeypatch):
    monkeypatch.setattr("fuzzing._SECONDS", 1)

    def read(text):
        if mistake == "hang":
            while True:
                pass
        if mistake == "memory":
            return bytearray(2**40)
        raise NAMED[0]("")

    found = {"silence": "says nothing", "hang": "TimeoutError", "memory": "MemoryError"}[mistake]
    with pytest.raises(AssertionError, match=found):
        fuzz(Parser(make=lambda random: "x", read=read), 20)
