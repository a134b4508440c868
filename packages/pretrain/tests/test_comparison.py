"""Pairing: two validations of the same images are compared image by image."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones.manifest import Passport
from unveil_pretrain import ConfigError, DataError, OutputError, compare_losses
from unveil_pretrain.comparison import MIN_GROUPS, independent_values, mean_and_error
from unveil_pretrain.student import student_quantile, student_tail
from unveil_pretrain.val_table import ImageLosses, ViewTable, read_losses, rewind_tables, table_path, write_table

scipy_stats = pytest.importorskip("scipy.stats", reason="scikit-learn brings SciPy, the reference of these tests")


def passport(**changes):
    values = {
        "objective": "mae", "target_normalisation": "patch", "reduction": "hidden_patches", "mask": {"ratio": 0.75},
        "realised_ratio": 0.75, "mask_seed": 5, "mask_epoch": 0, "image_size": (32, 32), "crop": "center1.0",
        "images_hash": "abc", "negative_pool": 0, "dtype": "float32", **changes,
    }  # fmt: skip
    return Passport(**values)


def losses(values, *, step=1, keys=None, groups=None, card=None):
    num = len(values)
    return ImageLosses(
        step=step,
        keys=tuple(keys or (f"{index:04d}" for index in range(num))),
        sample_ids=np.arange(num),
        groups=np.arange(num) if groups is None else np.asarray(groups),
        values=np.asarray(values, dtype=np.float64),
        passport=card or passport(),
    )


def test_a_difference_by_hand():
    """Differences 0.1, 0.3, 0.2: mean 0.2, standard deviation 0.1; the quantile of t with 2 degrees is 4.3027."""
    found = compare_losses(losses([1.0, 2.0, 3.0]), losses([1.1, 2.3, 3.2]))
    assert found.difference == pytest.approx(0.2)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx(
        (0.2 - 4.3027 * 0.1 / 3**0.5, 0.2 + 4.3027 * 0.1 / 3**0.5), rel=1e-4
    )
    assert found.unpaired_standard_error == pytest.approx(math.hypot(1.0, np.std([1.1, 2.3, 3.2], ddof=1)) / 3**0.5)
    assert found.num_images == 3


@given(st.integers(3, 40), st.integers(0, 2**32 - 1))
def test_interval_and_p_value_are_those_of_scipys_paired_test(num, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(0.5, 0.2, num)
    b = a + rng.normal(0.01, 0.02, num)
    found = compare_losses(losses(a), losses(b), confidence=0.9)
    reference = scipy_stats.ttest_rel(b, a)
    interval = reference.confidence_interval(0.9)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-12)
    assert found.correlation == pytest.approx(scipy_stats.pearsonr(a, b).statistic)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_the_difference_changes_its_sign_with_the_order(values):
    other = [value * 0.9 + 0.1 for value in values]
    there, back = compare_losses(losses(values), losses(other)), compare_losses(losses(other), losses(values))
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)


def test_a_thousandth_is_resolved_by_pairing_where_the_standard_errors_overlap():
    """400 images whose losses spread by 0.15 and agree to 0.97 between checkpoints, as on real images.

    A drop by 0.001 per image: the paired interval excludes 0 in nearly all of 200 repetitions and holds the truth in 95
    of 100; the unpaired one would exclude 0 in about 5 of 100, as without any drop.
    """
    rng = np.random.default_rng(1)
    resolved, covered, unpaired, num = 0, 0, 0, 200
    for _ in range(num):
        before = rng.normal(0.5, 0.15, 400)
        after = before - 0.001 + rng.normal(0.0, 0.004, 400)
        found = compare_losses(losses(before), losses(after))
        resolved += found.high < 0.0
        covered += found.low <= -0.001 <= found.high
        unpaired += abs(found.difference) > 1.96 * found.unpaired_standard_error
        assert found.unpaired_standard_error > 30 * found.standard_error
    assert resolved >= 0.98 * num
    assert 0.9 * num <= covered <= num
    assert unpaired == 0


def test_without_pairing_nothing_is_resolved():
    """The meta-test: the same numbers with the images of one side shuffled."""
    rng = np.random.default_rng(1)
    before = rng.normal(0.5, 0.15, 400)
    after = rng.permutation(before - 0.001)
    found = compare_losses(losses(before), losses(after))
    assert found.low < 0.0 < found.high
    assert found.standard_error == pytest.approx(found.unpaired_standard_error, rel=0.15)


def test_pools_are_the_units_where_there_are_enough():
    """A shift that all pairs of a pool share: over pairs the error would be far too small."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    shared = rng.normal(0.0, 0.1, 20)[groups]
    base = rng.normal(1.0, 0.3, 100)
    found = compare_losses(losses(base, groups=groups), losses(base + shared, groups=groups))
    assert found.standard_error == pytest.approx(shared[::5].std(ddof=1) / math.sqrt(20))
    assert independent_values(base, groups).shape == (20,)
    few = np.arange(100) // (100 // (MIN_GROUPS - 1) + 1)
    assert independent_values(base, few) is base
    assert mean_and_error(base, groups)[2] == 19


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"card": passport(mask_seed=6)}, "different passports, first in mask_seed"),
        ({"card": passport(num_masks=2)}, "different passports, first in num_masks"),
        ({"keys": ["a", "0001", "0002"]}, "different images \\('0000' and 'a'\\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(DataError, match=message):
        compare_losses(losses([1.0, 2.0, 3.0]), losses([1.0, 2.0, 3.0], **other))


def test_other_numbers_of_images_and_bad_settings_are_refused():
    with pytest.raises(DataError, match="their number or ids"):
        compare_losses(losses([1.0, 2.0, 3.0]), losses([1.0, 2.0]))
    with pytest.raises(ConfigError, match="confidence is 95"):
        compare_losses(losses([1.0, 2.0]), losses([1.0, 2.0]), confidence=95)
    with pytest.raises(ConfigError, match="at least two"):
        compare_losses(losses([1.0]), losses([1.0]))


def test_equal_losses_differ_by_nothing():
    found = compare_losses(losses([1.0, 2.0]), losses([1.0, 2.0]))
    assert (found.difference, found.standard_error, found.p_value) == (0.0, 0.0, 1.0)
    assert compare_losses(losses([1.0, 2.0]), losses([1.5, 2.5])).p_value == 0.0
    assert math.isnan(compare_losses(losses([1.0, 1.0]), losses([1.0, 2.0])).correlation)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 10, 31, 100, 400])
