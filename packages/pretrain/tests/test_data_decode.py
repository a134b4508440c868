"""Decoding by libjpeg-turbo against Pillow: the same pixels, and views that differ by a stated little."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from unveil_pretrain.data import decode as decoding
from unveil_pretrain.data.crops import CropBox
from unveil_pretrain.data.decode import decode, decode_crop
from unveil_pretrain.errors import DataError

PACK = Path(os.environ.get("UNVEIL_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data" / "pack")


def picture(height, width, seed=0):
    """Smooth waves with a little noise, as photographs have."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [np.sin(a * rows + b * columns + c) * 110 + 128 for a, b, c in rng.uniform(0, 25, (3, 3))]
    noisy = np.stack(planes, -1) + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def view_by_pillow(data, target, box):
    """Crop, then resize, as torchvision's RandomResizedCrop does."""
    image = Image.fromarray(by_pillow(data))
    crop = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    view = crop.resize((target[1], target[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if box.flip else view)).permute(
        2, 0, 1
    )


def whole(size):
    return CropBox(0, 0, size[1], size[0], False)


def difference(data, target, box):
    ours = decode_crop(data, "w", target, lambda size: box)
    assert ours.dtype == torch.uint8
    assert ours.is_contiguous()
    return (ours.int() - view_by_pillow(data, target, box).int()).abs().float()


@pytest.mark.parametrize("options", [
    {"quality": 95, "subsampling": 0}, {"quality": 75, "subsampling": 2}, {"quality": 90, "subsampling": 1},
    {"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True},
])  # fmt: skip
@pytest.mark.parametrize("size", [(57, 83), (8, 8), (1, 1)])
def test_jpeg_pixels_are_those_of_pillow(size, options):
    data = encoded(picture(*size), **options)
    assert simplejpeg.is_jpeg(data)
    assert np.array_equal(decode(data, "w"), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_four_colour_jpeg_are_those_of_pillow(mode):
    data = encoded(picture(40, 30).convert(mode))
    assert np.array_equal(decode(data, "w"), by_pillow(data))


def test_bytes_after_the_end_are_no_fault():
    data = encoded(picture(20, 20)) + b"trailing"
    assert np.array_equal(decode(data, "w"), by_pillow(data))


@pytest.mark.parametrize("data", [encoded(picture(64, 64))[:700], b"\xff\xd8\xff nothing", b"\xff\xd8\xff"])
def test_a_broken_jpeg_is_named(data):
    for read in (lambda: decode(data, "a.tar: k"), lambda: decode_crop(data, "a.tar: k", (8, 8), whole)):
        with pytest.raises(DataError, match=r"a\.tar: k: the image cannot be decoded"):
            read()


@pytest.mark.parametrize("target", [(64, 64), (48, 96), (200, 200)])
@pytest.mark.parametrize("flip", [False, True])
def test_views_are_those_of_crop_and_resize(target, flip):
    data = encoded(picture(150, 190), subsampling=2)
    for box in (CropBox(0, 0, 190, 150, flip), CropBox(31, 17, 120, 101, flip), CropBox(3, 140, 1, 9, flip)):
        found = difference(data, target, box)
        assert found.mean() <= 0.3
        assert found.max() <= 8


def test_views_of_other_formats_are_those_of_crop_and_resize():
    data = encoded(picture(90, 120), "PNG")
    found = difference(data, (32, 32), CropBox(11, 7, 80, 70, True))
    assert found.mean() <= 0.3
    assert found.max() <= 8


@pytest.mark.parametrize(("side", "factor"), [(130, 2), (270, 4), (530, 8)])
def test_large_crops_are_decoded_at_a_fraction_and_not_shifted(monkeypatch, side, factor):
    decoded = []
    original = simplejpeg.decode_jpeg

    def spy(*args, **kwargs):
        decoded.append(original(*args, **kwargs))
        return decoded[-1]

    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", spy)
    data = encoded(picture(side + 40, side + 51, seed=3), quality=92)
    for left, top in ((1, 3), (5, 2), (7, 7), (50, 39)):
        found = difference(data, (32, 32), CropBox(left, top, side, side, False))
        assert decoded.pop().shape[:2] == (-(-(side + 40) // factor), -(-(side + 51) // factor))
        assert found.mean() <= 0.7
        assert found.max() <= 8


def test_rounded_edges_would_be_noticed(monkeypatch):
    """The trap: an integer box after scaling shifts the view."""
    resize = Image.Image.resize

    def rounded(self, size, resample=None, box=None, **options):
        box = None if box is None else tuple(float(int(edge)) for edge in box)
        return resize(self, size, resample, box, **options)

    data = encoded(picture(310, 321, seed=3), quality=92)
    box = CropBox(7, 7, 270, 270, False)
    expected = view_by_pillow(data, (32, 32), box)
    monkeypatch.setattr(Image.Image, "resize", rounded)
    shifted = decode_crop(data, "w", (32, 32), lambda size: box)
    assert (shifted.int() - expected.int()).abs().float().mean() > 0.7


@pytest.mark.data
@pytest.mark.skipif(not PACK.is_dir(), reason=f"no real-image pack at {PACK}; set UNVEIL_DATA")
def test_photographs_differ_from_the_path_of_pillow_by_little():
    files = [
        *sorted((PACK / "imagenet1k_fullres").rglob("*.JPEG")),
        *sorted((PACK / "caltech101").rglob("*.jpg"))[::20],
    ]
    assert len(files) > 40
    means, largest, rng = [], 0.0, np.random.default_rng(0)
    for file in files:
        data = file.read_bytes()
        height, width = by_pillow(data).shape[:2]
        side = int(min(height, width) * rng.uniform(0.5, 1))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        found = difference(data, (224, 224), CropBox(left, top, side, side, False))
        means.append(float(found.mean()))
        largest = max(largest, float(found.max()))
    assert np.mean(means) <= 0.1
    assert max(means) <= 0.5
    assert largest <= 12
