"""Any image file becomes RGB pixels, or an error that names it."""

import numpy as np
import pytest
from PIL import Image
from unveil_evalharness.compat.images import LoadRgb, read_rgb
from unveil_evalharness.errors import DataError


def test_every_mode_becomes_rgb(tmp_path):
    colour = np.zeros((5, 7, 3), np.uint8)
    colour[..., 0], colour[..., 1], colour[..., 2] = 200, 100, 50
    image = Image.fromarray(colour)
    image.convert("RGBA").save(tmp_path / "a.png")
    image.convert("P", dither=Image.Dither.NONE).save(tmp_path / "p.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), colour)
    # A palette of 216 web colours holds 204, 102, 51.
    assert np.abs(read_rgb(tmp_path / "p.png").astype(int) - colour).max() <= 4
    grey = Image.fromarray(np.full((5, 7), 93, np.uint8))
    for mode in ("L", "LA"):
        grey.convert(mode).save(tmp_path / f"{mode}.png")
        assert np.array_equal(read_rgb(tmp_path / f"{mode}.png"), np.full((5, 7, 3), 93))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_rgb(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_a_transparent_palette_does_not_warn(tmp_path):
    image = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    image.save(tmp_path / "t.png", transparency=bytes([0, 128]))
    assert read_rgb(tmp_path / "t.png").shape == (4, 4, 3)


@pytest.mark.parametrize("damage", ["truncate", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    content = {"truncate": path.read_bytes()[:900], "empty": b"", "text": b"not an image"}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot decode the image .*x\.jpg.*replace it") as caught:
        read_rgb(path)
    assert "\n" not in str(caught.value)


def test_a_size_other_than_the_annotated_one_is_refused(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    load = LoadRgb()
    filled = load({"img_path": str(tmp_path / "x.png"), "height": 20, "width": 30})
    assert filled["img"].shape == (20, 30, 3)
    assert filled["ori_shape"] == filled["img_shape"] == (20, 30)
    with pytest.raises(DataError, match=r"x\.png has 30 x 20 pixels but its annotation file says 20 x 30"):
        load({"img_path": str(tmp_path / "x.png"), "height": 30, "width": 20})