def test_students_distribution_is_scipys(degrees):
    for value in (0.0, 0.1, 1.0, 2.5, 6.0, -1.5):
        assert student_tail(value, degrees) == pytest.approx(scipy_stats.t.sf(value, degrees), rel=1e-6, abs=1e-12)
    for tail in (0.5, 0.1, 0.025, 1e-4, 1e-6):
        assert student_quantile(tail, degrees) == pytest.approx(scipy_stats.t.isf(tail, degrees), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("degrees", [401, 5000, 50_000])
def test_students_distribution_of_many_degrees_is_close(degrees):
    for value in (0.5, 2.0, 5.0):
        assert student_tail(value, degrees) == pytest.approx(scipy_stats.t.sf(value, degrees), rel=0.01)


def test_impossible_questions_of_the_distribution_are_refused():
    with pytest.raises(ConfigError, match="at least one degree"):
        student_tail(1.0, 0)
    with pytest.raises(ConfigError, match=r"tail probability is 0\.7"):
        student_quantile(0.7, 3)


def table(run, step, values, *, split="val"):
    num = len(values)
    keys = [f"{index:04d}" for index in reversed(range(num))]
    views = {"loss": np.asarray(values), "unmasked": np.asarray(values) - 1.0}
    one = ViewTable(split=split, keys=keys, sample_ids=np.arange(num)[::-1], groups=np.arange(num), views=views)
    return write_table(run, step, [one], passport())


def test_tables_keep_every_value_in_the_order_of_the_keys(tmp_path):
    file = table(tmp_path, 7, [0.1, 0.2, 0.3])
    assert file == tmp_path / "val" / "step_00000007.parquet"
    found = read_losses(tmp_path, 7)
    assert found.keys == ("0000", "0001", "0002")
    assert found.values.tolist() == [0.3, 0.2, 0.1]
    assert found.sample_ids.tolist() == [0, 1, 2]
    assert found.passport == passport()
    assert read_losses(tmp_path, 7, view="unmasked").values.tolist() == pytest.approx([-0.7, -0.8, -0.9])
    assert pl.read_parquet(file).columns == ["split", "view", "key", "sample_id", "group", "value"]
    assert [entry.name for entry in sorted((tmp_path / "val").iterdir())] == ["passport.json", "step_00000007.parquet"]


def test_a_table_of_imagenets_size_is_small(tmp_path):
    """50,000 images: about 1 MB with float32 losses and 64-bit ids."""
    rng = np.random.default_rng(0)
    num = 50_000
    one = ViewTable(
        split="val",
        keys=[f"ILSVRC2012_val_{index:08d}" for index in range(num)],
        sample_ids=rng.integers(0, 2**62, num),
        groups=np.arange(num),
        views={"loss": rng.normal(0.5, 0.1, num).astype(np.float32).astype(np.float64)},
    )
    assert write_table(tmp_path, 1, [one], passport()).stat().st_size < 1.5e6


def test_rewinding_removes_later_tables_and_half_written_ones(tmp_path):
    for step in (2, 4, 6):
        table(tmp_path, step, [1.0, 2.0])
    (tmp_path / "val" / ".step_00000008.parquet.tmp").write_bytes(b"half")
    rewind_tables(tmp_path, 4)
    assert sorted(entry.name for entry in (tmp_path / "val").iterdir()) == [
        "passport.json", "step_00000002.parquet", "step_00000004.parquet",
    ]  # fmt: skip
    rewind_tables(tmp_path / "nowhere", 4)


def test_missing_and_damaged_tables_are_named(tmp_path):
    table(tmp_path, 2, [1.0, 2.0])
    with pytest.raises(DataError, match="no validation of step 3; there are: 2"):
        read_losses(tmp_path, 3)
    with pytest.raises(DataError, match="no val values of the view 'recall'"):
        read_losses(tmp_path, 2, view="recall")
    table_path(tmp_path, 2).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        read_losses(tmp_path, 2)
    (tmp_path / "val" / "passport.json").write_text("{")
    table(tmp_path, 4, [1.0])
    with pytest.raises(DataError, match=r"passport\.json cannot be read"):
        read_losses(tmp_path, 4)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "val").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot write"):
        table(tmp_path, 1, [1.0])
