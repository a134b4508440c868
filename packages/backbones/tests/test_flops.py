"""Costs against the papers' tables, against PyTorch's counter, and against a formula written here."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_backbones.errors import ImageSizeError, TokenCountError
from unveil_backbones.flops import Cost, block_multiply_adds, count_cost, encoder_cost
from unveil_backbones.hiera_presets import HIERA_PRESETS
from unveil_backbones.pair_presets import PAIR_PRESETS
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin import SwinConfig, clamped_windows
from unveil_backbones.swin_presets import SWIN_PRESETS
from unveil_backbones.vit_presets import VIT_PRESETS

# Width of the first stage; multiply-adds in 1e9 at 224 pixels with window 14, at 192 pixels with window 12.
PAPER = {96: (9.4, 6.7), 128: (16.3, 11.8), 192: (35.8, 26.0), 352: (117.6, 85.8), 448: (189.3, 138.3)}
ROUNDING = 0.05  # the table has one decimal


def study(width, image, window):
    windows = (window,) * 4
    return SwinConfig(
        image_size=(image, image),
        width=width,
        depths=(2, 2, 18, 2),
        num_heads=tuple(width * 2**stage // 32 for stage in range(4)),
        window_sizes=windows,
        pretrained_window_sizes=clamped_windows((image, image), 4, windows),
    )


def agrees(cost: Cost, table: float) -> bool:
    return abs(cost.multiply_adds / 1e9 - table) <= 0.005 * table + ROUNDING


@pytest.mark.parametrize("width", PAPER)
def test_swin_costs_are_those_of_the_data_scaling_study(width):
    for (image, window), table in zip(((224, 14), (192, 12)), PAPER[width], strict=True):
        assert agrees(encoder_cost(study(width, image, window)), table)


def test_a_wrong_window_or_depth_does_not_agree_with_the_study():
    assert not agrees(encoder_cost(study(448, 224, 7)), PAPER[448][0])
    assert not agrees(encoder_cost(replace(study(128, 224, 14), depths=(2, 2, 17, 2))), PAPER[128][0])


@pytest.mark.parametrize(("masked", "table"), [(0.5, 0.52), (0.75, 0.28)])
def test_flip_saves_what_its_table_says(masked, table):
    # FLIP, table 1a: L/16; the text tower costs 4.4 % of the unmasked image tower.
    config = VIT_PRESETS["vit_l16"]
    whole = encoder_cost(config).multiply_adds
    text = 0.044 * whole
    ratio = (encoder_cost(config, num_kept=round(196 * (1 - masked))).multiply_adds + text) / (whole + text)
    assert round(ratio, 2) == pytest.approx(table, abs=0.011)  # attention is quadratic: 0.51 and 0.28


# arXiv 2306.00989, table 2: multiply-adds in 1e9 at 224 pixels, without decimals.
HIERA = {"hiera_t": 5, "hiera_s": 6, "hiera_b": 9, "hiera_bp": 13, "hiera_l": 40, "hiera_h": 125}


@pytest.mark.parametrize("name", HIERA)
def test_hiera_costs_are_those_of_its_paper(name):
    assert abs(encoder_cost(HIERA_PRESETS[name]).multiply_adds / 1e9 - HIERA[name]) <= 0.5


@pytest.mark.parametrize(
    "name", ["vit_tiny", "vit_ti16", "vit_b16", "swinv2_tiny", "swinv2_s", "hiera_tiny", "hiera_t"]
)
def test_the_formula_is_what_pytorch_counts(name):
    config = {**VIT_PRESETS, **SWIN_PRESETS, **HIERA_PRESETS}[name]
    assert encoder_cost(config) == count_cost(EncoderSpec(name, config.to_json()))


def test_formula_and_counter_agree_on_kept_patches_and_other_sizes():
    vit = VIT_PRESETS["vit_tiny"]
    spec = EncoderSpec("vit_tiny", vit.to_json())
    assert encoder_cost(vit, num_kept=16) == count_cost(spec, num_kept=16)
    assert encoder_cost(vit, image_size=(32, 96)) == count_cost(spec, image_size=(32, 96))
    hiera = HIERA_PRESETS["hiera_tiny"]
    spec = EncoderSpec("hiera_tiny", hiera.to_json())
    assert encoder_cost(hiera, image_size=(96, 64), num_kept=192) == count_cost(spec, image_size=(96, 64), num_kept=192)
    # 224 x 320 pixels and windows of 4: stages of 7 and 10 tokens are filled up to 8 and 12.
    swin = SWIN_PRESETS["swinv2_tiny"]
    counted = count_cost(EncoderSpec("swinv2_tiny", swin.to_json()), image_size=(224, 320))
    assert encoder_cost(swin, image_size=(224, 320)) == counted


def test_a_changed_shape_changes_formula_and_counter_alike():
    vit = replace(VIT_PRESETS["vit_tiny"], mlp_ratio=3.0, num_registers=4, class_token=False)
    changed = encoder_cost(vit)
    assert changed == count_cost(EncoderSpec("vit", vit.to_json()))
    assert changed != encoder_cost(VIT_PRESETS["vit_tiny"])


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 64))
def test_a_block_costs_24_n_d_d_and_4_n_n_d_operations(n, quarter):
    d = 4 * quarter
    assert 2 * block_multiply_adds(n, d) == 24 * n * d**2 + 4 * n**2 * d
    # One wanted row: keys and values of all, everything else of one.
    assert 2 * block_multiply_adds(n, d, num_rows=1) == 4 * n * d**2 + 20 * d**2 + 4 * n * d
    assert block_multiply_adds(n, d, num_rows=n) == block_multiply_adds(n, d)


def test_units():
    cost = Cost(multiply_adds=10)
    assert (cost.flops, cost.training_flops) == (20, 60)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ImageSizeError, match="multiples of 16"):
        encoder_cost(VIT_PRESETS["vit_b16"], image_size=(224, 230))
    with pytest.raises(ImageSizeError, match="multiples of 32"):
        encoder_cost(SWIN_PRESETS["swinv2_s"], image_size=(200, 192))
    with pytest.raises(TokenCountError, match="at most 196"):
        encoder_cost(VIT_PRESETS["vit_b16"], num_kept=197)
    with pytest.raises(TokenCountError, match="num_kept 100 of 3136 patches; give a multiple of 64"):
        encoder_cost(HIERA_PRESETS["hiera_t"], num_kept=100)
    with pytest.raises(TokenCountError, match="needs all"):
        encoder_cost(SWIN_PRESETS["swinv2_s"], num_kept=4)


@pytest.mark.parametrize(("masked", "table"), [(0.5, 0.52), (0.75, 0.28)])
def test_a_pair_of_flip_costs_what_its_table_says(masked, table):
    """FLIP, table 1a: both towers counted, (1 − r + 0.044) / 1.044."""
    pair = PAIR_PRESETS["flip_l16"]
    whole = encoder_cost(pair.encoder).multiply_adds
    text = pair.text.depth * block_multiply_adds(pair.text.length, pair.text.width)
    assert round(text / whole, 3) == 0.044
    kept = encoder_cost(pair.encoder, num_kept=round(196 * (1 - masked))).multiply_adds
    ratio = (kept + text) / (whole + text)
    assert round(ratio, 2) == table == round((1 - masked + 0.044) / 1.044, 2)


def test_another_text_tower_does_not_give_flips_table():
    pair = PAIR_PRESETS["flip_b16"]
    text = pair.text.depth * block_multiply_adds(pair.text.length, pair.text.width)
    assert round(text / encoder_cost(pair.encoder).multiply_adds, 3) != 0.044
