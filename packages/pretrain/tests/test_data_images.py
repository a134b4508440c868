"""Decoding to RGB, stateless crops, and captions."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unveil_pretrain.data.crops import check_crop_scale, random_crop_box
from unveil_pretrain.data.images import center_crop, check_image_size, load_image, to_tensor, train_view
from unveil_pretrain.data.streams import draw_block, draws
from unveil_pretrain.errors import ConfigError, DataError


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gradient(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 255 // height, columns * 255 // width, 0 * rows], -1).astype(np.uint8))


def test_every_mode_becomes_rgb():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    cases = {
        "gray": (encoded(Image.new("L", (2, 1), 77)), [77, 77, 77]),
        "alpha": (encoded(Image.new("RGBA", (2, 1), (1, 2, 3, 128))), [1, 2, 3]),
        "gray and alpha": (encoded(Image.new("LA", (2, 1), (9, 5))), [9, 9, 9]),
        "palette": (encoded(palette), [10, 20, 30]),
        "transparent palette": (encoded(palette, transparency=bytes([0, 255])), [10, 20, 30]),
        "one bit": (encoded(Image.new("1", (2, 1), 1)), [255, 255, 255]),
        "16 bit": (encoded(Image.fromarray(np.full((1, 2), 0x8040, dtype=np.uint16))), [128, 128, 128]),
    }
    for name, (data, expected) in cases.items():
        image = load_image(data, "s.tar: k")
        assert image.mode == "RGB", name
        assert list(image.getpixel((0, 0))) == expected, name


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data, "s.tar: k").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", encoded(gradient(64, 64), "JPEG")[:700], encoded(gradient(64, 64))[:-60]],
    ids=["empty", "text", "cut JPEG", "cut PNG"],
)
def test_a_broken_image_is_named(data):
    with pytest.raises(DataError, match=r"train-3\.tar: 0042: the image cannot be decoded") as caught:
        load_image(data, "train-3.tar: 0042")
    assert "\n" not in str(caught.value)


def test_float_images_are_refused():
    data = encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match="convert the image to 8 bits"):
        load_image(data, "s.tar: k")


@settings(deadline=None, max_examples=100)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    sample_id=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
)
def test_crops_lie_inside_the_image(size, target, sample_id, epoch):
    box = random_crop_box(size, target, seed=1, epoch=epoch, sample_id=sample_id)
    assert box.width >= 1
    assert box.height >= 1
    assert 0 <= box.left <= size[1] - box.width
    assert 0 <= box.top <= size[0] - box.height


def test_crops_have_the_stated_area_and_shape():
    boxes = [random_crop_box((600, 600), (64, 64), seed=0, epoch=0, sample_id=number) for number in range(400)]
    areas = np.array([box.width * box.height / 600**2 for box in boxes])
    shapes = np.array([box.width / box.height for box in boxes])
    assert 0.665 < areas.min() < 0.68
    assert 0.95 < areas.max() <= 1.0
    assert 0.745 < shapes.min() < 0.8
    assert 1.25 < shapes.max() < 1.34
    assert 0.4 < np.mean([box.flip for box in boxes]) < 0.6


def test_the_scale_bounds_the_area():
    def areas(*scale):
        numbers = range(200)
        boxes = [random_crop_box((500, 500), (8, 8), scale=scale, seed=0, epoch=0, sample_id=n) for n in numbers]
        return np.array([box.width * box.height / 500**2 for box in boxes])

    assert 0.19 < areas(0.2, 1.0).min() < 0.25
    assert np.allclose(areas(0.5, 0.5), 0.5, atol=0.01)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (float("nan"), 1.0)])
def test_areas_must_be_shares(scale):
    with pytest.raises(ConfigError, match=r"crop_scale is .*0\.2 1"):
        check_crop_scale(scale)


@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    sample_id=st.integers(0, 2**63 - 1),
    block=st.integers(0, 2**30 - 1),
)
def test_a_block_of_draws_is_the_noise_of_masks(seed, epoch, sample_id, block):
    assert draw_block(seed, epoch, sample_id, 4 * block) == tuple(draws(seed, epoch, sample_id, 4 * block, 4))


def test_a_crop_follows_the_shape_of_a_rectangular_target():
    boxes = [random_crop_box((300, 600), (64, 128), seed=0, epoch=0, sample_id=number) for number in range(50)]
    assert all(1.49 < box.width / box.height < 2.68 for box in boxes)


def test_crops_are_keyed_by_seed_epoch_and_sample():
    def box(**changed):
        return random_crop_box((90, 120), (64, 64), **({"seed": 0, "epoch": 0, "sample_id": 7} | changed))

    assert box() == box()
    assert len({box(), box(seed=1), box(epoch=1), box(sample_id=8)}) == 4


def view_of(image, target, kind="PNG", **changed):
    options = {"mirror": True, "seed": 0, "epoch": 0, "sample_id": 0} | changed
    return train_view(encoded(image, kind), "s.tar: k", target, **options)


def test_a_mirrored_view_is_the_plain_view_turned_over():
    image = gradient(40, 60)
    flipped = next(i for i in range(50) if random_crop_box((40, 60), (32, 32), seed=0, epoch=0, sample_id=i).flip)
    mirrored = view_of(image, (32, 32), sample_id=flipped)
    plain = view_of(image, (32, 32), sample_id=flipped, mirror=False)
    assert torch.equal(mirrored, plain.flip(-1))
    assert not torch.equal(mirrored, plain)


@pytest.mark.parametrize("size", [(64, 64), (30, 200), (200, 30), (1, 1)])
@pytest.mark.parametrize("target", [(64, 64), (32, 96)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_both_views_have_the_target_size(size, target, kind):
    image = Image.new("RGB", (size[1], size[0]), (7, 7, 7))
    expected = (3, *target)
    assert to_tensor(center_crop(image, target)).shape == expected
    view = view_of(image, target, kind)
    assert view.shape == expected
    assert view.dtype == torch.uint8
    assert view.is_contiguous()
    assert view[:, 0, 0].tolist() == [7, 7, 7]


def test_the_centre_crop_keeps_the_middle():
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = 200
    view = to_tensor(center_crop(Image.fromarray(pixels), (8, 8)))
    assert (view == 200).all()


@pytest.mark.parametrize("size", [(64,), (0, 64), (64, 64, 3)])
def test_image_sizes_are_checked(size):
    with pytest.raises(ConfigError, match="height and width"):
        check_image_size(size)
