"""Decompression bombs: refused by name before memory is reserved, on every way from bytes to pixels."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image
from unveil_backbones.errors import ConfigError
from unveil_backbones.limits import DEFAULT_MAX_PIXELS, PIXELS_VARIABLE, max_image_pixels, parse_json

READERS = """
import sys, warnings
from pathlib import Path
from unveil_pretrain.data.decode import decode, decode_crop
from unveil_pretrain.data.crops import CropBox
from unveil_evalharness.compat.images import read_rgb
from unveil_evalharness.tasks.imagenet_ft.data import open_image
from unveil_evalharness.tasks.zs_retrieval.data import CaptionedImage
from unveil_evalharness.tasks.ade20k_seg.layout import Pair, read_labels
from unveil_masking import Grid
from unveil_masking.show.picture import read_picture

def peak():
    # Not ru_maxrss, which a process inherits from its parent.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

def box(size):
    return CropBox(top=0, left=0, height=size[0], width=size[1], flip=False)

def labels(path):
    return read_labels(Pair(name="x", image=path, labels=path))

readers = {
    "decode": lambda path: decode(path.read_bytes(), "here"),
    "decode_crop": lambda path: decode_crop(path.read_bytes(), "here", (32, 32), box),
    "read_rgb": read_rgb,
    "open_image": open_image,
    "captioned": lambda path: CaptionedImage(key="x", encoded=path.read_bytes(), captions=("x",), where="x").decode(),
    "labels": labels,
    "show": lambda path: read_picture(path, Grid(2, 2), 8),
}
warnings.simplefilter("ignore")
small = peak()
for name, reader in readers.items():
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            reader(path)
        except ValueError as error:
            print(name, path.name, type(error).__name__, " ".join(str(error).split())[:300], sep="\\t")
        else:
            print(name, path.name, "", "", sep="\\t")
