"""Two validation losses may be compared only if their passports agree; a difference is named."""

import hashlib
from dataclasses import fields, replace

import pytest
from unveil_backbones import Passport
from unveil_backbones.errors import ManifestError
from unveil_backbones.passport import ValPoint

CHANGES = {
    "objective": "mae",
    "target_normalisation": "none",
    "reduction": "samples",
    "realised_ratio": 0.6,
    "mask_seed": 1,
    "mask_epoch": 1,
    "image_size": (64, 96),
    "crop": "center0.875",
    "images_hash": "other",
    "negative_pool": 64,
    "dtype": "bfloat16",
    "num_masks": 4,
}


def test_equal_passports_agree(passport):
    again = replace(passport, mask=dict(reversed(passport.mask.items())))
    assert passport.first_difference(again) is None
    assert passport.hash == again.hash


def test_hash_is_that_of_the_sorted_json(passport):
    text = (
        '{"crop":"center","dtype":"float32","image_size":[64,64],"images_hash":"abc",'
        '"mask":{"ratio":0.6,"rounding":"ceil_hidden","strategy":"unit","unit":8},"mask_epoch":0,"mask_seed":0,'
        '"negative_pool":0,"objective":"simmim","realised_ratio":0.611,"reduction":"hidden_pixels",'
        '"target_normalisation":"window47"}'
    )
    assert passport.hash == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_every_field_counts_and_is_named(passport, name, value):
    other = replace(passport, **{name: value})
    assert passport.first_difference(other) == name
    assert other.first_difference(passport) == name
    assert passport.hash != other.hash


def test_no_field_is_forgotten_above():
    assert {field.name for field in fields(Passport)} == {*CHANGES, "mask"}


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        ({"unit": 4}, "mask.unit"),
        ({"ratio": 0.5, "unit": 4}, "mask.ratio"),
        ({"extra": None}, "mask.extra"),
    ],
)
def test_differences_between_masks_are_named_inside(passport, mask, name):
    assert passport.first_difference(replace(passport, mask={**passport.mask, **mask})) == name


def test_the_first_of_several_differences_is_named(passport):
    assert passport.first_difference(replace(passport, dtype="float16", mask_seed=7)) == "mask_seed"


def test_json_keeps_everything(passport):
    assert Passport.from_json(passport.to_json()) == passport


def test_a_single_mask_is_not_written_so_that_older_passports_keep_their_hash(passport):
    assert "num_masks" not in passport.to_json()
    assert Passport.from_json(passport.to_json()).num_masks == 1
    several = replace(passport, num_masks=4)
    assert several.to_json() == {**passport.to_json(), "num_masks": 4}
    assert Passport.from_json(several.to_json()) == several


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_masks": 2.0}, r"num_masks is 2.0; it has to be an integer"),
        ({"mask_seed": 1.5}, r"passport.mask_seed is 1.5; it has to be an integer"),
        ({"mask_seed": True}, r"mask_seed is True; it has to be an integer"),
        ({"realised_ratio": "x"}, r"realised_ratio is 'x'; it has to be a finite number"),
        ({"mask": []}, r"passport.mask is \[\]; it has to be a JSON object"),
        ({"dtype": None}, r"dtype is None; it has to be a string"),
        ({"image_size": [1, 2, 3]}, r"a list of 2 items"),
        ({"colour": 1}, r"unknown fields \['colour'\]; upgrade"),
    ],
)
def test_malformed_passports_are_refused(passport, change, message):
    with pytest.raises(ManifestError, match=message):
        Passport.from_json({**passport.to_json(), **change})


def test_points_of_the_curve_keep_everything():
    for point in (
        ValPoint(step=3, loss=0.5, standard_error=0.1, num_images=4),
        ValPoint(step=3, loss=1.0, standard_error=0.1, num_images=4, train_loss=0.25),
    ):
        assert ValPoint.from_json(point.to_json()) == point
