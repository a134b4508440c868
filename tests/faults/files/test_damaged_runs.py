"""Files of runs and sweeps of `pretrain`, and what it reads of data, damaged in every way."""

import io
import json
import shutil
import zipfile
import zlib
from pathlib import Path

import pytest
from damage import Case, Found, command, problems_of
from good_files import captioned_shard, image_bytes, write_tar
from unveil_pretrain.cli import main
from unveil_pretrain.data import FolderDataset
from unveil_pretrain.data.caption_files import read_caption_file
from unveil_pretrain.data.captions import captions_of
from unveil_pretrain.data.decode import decode
from unveil_pretrain.data.lists import SampleList
from unveil_pretrain.data.opening import open_listed, open_samples
from unveil_pretrain.errors import DataError
from unveil_pretrain.record import RunFolder
from unveil_pretrain.stored_config import config_of_run
from unveil_pretrain.val_table import read_losses

TEXT = "plain text that people edit: a changed digit is another number; what cannot be a number of its column is found"
PIXELS = "pixels have no checksum in this format: a changed bit is another picture, or none, and then it is found"
SHORTER = "a journal that was cut between two lines, or within the last one, is what a kill leaves: a shorter history"
NEW = "a run without it has not recorded anything yet"
CUT = dict.fromkeys(("cut to a tenth", "cut in half", "cut by a byte"), SHORTER)


def run_with(file: str):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copytree(specimens / "image" / "run", folder / "run")
        return folder / "run" / file

    return make


