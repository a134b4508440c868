"""Planning and drawing: stateless scenes, source digits that never cross splits, masks that never overlap."""

import numpy as np
import pytest
from unveil_pretrain.scenes.captions import NUM_CAPTIONS, captions_for
from unveil_pretrain.scenes.digits import DIGIT_NAMES, load_digit_bank, split_of
from unveil_pretrain.scenes.layout import COLOURS, POSITIONS, SIZES, Item, Scene, SceneStyle, plan_scene
from unveil_pretrain.scenes.render import render
from unveil_pretrain.scenes.textures import TEXTURES, texture

pytest.importorskip("sklearn")

BUSY = SceneStyle(height=96, width=128, min_items=2, max_items=5, crowd_share=0.3, divided_share=0.5)
PLAIN = SceneStyle(height=64, width=64, min_items=1, max_items=2)


@pytest.fixture(scope="module")
def bank():
    return load_digit_bank("train")


def item(**changed):
    plain = {
        "digit": 3,
        "source": 0,
        "colour": "red",
        "size": "large",
        "position": "top left",
        "height": 30.0,
        "centre": (16.0, 16.0),
        "tilt": 0.0,
    }
    return Item(**(plain | changed))


def test_train_and_val_share_no_source_digit():
    from sklearn.datasets import load_digits

    train, val = load_digit_bank("train"), load_digit_bank("val")
    drawings = [{image.tobytes() for image in bank.images} for bank in (train, val)]
    assert not drawings[0] & drawings[1]
    assert len(train.labels) + len(val.labels) == len(load_digits().target) == 1797
    assert 0.2 < len(val.labels) / 1797 < 0.3
    for bank in (train, val):
        assert np.bincount(bank.labels).min() > 30
    assert split_of(b"one drawing") == split_of(b"one drawing")


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {
        (image.astype(int) * 255 // 16).astype(np.uint8).tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    bank = load_digit_bank("val")
    assert all(known[image.tobytes()] == label for image, label in zip(bank.images, bank.labels, strict=True))


def test_a_scene_is_a_function_of_its_coordinates(bank):
    def plan(**changed):
        return plan_scene(BUSY, bank, **({"seed": 0, "stream": "coco/train", "index": 5} | changed))

    assert plan() == plan()
    others = [plan(), plan(seed=1), plan(stream="coco/val"), plan(index=6)]
    assert len({scene.entropy for scene in others}) == 4
    first, again = render(plan(), bank), render(plan(), bank)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks, again.masks)


def test_plans_keep_to_their_style(bank):
    scenes = [plan_scene(BUSY, bank, seed=0, stream="s", index=index) for index in range(150)]
    loose = [[i for i in scene.items if not i.crowd] for scene in scenes]
    assert {len(items) for items in loose} >= {2, 3, 4, 5}
    assert 0.15 < np.mean([any(i.crowd for i in scene.items) for scene in scenes]) < 0.45
    assert 0.35 < np.mean([len(scene.textures) == 2 for scene in scenes]) < 0.65
    for scene, items in zip(scenes, loose, strict=True):
        assert len({i.position for i in items}) == len(items)
        for i in items:
            assert bank.labels[i.source] == i.digit
            assert SIZES[i.size][0] <= i.height / 96 <= SIZES[i.size][1]
            assert i.height / 2 <= i.centre[0] <= scene.width - i.height / 2
            assert i.height / 2 <= i.centre[1] <= scene.height - i.height / 2
    seen = [i for items in loose for i in items]
    assert {i.digit for i in seen} == set(range(10))
    assert {i.colour for i in seen} == set(COLOURS)
    assert {i.position for i in seen} == set(POSITIONS)
    assert {kind for scene in scenes for kind in scene.textures} == set(TEXTURES)


def test_a_labelled_scene_has_one_dominant_digit(bank):
    style = SceneStyle(height=64, width=64, min_items=1, max_items=2, dominant=True)
    for index in range(20):
        scene = plan_scene(style, bank, seed=0, stream="imagenet/train", index=index, label=index % 10)
        assert scene.items[0].digit == index % 10
        assert scene.items[0].size == "huge"
        assert all(other.height < 0.5 * scene.items[0].height for other in scene.items[1:])


def test_masks_are_the_visible_pixels(bank):
    for index in range(25):
        scene = plan_scene(BUSY, bank, seed=1, stream="s", index=index)
        drawn = render(scene, bank)
        assert drawn.image.shape == (96, 128, 3)
        assert drawn.image.dtype == np.uint8
        assert drawn.masks.shape == (len(scene.items), 96, 128)
        assert drawn.masks.sum(axis=0).max() == 1
        for number, i in enumerate(scene.items):
            if not i.crowd:
                assert drawn.masks[number].any()
        assert set(np.unique(drawn.background)) <= set(range(len(scene.textures)))


def test_what_is_in_front_hides_what_is_behind(bank):
    one = int(bank.of_class(1)[0])
    both = [item(source=one, centre=(32.0, 32.0), height=30.0), item(source=one, centre=(32.0, 32.0), height=30.0)]
    scene = Scene(height=64, width=64, textures=("noise",), items=tuple(both), entropy=1)
    masks = render(scene, bank).masks
    assert not masks[0].any()
    assert masks[1].any()


def test_digits_are_drawn_in_their_colour_place_and_size(bank):
    source = int(bank.of_class(8)[0])
    for colour, rgb in COLOURS.items():
        placed = item(digit=8, source=source, colour=colour, height=30.0, centre=(40.0, 24.0))
        drawn = render(Scene(height=64, width=64, textures=("checks",), items=(placed,), entropy=2), bank)
        mask = drawn.masks[0]
        mean = drawn.image[mask].mean(axis=0) / 255
        assert np.abs(mean - rgb).max() < 0.15, colour
        rows, columns = np.nonzero(mask)
        assert abs(rows.mean() - 24) < 4
        assert abs(columns.mean() - 40) < 4
        assert 25 <= np.ptp(rows) + 1 <= 34


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_are_muted_varied_and_not_flat(kind):
    pictures = [texture(kind, 48, 80, np.random.default_rng(seed)) for seed in range(6)]
    for picture in pictures:
        assert picture.shape == (48, 80, 3)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        assert picture.std(axis=(0, 1)).max() > 0.03
        assert (picture.max(axis=-1) - picture.min(axis=-1)).mean() < 0.35  # little saturation
    assert not np.allclose(pictures[0], pictures[1])


def test_an_unknown_texture_is_named():
    with pytest.raises(ValueError, match=r"'plaid' is unknown; choose one of stripes"):
        texture("plaid", 32, 32, np.random.default_rng(0))


def test_captions_name_everything():
    small = item(digit=7, colour="blue", size="small", position="centre", height=15.0)
    scene = Scene(height=64, width=64, textures=("stripes",), items=(small, item()), entropy=0)
    captions = captions_for(scene)
    assert (
        captions[0] == "a large red three at the top left and a small blue seven in the centre on a striped background"
    )
    assert len(set(captions)) == NUM_CAPTIONS == 5
    for caption in captions:
        for word in ("red", "blue", "top left", "centre"):
            assert word in caption
        assert "strip" in caption
        assert "three" in caption or "3" in caption
        assert "large" in caption or "big" in caption


def test_captions_are_words_for_every_scene_and_mostly_unique(bank):
    scenes = [plan_scene(PLAIN, bank, seed=0, stream="pairs/train", index=index) for index in range(300)]
    first = [captions_for(scene)[0] for scene in scenes]
    assert len(set(first)) > 290
    assert max(len(caption.split()) for caption in first) <= 24
    crowded = [plan_scene(BUSY, bank, seed=0, stream="s", index=index) for index in range(40)]
    assert all(len(set(captions_for(scene))) == 5 for scene in crowded)
    assert all(any(name in caption for name in DIGIT_NAMES) for caption in first)