print("grown", peak() - small, sep="\\t")
"""


def test_every_reader_refuses_every_bomb_within_little_memory(bombs):
    done = subprocess.run([sys.executable, "-c", READERS, str(bombs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    grown = int(lines.pop()[1])
    assert len(lines) == 7 * 8
    passed = [line[:2] for line in lines if not line[2]]
    assert passed == [], passed
    named = {"DataError", "PictureError"}
    assert {line[2] for line in lines} <= named
    # One of the images alone would take ten gigabytes; Pillow reads text chunks up to 64 MiB before it gives up.
    assert grown < 300, f"{grown} MiB for files of {sum(file.stat().st_size for file in bombs.iterdir())} bytes"
    told = [line[3] for line in lines if line[0] in ("decode", "read_rgb") and line[1] in ("png.png", "jpg.jpg")]
    assert all("pixels" in text and PIXELS_VARIABLE in text for text in told), told


def test_the_measurement_notices_memory_that_is_used(tmp_path):
    (tmp_path / "large.png").write_bytes(_png(8000, 8000))
    done = subprocess.run([sys.executable, "-c", READERS, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "decode\tlarge.png\t\t"
    assert int(lines[-1].split("\t")[1]) > 150


def test_the_limit_is_configurable_and_checked(monkeypatch):
    from unveil_evalharness.opening import opened_image
    from unveil_pretrain.data.decode import decode
    from unveil_pretrain.errors import DataError

    assert max_image_pixels({}) == DEFAULT_MAX_PIXELS
    assert max_image_pixels({PIXELS_VARIABLE: "1000000000"}) == 10**9
    for wrong in ("0", "-1", "1e9", "many", "9" * 30, "١"):
        with pytest.raises(ConfigError, match=PIXELS_VARIABLE):
            max_image_pixels({PIXELS_VARIABLE: wrong})
    picture, photograph = _png(64, 64), _jpeg(64, 64)
    for data in (picture, photograph):
        monkeypatch.setenv(PIXELS_VARIABLE, "4095")
        with pytest.raises(DataError, match="pixels, at most 4095"):
            decode(data, "here")
        with pytest.raises((ValueError, OSError), match="4095"), opened_image(data):
            pass
        monkeypatch.setenv(PIXELS_VARIABLE, "4096")
        assert decode(data, "here").shape == (64, 64, 3)
        with opened_image(data) as image:
            assert image.size == (64, 64)
    monkeypatch.delenv(PIXELS_VARIABLE)
    decode(picture, "here")
    assert Image.MAX_IMAGE_PIXELS == DEFAULT_MAX_PIXELS


@pytest.mark.parametrize(
    "start", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", b"\xc5\xd0\xd3\xc6"]
)
def test_postscript_is_no_image_whatever_it_is_called(start, tmp_path, monkeypatch):
    """Pillow would start Ghostscript for it."""
    from unveil_evalharness.compat.images import read_rgb
    from unveil_evalharness.errors import DataError as HarnessDataError
    from unveil_pretrain.data.decode import decode
    from unveil_pretrain.errors import DataError

    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **more: started.append(words))
    data = start + bytes(64)
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(DataError, match="none of JPEG"):
        decode(data, "here")
    with pytest.raises(HarnessDataError):
        read_rgb(tmp_path / "x.jpg")
    assert started == []


def test_a_bomb_among_samples_is_an_unreadable_sample(tmp_path, bombs):
    from unveil_pretrain.data.audit import audit

    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(_png(32, 32))
    (folder / "bad.png").write_bytes((bombs / "png.png").read_bytes())
    report = audit(str(folder))
    assert report.num_faults == 1
    assert "too many pixels, at most 89478485" in repr(report)


def test_deflated_members_of_a_zip_do_not_become_more_than_they_say(tmp_path):
    from unveil_pretrain.data.folder import FolderDataset
    from unveil_pretrain.errors import DataError

    place = tmp_path / "images.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", _png(8, 8))
    good = FolderDataset(str(place))
    assert good.read(0)["png"] == _png(8, 8)
    data = bytearray(place.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    for size, words in ((2**31, "at most"), (2**20, "does not become"), (3, "does not become")):
        data[entry + 24 : entry + 28] = struct.pack("<I", size)
        place.write_bytes(bytes(data))
        with pytest.raises(DataError, match=words):
            FolderDataset(str(place)).read(0)


def test_a_long_video_frame_is_refused(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    from unveil_pretrain.data.clip_decode import read_frames
    from unveil_pretrain.errors import DataError

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for packet in [*video.encode(av.VideoFrame(64, 64, "yuv420p")), *video.encode()]:
            container.mux(packet)
    files = {"mp4": stream.getvalue()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PIXELS_VARIABLE, "4095")
        with pytest.raises(DataError, match="at most 4095"):
            read_frames(files, ["mp4"], "here", lambda num: [0])
        patch.setenv(PIXELS_VARIABLE, "4096")
        assert read_frames(files, ["mp4"], "here", lambda num: [0])[0].shape == (64, 64, 3)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000, "1" * 5_000, "", "{", "nan"]
)
def test_json_without_end_is_a_value_error(text):
    if text == "nan":
        assert parse_json("NaN") != parse_json("NaN")
        return
    with pytest.raises(ValueError, match=r"nested|digits|Expecting|JSON"):
        parse_json(text)


def test_masks_of_coco_cover_their_image_and_nothing_else(tmp_path):
    from unveil_evalharness.errors import DataError
    from unveil_evalharness.tasks.coco_det.outlines import check_outlines, check_sizes

    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    import numpy as np

    path = Path("instances.json")
    images = [{"id": 1, "height": 20, "width": 30, "file_name": "a.jpg"}]
    for seed in range(20):
        pixels = np.asfortranarray(np.random.default_rng(seed).random((20, 30)) < 0.3 + 0.02 * seed, dtype=np.uint8)
        runs = mask.encode(pixels)
        good = {"size": runs["size"], "counts": runs["counts"].decode()}
        check_outlines(path, images, [{"image_id": 1, "segmentation": good}])
    wrong = [
        {"size": [1_000_000, 1_000_000], "counts": [10**12]},
        {"size": [20, 30], "counts": [10**12]},
        {"size": [20, 30], "counts": [599]},
        {"size": [20, 30], "counts": [-5, 605]},
        {"size": [20, 30], "counts": "PPPPPPPPPPPPPPPPPPP"},
        {"size": [20, 30], "counts": None},
        {"size": None, "counts": [600]},
    ]
    for outline in wrong:
        with pytest.raises(DataError, match="run-length mask"):
            check_outlines(path, images, [{"image_id": 1, "segmentation": outline}])
    check_outlines(path, images, [{"image_id": 1, "segmentation": {"size": [20, 30], "counts": [600]}}])
    for size in ({"height": 10**6}, {"height": -1}, {"height": "20"}, {"height": True}):
        with pytest.raises(DataError):
            check_sizes(path, [{**images[0], **size, **({"width": 10**6} if size["height"] == 10**6 else {})}])


def _png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(stream, "PNG")
    return stream.getvalue()


def _jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(stream, "JPEG")
    return stream.getvalue()


def test_a_huge_header_of_safetensors_is_refused(tmp_path):
    from unveil_backbones._files import check_header
    from unveil_backbones.errors import UnsafeFileError

    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", 2**40) + b"{}" + zlib.compress(b""))
    with pytest.raises(UnsafeFileError, match="header"):
        check_header(file)