def log_with(name: str):
    """A log that only a run with some trouble has."""

    def make(specimens, folder: Path) -> Path:
        file = run_with(name)(specimens, folder)
        assert not file.exists()
        rows = [{"step": step, "loss": 9.5, "what": "a.jpg", "retries": {"time-out": 2}} for step in (1, 2, 4)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return make


def status(folder: Path):
    words, more = command(main, "status", folder / "run"), command(main, "status", folder / "run", "--json")
    assert ("  damaged     " in words) == bool(json.loads(more)["damaged"])
    if "  damaged     " in words:
        raise Found(words)
    return words, more, command(main, "status", folder / "run", "--csv")


def resumed(folder: Path):
    """What a run reads of itself before it continues."""
    run = RunFolder(folder / "run")
    said = run.rewind(2)
    rows = run.losses(), run.caption_changes(), run.num_skipped()
    if said:
        assert next((folder / "run").glob("*.jsonl.damaged*")).is_file()
        raise Found(said[0])
    return *rows, (folder / "run" / "val.jsonl").read_text(), (folder / "run" / "cost.jsonl").read_text()


def sweep_with(file: str):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copytree(specimens / "sweep", folder / "sweep")
        return folder / "sweep" / file

    return make


def sweep(folder: Path):
    try:
        shown = command(main, "sweep", "--status", "--out", folder / "sweep")
    except Found as failed:  # one cell has
        shown = str(failed)
    return shown, (folder / "sweep" / "summary.csv").read_text()


def one(name: str, content):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return make


def picture(folder: Path):
    """The picture in a folder of images, read and decoded as in training."""
    samples = FolderDataset(str(folder))
    ((extension, data),) = samples.read(0).items()
    return extension, decode(data, samples.where(0)).tobytes()


def shard(specimens, folder: Path) -> Path:
    return captioned_shard(folder / "train-00000.tar", range(4))


def samples_of_shard(folder: Path):
    samples = open_samples(str(folder / "train-00000.tar"))
    return [(samples.keys[index], samples.read(index)) for index in range(len(samples))]


def indexed(file: str):
    """Shards with their index.json, made by the command; they are kept, since making them costs most."""

    def make(specimens, folder: Path) -> Path:
        source = specimens / "labelled" / "imagenet" / "train"
        kept = source.parents[1] / "shards"
        if not kept.exists():
            command(main, "shards", "--source", source, "--out", kept, "--samples-per-shard", 8)
        folder.mkdir(exist_ok=True)
        shutil.copytree(kept, folder / "shards")
        found = folder / "shards" / file
        return sorted((folder / "shards").glob("*.tar"))[0] if file == "tar" else found

    return make


def audited(folder: Path):
    return command(main, "audit", folder / "shards")


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(zipfile.ZipInfo(f"red/{number}.png"), image_bytes(number, kind="PNG", side=12))
    return stream.getvalue()


def samples_of_zip(folder: Path):
    samples = FolderDataset(str(folder / "images.zip"))
    return [(samples.keys[index], samples.read(index)) for index in range(len(samples))]


def listed(specimens, folder: Path) -> Path:
    captioned_shard(folder / "train-00000.tar", range(4))
    (folder / "S50.txt").write_text(SampleList(keys=("000001", "000003")).text())
    return folder / "S50.txt"


def samples_of_list(folder: Path):
    return open_listed(str(folder / "train-00000.tar"), folder / "S50.txt").keys


def captions_in(extension: str, content: bytes):
    def make(specimens, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / f"caption.{extension}").write_bytes(content)
        return folder / f"caption.{extension}"

    def read(folder: Path):
        data = (folder / f"caption.{extension}").read_bytes()
        path = write_tar(folder / "a.tar", {"caption": {"jpg": b"x", extension: data}})
        samples = open_samples(str(path))
        return captions_of(samples.read(0), samples.where(0))

    return make, read


def video(kind: str):
    def content() -> bytes:
        from clip_helpers import video_bytes

        return video_bytes(1, kind=kind, num=6)

    return content


def frames_of(kind: str):
    def read(folder: Path):
        from unveil_pretrain.data.clip_decode import read_frames

        file = folder / f"clip.{kind}"
        found = read_frames({kind: file.read_bytes()}, (kind,), str(file), lambda num: [0, num // 2])
        return [frame.tobytes() for frame in found]

    return read


IMAGES = {
    "jpg": ("JPEG", "RGB"), "grey.jpg": ("JPEG", "L"), "cmyk.jpg": ("JPEG", "CMYK"), "png": ("PNG", "RGB"),
    "palette.png": ("PNG", "P"), "16bit.png": ("PNG", "I;16"), "webp": ("WEBP", "RGB"), "gif": ("GIF", "animated"),
    "bmp": ("BMP", "RGB"),
}  # fmt: skip
JSON_CAPTIONS = captions_in("json", json.dumps({"captions": ["a red field", "a field"]}).encode())
TEXT_CAPTIONS = captions_in("txt", b"a red field in the rain")
ANY_TEXT = (
    "any bytes are a caption: broken ones are repaired, and the repairs counted (metrics.jsonl, `pretrain audit`)"
)
COCO = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a b"}]})
PLAN = json.dumps({"cells": [{"recipe": "tiny_mae", "steps": 4}, {"recipe": "tiny_mae", "steps": 9}]})


def planned(folder: Path):
    from unveil_pretrain.planning.plans import read_plan

    return read_plan(folder / "plan.json").to_json()


CASES = {
    "run.json": Case(make=run_with("run.json"), read=status, unchecked=TEXT),
    "run.json, as settings": Case(
        make=run_with("run.json"), read=lambda folder: str(config_of_run(folder / "run")), unchecked=TEXT, flips=8
    ),
    "metrics.jsonl": Case(
        make=run_with("metrics.jsonl"), read=status, unchecked=TEXT, tolerated={**CUT, "emptied": NEW, "missing": NEW,
                                                                                "noise": NEW, "zeros": NEW},
    ),
    "val.jsonl": Case(
        make=run_with("val.jsonl"), read=status, unchecked=TEXT, tolerated={**CUT, "emptied": NEW, "missing": NEW,
                                                                            "zeros": NEW},
    ),
    "cost.jsonl": Case(
        make=run_with("cost.jsonl"), read=status, unchecked=TEXT, tolerated={**CUT, "emptied": NEW, "missing": NEW,
                                                                             "zeros": NEW},
    ),
    "metrics.jsonl, on resuming": Case(
        make=run_with("metrics.jsonl"), read=resumed, unchecked=TEXT, flips=8,
        tolerated={**CUT, "emptied": NEW, "missing": NEW, "zeros": NEW},
    ),
    **{
        f"{name}{how}": Case(
            make=log_with(name), read=read, unchecked=TEXT, flips=3,
            tolerated={**CUT, "emptied": NEW, "missing": NEW, "zeros": NEW},
        )
        for name in ("spikes.jsonl", "reads.jsonl", "skipped.jsonl")
        for how, read in (("", status), (", on resuming", resumed))
    },
    "val/*.parquet": Case(
        make=run_with("val/step_00000004.parquet"),
        read=lambda folder: [read_losses(folder / "run", 4).keys, read_losses(folder / "run", 4).values.tolist()],
        unchecked="parquet keeps no checksums unless its writer is asked to; what no decoder takes is found",
    ),
    "val/passport.json": Case(
        make=run_with("val/passport.json"),
        read=lambda folder: str(read_losses(folder / "run", 4).passport),
        unchecked=TEXT,
        tolerated={"missing": "a run of an earlier version has none, and says so with each comparison"},
    ),
    "plan.json": Case(make=one("plan.json", PLAN.encode()), read=planned, unchecked=TEXT),
    "a sweep's plan.json": Case(make=sweep_with("plan.json"), read=sweep, unchecked=TEXT),
    "a sweep's sweep.jsonl": Case(
        make=sweep_with("sweep.jsonl"), read=sweep, unchecked=TEXT,
        tolerated={**CUT, "emptied": NEW, "missing": NEW, "zeros": NEW},
    ),
    "a cell's outcome": Case(
        make=sweep_with("outcomes/failed.json"), read=sweep, unchecked=TEXT,
        tolerated={"missing": "a cell without an outcome has not ended by itself"},
    ),
    "a cell's run.json": Case(
        make=sweep_with("cells/done/run.json"), read=sweep, unchecked=TEXT,
        tolerated=dict.fromkeys(("missing", "a folder", "a link to itself"), "a cell without it has not begun"),
    ),
    "shard": Case(
        make=shard, read=samples_of_shard,
        unchecked="tar has checksums of headers only; index.json has one of each shard for `pretrain audit`",
    ),
    "shard with index.json, by `audit`": Case(make=indexed("tar"), read=audited, flips=12),
    "index.json, by `audit`": Case(
        make=indexed("index.json"), read=audited, flips=12, unchecked=TEXT,
        tolerated=dict.fromkeys(("missing", "a folder", "a link to itself", "unreadable"),
                                "shards need no index.json; `audit` says that there is none"),
    ),
    "zip": Case(make=one("images.zip", zipped), read=samples_of_zip, flips=24),
    "list of samples": Case(
        make=listed, read=samples_of_list,
        tolerated={"cut by a byte": "the end of the last line"},
    ),
    "captions.json of a folder": Case(
        make=one("captions.json", COCO.encode()), unchecked=TEXT,
        read=lambda folder: read_caption_file(folder / "captions.json"),
    ),
    "captions.txt of a folder": Case(
        make=one("captions.txt", b"image,caption\na.jpg,a field\nb.jpg,a red field\n"), unchecked=TEXT,
        read=lambda folder: read_caption_file(folder / "captions.txt"),
        tolerated=dict.fromkeys(("cut in half", "cut by a byte"), "a list that ends early is a shorter list"),
    ),
    "caption .json": Case(make=JSON_CAPTIONS[0], read=JSON_CAPTIONS[1], unchecked=ANY_TEXT),
    "caption .txt": Case(
        make=TEXT_CAPTIONS[0], read=TEXT_CAPTIONS[1], unchecked=ANY_TEXT,
        tolerated=dict.fromkeys(("cut to a tenth", "cut in half", "cut by a byte", "noise", "another text"), ANY_TEXT),
    ),
    **{
        f"image {name}": Case(
            make=one(f"a.{name}", image_bytes(3, kind=kind, mode=mode)), read=picture, unchecked=PIXELS, flips=16,
            tolerated={"cut by a byte": "the last byte of the marker or padding that ends a picture"},
        )
        for name, (kind, mode) in IMAGES.items()
    },
    **{
        f"video {kind}": Case(
            make=one(f"clip.{kind}", video(kind)), read=frames_of(kind), unchecked=PIXELS,
            tolerated=dict.fromkeys(("cut in half", "cut by a byte"), "what is left of a video that can be played to "
                                    "where it is cut; frames are chosen among those that are there"),
        )
        for kind in ("mp4", "avi", "mkv")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_said(name, specimens, tmp_path):
    assert problems_of(CASES[name], specimens, tmp_path) == []


@pytest.mark.parametrize(("kind", "place"), [("PNG", 16), ("PNG", 20), ("BMP", 18), ("BMP", 22)])
def test_a_picture_without_pixels_is_refused(kind, place):
    """A width or height of 0; PNG's checksum of the header is made right again."""
    content = bytearray(image_bytes(1, kind=kind))
    content[place : place + 4] = bytes(4)
    if kind == "PNG":
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match="here: the image cannot be decoded"):
        decode(bytes(content), "here")
