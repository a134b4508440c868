"""Drawn predictions: sizes, colours, what is refused, and a choice of examples that cannot see the outcome."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unveil_evalharness.gallery import (
    PALETTE,
    captioned,
    choose,
    class_palette,
    draw_boxes,
    draw_masks,
    draw_segmentation,
    fitted,
    legend,
    retrieval_strip,
    side_by_side,
    to_picture,
)
from unveil_evalharness.gallery.colours import ink_on
from unveil_evalharness.gallery.picture import MAX_BYTES, MAX_SIDE

GREY = np.full((100, 200, 3), 128, dtype=np.uint8)


def has(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == np.array(colour)).all(-1)


def test_a_box_is_drawn_where_it_is_scaled_with_the_image() -> None:
    drawn = draw_boxes(GREY, [[20, 10, 120, 60]], side=100)
    assert drawn.size == (100, 50)
    rows, columns = np.nonzero(has(drawn, PALETTE[0]))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 60, 5, 30)
    assert not has(drawn, PALETTE[0])[15, 35]  # its inside is left alone


@pytest.mark.parametrize(
    "box", [(-50, -50, 900, 900), (150, 90, 20, 10), (float("nan"), 0, 5, 5), (300, 300, 400, 400)]
)
def test_boxes_outside_the_image_or_inside_out_are_no_error(box) -> None:
    assert draw_boxes(GREY, [box], ["far"], scores=[0.5]).size == (360, 180)


def test_labels_must_be_as_many_as_boxes() -> None:
    with pytest.raises(ValueError, match="1 instances but 2 labels"):
        draw_boxes(GREY, [[0, 0, 5, 5]], ["a", "b"])


def test_a_mask_is_tinted_outlined_and_an_empty_one_left_out() -> None:
    masks = np.zeros((2, 100, 200), dtype=bool)
    masks[0, 20:60, 40:120] = True
    drawn = draw_masks(GREY, masks, ["a", "b"], side=200)
    inside = np.asarray(drawn)[40, 80].astype(int)
    assert inside == pytest.approx(0.55 * 128 + 0.45 * np.array(PALETTE[0]), abs=2)
    assert has(drawn, PALETTE[0])[20, 80]
    assert not has(drawn, PALETTE[1]).any()
    with pytest.raises(ValueError, match="do not fit"):
        draw_masks(Image.fromarray(GREY), masks[:, :50])


def test_a_label_map_paints_classes_and_leaves_ignored_pixels_bare() -> None:
    labels = np.zeros((100, 200), dtype=np.uint8)
    labels[:, 100:] = 255
    palette = np.array([[200, 0, 0]], dtype=np.uint8)
    drawn = np.asarray(draw_segmentation(GREY, labels, palette, side=200)).astype(int)
    assert drawn[50, 50] == pytest.approx([0.4 * 128 + 0.6 * 200, 0.4 * 128, 0.4 * 128], abs=2)
    assert tuple(drawn[50, 150]) == (128, 128, 128)
    assert tuple(drawn[50, 99]) == (255, 255, 255)  # the edge between them
    with pytest.raises(ValueError, match="the palette only 1 colours"):
        draw_segmentation(GREY, np.ones((100, 200), dtype=np.uint8), palette)
    with pytest.raises(ValueError, match="does not fit"):
        draw_segmentation(Image.fromarray(GREY), labels[:50])


def test_an_image_without_any_class_is_drawn() -> None:
    assert draw_segmentation(GREY, np.full((100, 200), 255, dtype=np.uint8)).size == (360, 180)


@pytest.mark.parametrize("num_classes", [0, 7, 21, 150, 365])
def test_classes_have_colours_of_their_own(num_classes) -> None:
    palette = class_palette(num_classes)
    assert palette.shape == (num_classes, 3)
    assert len({tuple(colour) for colour in palette.tolist()}) == num_classes
    assert [tuple(colour) for colour in palette[:7].tolist()] == list(PALETTE[: min(7, num_classes)])


def test_labels_can_be_read_on_every_colour() -> None:
    def luminance(colour) -> float:
        channels = np.array(colour) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in PALETTE:
        light, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def test_hits_and_misses_differ_in_colour_and_mark() -> None:
    strips = [retrieval_strip("a dog", [GREY, "a cat"], marks) for marks in ([True, False], [False, True])]
    assert strips[0].size == strips[1].size
    assert has(strips[0], PALETTE[0]).any()
    assert has(strips[0], PALETTE[5]).any()
    assert np.asarray(strips[0]).tolist() != np.asarray(strips[1]).tolist()
    with pytest.raises(ValueError, match="zip"):
        retrieval_strip("a dog", [GREY], [True, False])


def test_images_stand_side_by_side_under_their_titles() -> None:
    row = side_by_side([GREY, GREY], ["truth", "prediction"])
    assert row.width == 2 * 200 + 8
    assert row.height > 100
    with pytest.raises(ValueError, match="at least one image"):
        side_by_side([])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_any_mode_are_drawn_on(mode) -> None:
    image = Image.new(mode, (30, 20))
    assert draw_boxes(image, [[1, 1, 9, 9]]).mode == "RGB"


def test_tiny_and_long_images_fit() -> None:
    assert fitted(np.zeros((1, 1, 3), dtype=np.uint8)).size == (2, 2)
    assert fitted(np.zeros((1, 5000, 3), dtype=np.uint8)).size == (360, 1)


def test_captions_and_keys_wrap() -> None:
    assert captioned(GREY, "  ").size == (200, 100)
    one, three = (captioned(GREY, "word " * count).height for count in (1, 200))
    assert one < three <= 100 + 3 * 17 + 4
    short, long = (legend(["class"] * count, [PALETTE[0]] * count).height for count in (1, 30))
    assert short < long


def test_a_picture_is_small_and_says_what_it_shows() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2000, 3000, 3), dtype=np.uint8)
    picture = to_picture(noise, " a\ncat ", "good")
    with Image.open(io.BytesIO(picture.encoded)) as image:
        assert image.format == "JPEG"
        assert max(image.size) == MAX_SIDE
    assert len(picture.encoded) <= MAX_BYTES * 1.5
    assert (picture.caption, picture.outcome) == ("a cat", "good")
    assert to_picture(GREY).encoded == to_picture(GREY).encoded


names = st.lists(st.text(max_size=5), max_size=30)


@given(names, st.integers(0, 9), st.integers(0, 12))
def test_a_choice_depends_on_names_and_seed_alone(keys, seed, number) -> None:
    chosen = choose(keys, seed=seed, number=number)
    assert len(chosen) == min(number, len(keys))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(choose(keys, seed=seed, number=number + 1))
    backwards = choose(keys[::-1], seed=seed, number=number)
    assert sorted(keys[::-1][index] for index in backwards) == sorted(keys[index] for index in chosen)


def test_choices_are_even_and_change_with_the_seed() -> None:
    keys = [f"image{index}" for index in range(200)]
    picks = [set(choose(keys, seed=seed, number=20)) for seed in range(50)]
    assert len({frozenset(pick) for pick in picks}) == 50
    counts = np.bincount([index for pick in picks for index in pick], minlength=200)
    assert counts.max() <= 16  # binomial with mean 5: beyond 16 has probability below 1e-4 for each of 200
