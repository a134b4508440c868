"""`evalharness compare` by the command line, and the statistics it reports."""

import json
from dataclasses import replace

import numpy as np
import polars
import pytest
from scipy import stats
from unveil_evalharness.compare import difference
from unveil_evalharness.compare.pairing import PairedTables, Tables
from unveil_evalharness.compare.resampled import bootstrap_metric
from unveil_evalharness.results import append_rows

RIGHT = np.arange(300) % 10 < 7
SETTINGS = difference.Settings(num_resamples=500)


@pytest.fixture
def sides(write_side, tmp_path):
    """Two checkpoints of which the second loses 30 images and gains 9."""
    worse = RIGHT.copy()
    worse[np.flatnonzero(RIGHT)[:30]] = False
    worse[np.flatnonzero(~RIGHT)[:9]] = True
    return write_side(tmp_path / "a", {0: RIGHT}), write_side(tmp_path / "b", {0: worse}, sha="b")


def test_a_table_with_interval_tests_and_cautions(sides, evalharness):
    code, out, err = evalharness("compare", *sides)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["A: mae a", "B: mae b"]
    (row,) = (line for line in lines if line.startswith("imagenet_ft.acc1"))
    assert row.split()[1:5] == ["↑", "0.7000", "0.6300", "−0.0700"]
    assert "McNemar, exact mid-p" in out
    assert "one run on each side" in out


def test_json_holds_the_whole_comparison(sides, evalharness):
    code, out, _ = evalharness("compare", *sides, "--json", "--margin", 0.02)
    (one,) = json.loads(out)["metrics"]
    assert code == 0
    assert one["discordant"] == [9, 30]
    exact = stats.binomtest(9, 39).pvalue
    assert one["p_value"] == pytest.approx(exact - stats.binom.pmf(9, 39, 0.5))
    assert one["verdict"]["outcome"] == "regressed"
    assert one["low"] < -0.07 < one["high"] < 0


def test_the_margin_gives_verdicts_in_words(sides, evalharness):
    assert "within the margin" in evalharness("compare", *sides, "--margin", 0.2)[1]
    assert "worse" in evalharness("compare", *sides, "--margin", 0.02)[1]
    assert "items" in evalharness("compare", sides[0], sides[0], "--margin", 0.001)[1]


def test_what_is_not_comparable_is_refused_and_the_rest_shown(sides, evalharness, blank):
    for folder, sha, protocol in zip(sides, "ab", ("0" * 16, "1" * 16), strict=True):
        row = replace(
            blank, checkpoint_sha256=sha * 64, label=f"mae {sha}", task="knn", metric="knn.acc1", protocol=protocol
        )
        append_rows(folder / "results.jsonl", [row])
    code, out, err = evalharness("compare", *sides)
    assert code == 3
    assert "imagenet_ft.acc1" in out
    assert "evalharness: error: knn.acc1 is not comparable: protocol fingerprint differs" in err
    assert evalharness("compare", *sides, "--tasks", "imagenet_ft")[0] == 0


@pytest.mark.parametrize(
    "more",
    [("--margin", 0), ("--confidence", 2), ("--num-resamples", 5), ("--seed", -1), ("--tasks", "nothing")],
)
def test_bad_input_is_one_line(sides, evalharness, more):
    code, _, err = evalharness("compare", *sides, *more)
    assert code == 2
    assert len(err.splitlines()) == 1


def test_the_same_checkpoint_twice_is_called_a_a(sides, evalharness):
    code, out, _ = evalharness("compare", sides[0], sides[0])
    assert code == 0
    assert "(A/A): what differs is noise" in out


def test_pairing_finds_what_two_standard_errors_do_not(sides, evalharness, write_side, tmp_path):
    """The complaint behind the command: unpaired 0.08, paired well below 0.01."""
    unpaired = [
        write_side(
            tmp_path / f"u{sha}", {0: np.zeros(1, bool)}, sha=sha, keep=False, n=300, value=value,
            standard_error=(value * (1 - value) / 300) ** 0.5,
        )
        for sha, value in (("a", 0.7), ("b", 0.63))
    ]  # fmt: skip
    (paired,), (other,) = (
        json.loads(evalharness("compare", *pair, "--json")[1])["metrics"] for pair in (sides, unpaired)
    )
    assert paired["p_value"] < 0.001
    assert 0.05 < other["p_value"] < 0.1
    assert not other["paired"]


def test_seeds_widen_the_interval_as_welch_would(in_memory):
    """Outcomes without any spread over items: what is left is the two-sample t-test over runs."""
    tables = Tables()
    first, second = np.array([0.50, 0.52, 0.54]), np.array([0.47, 0.50])
    a, b = (
        in_memory(np.tile(values[:, None], (1, 50)), tables=tables, name=name)
        for values, name in ((first, "a"), (second, "b"))
    )
    one = difference.contrast(a, b, settings=SETTINGS, tables=tables)
    reference = stats.ttest_ind(second, first)
    interval = reference.confidence_interval(0.95)
    assert one.p_value == pytest.approx(reference.pvalue)
    assert one.degrees_of_freedom == pytest.approx(3)
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
    assert one.test.startswith("Welch's t over items and 3 + 2 runs")


def test_a_loss_gains_when_it_falls(in_memory):
    generator = np.random.default_rng(0)
    tables = Tables()
    losses = generator.gamma(2, 1, 100)
    a, b = (
        in_memory(values[None], tables=tables, name=name, higher_is_better=False)
        for values, name in ((losses, "a"), (losses - 0.1 + generator.normal(0, 0.1, 100), "b"))
    )
    one = difference.contrast(a, b, settings=SETTINGS, tables=tables)
    assert one.gain == pytest.approx(0.1, abs=0.05)
    assert one.p_value < 3e-3
    assert one.p_worse > 0.99
    assert one.effect_size == pytest.approx(
        one.gain / np.std(losses - tables.known[b.samples[0]]["score"].to_numpy(), ddof=1)
    )


def test_captions_of_one_image_are_one_cluster(in_memory):
    tables = Tables()
    images = np.repeat(np.arange(40), 5)
    generator = np.random.default_rng(1)
    changed = np.repeat(generator.random(40) < 0.2, 5)
    before = np.ones(200, bool)
    a, b = (
        in_memory(values[None], tables=tables, name=name, clusters=images)
        for values, name in ((before, "a"), (before & ~changed, "b"))
    )
    one = difference.contrast(a, b, settings=SETTINGS, tables=tables)
    lost = int(changed.sum() / 5)
    assert (one.n, one.num_clusters) == (200, 40)
    assert one.test == "sign flips of clusters, exact"
    assert one.p_worse == pytest.approx(0.5**lost)


def test_mean_iou_is_resampled_from_its_counts():
    """The real function of ade20k_seg: the bootstrap of a difference against the delta method on two classes."""
    metrics = pytest.importorskip("unveil_evalharness.tasks.ade20k_seg.metrics")
    generator = np.random.default_rng(2)
    n = 30
    labelled = generator.integers(20, 60, size=(n, 2))

    def table(rate):
        right = generator.binomial(labelled, rate)
        predicted = right + (labelled - right)[:, ::-1]
        columns = {"labelled": labelled, "intersection": right, "predicted": predicted}
        columns |= {"intersection_ms": right, "predicted_ms": predicted}
        return polars.DataFrame(
            {"image": [f"{i}" for i in range(n)], **{name: list(values) for name, values in columns.items()}}
        )

    before, after = table(0.8), table(0.7)
    tables = PairedTables(before=(before,), after=(after,), function=metrics.metric_from_samples, name="mIoU")
    resampled = bootstrap_metric(tables, num_resamples=100, seed=0)
    observed = metrics.metric_from_samples(after)["mIoU"] - metrics.metric_from_samples(before)["mIoU"]
    assert resampled.mean() == pytest.approx(observed, abs=3 * resampled.std() / np.sqrt(100) + 0.003)
    leave_out = [
        metrics.metric_from_samples(after[rows])["mIoU"] - metrics.metric_from_samples(before[rows])["mIoU"]
        for rows in (np.delete(np.arange(n), i) for i in range(n))
    ]
    jackknife = np.sqrt((n - 1) / n * np.sum((np.array(leave_out) - np.mean(leave_out)) ** 2))
    assert resampled.std() == pytest.approx(jackknife, rel=0.25)
