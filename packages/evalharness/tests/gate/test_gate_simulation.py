"""Measured error rates of the gate: false alarms under A/A, planted regressions found, margins missed.

0/1 outcomes: a verdict is a function of the discordant pairs, so that all gates are decided in a few array operations,
which a test ties to the real thing. Other kinds run the whole comparison on outcomes in memory, a hundred times here
and thousands of times in the slow tests. Bounds leave three standard errors of the simulation.
"""

import math

import numpy as np
import pytest
from scipy import stats
from unveil_evalharness.compare import binary
from unveil_evalharness.compare.correction import adjust
from unveil_evalharness.compare.difference import Settings, contrast
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.compare.verdict import judge

ALPHA, POWER = 0.05, 0.8
NUMBER = 20_000
SETTINGS = Settings(num_resamples=199)
OUTCOMES = ("ok", "regressed", "undecided")


def at_most(rate, number):
    return rate + 3 * math.sqrt(rate * (1 - rate) / number)


def at_least(rate, number):
    return rate - 3 * math.sqrt(rate * (1 - rate) / number)


def decide(one, margin, p_worse=None):
    return judge(
        one, margin=margin, alpha=ALPHA, power=POWER, p_worse=one.p_worse if p_worse is None else p_worse
    )  # fmt: skip


def verdicts(pairs, n, margin):
    """`judge` for many outcomes of `n` images at once: an index into OUTCOMES per row of [gains, losses]."""
    gains, losses = pairs[:, 0], pairs[:, 1]
    lower = binary.tango_lower(gains, losses, n, confidence=1 - ALPHA)
    worse = (gains < losses) & (stats.binom.sf(losses - 1, gains + losses, 0.5) <= ALPHA)
    return np.where(lower > -margin, 0, np.where(worse, 1, 2))


def binary_rates(n, gained, lost, margin, *, number=NUMBER, seed=0):
    """Share of each verdict over many gates on `n` images that change with the given probabilities."""
    drawn = np.random.default_rng(seed).multinomial(n, [gained, lost, 1 - gained - lost], size=number)
    pairs, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    shares = np.bincount(verdicts(pairs, n, margin), weights=times / number, minlength=3)
    return dict(zip(OUTCOMES, shares.tolist(), strict=True))


@pytest.fixture
def compared(in_memory, flips):
    """The whole comparison of two sides with given discordant pairs."""

    def make(n, gains, losses):
        tables = Tables()
        sides = [
            in_memory(side[None], tables=tables, name=name)
            for side, name in zip(flips(n, gains, losses, n // 4), "ab", strict=True)
        ]
        return contrast(*sides, settings=SETTINGS, tables=tables)

    return make


def test_the_shortcut_is_the_comparison(compared):
    pairs = np.array([(0, 0), (3, 9), (12, 4), (2, 30), (0, 5), (9, 9), (5, 12)])
    for margin in (0.01, 0.05):
        whole = [decide(compared(200, int(gains), int(losses)), margin).outcome for gains, losses in pairs]
        assert [OUTCOMES[index] for index in verdicts(pairs, 200, margin)] == whole
        assert len(set(whole)) > 1


@pytest.mark.parametrize(("n", "changed"), [(100, 0.02), (100, 0.2), (500, 0.1), (2000, 0.05)])
@pytest.mark.parametrize("margin", [0.002, 0.02])
def test_an_unchanged_candidate_is_called_regressed_at_most_as_often_as_stated(n, changed, margin):
    share = binary_rates(n, changed / 2, changed / 2, margin)
    assert share["regressed"] <= at_most(ALPHA, NUMBER)


@pytest.mark.parametrize(("n", "changed"), [(100, 0.2), (500, 0.1), (2000, 0.05)])
def test_a_candidate_that_is_a_whole_margin_worse_passes_at_most_as_often_as_stated(n, changed):
    margin = 0.05 if n == 100 else 0.02
    share = binary_rates(n, (changed - margin) / 2, (changed + margin) / 2, margin)
    assert share["ok"] <= at_most(ALPHA, NUMBER) + 0.005  # Tango's bound is a large-sample one


def items_needed(margin, changed):
    """Normal theory: the error of the gain, ``sqrt(changed / n)``, times both quantiles is the margin."""
    reach = stats.norm.isf(ALPHA) + stats.norm.ppf(POWER)
    return math.ceil(changed * (reach / margin) ** 2)


@pytest.mark.parametrize(("margin", "changed"), [(0.02, 0.1), (0.05, 0.2), (0.01, 0.04)])
def test_with_the_items_it_asks_for_it_finds_planted_regressions_and_passes_the_unchanged(compared, margin, changed):
    """It is asked after a pilot of 400 images."""
    asked = decide(compared(400, int(200 * changed), int(200 * changed)), margin).plan.items
    assert asked == pytest.approx(items_needed(margin, changed), rel=0.2)
    planted = binary_rates(asked, (changed - margin) / 2, (changed + margin) / 2, margin)
    assert planted["regressed"] >= at_least(POWER, NUMBER) - 0.02  # the exact test is discrete
    unchanged = binary_rates(asked, changed / 2, changed / 2, margin)
    assert unchanged["ok"] >= at_least(POWER, NUMBER) - 0.02
    assert unchanged["regressed"] <= at_most(ALPHA, NUMBER)
    larger = binary_rates(asked, (changed - 2 * margin) / 2, (changed + 2 * margin) / 2, margin)
    assert larger["regressed"] > 0.99


def test_the_stated_power_is_the_measured_one(compared):
    n, changed, margin = 800, 0.08, 0.02
    plan = decide(compared(n, int(n * changed / 2), int(n * changed / 2)), margin).plan
    assert binary_rates(n, changed / 2, changed / 2, margin)["ok"] == pytest.approx(plan.power, abs=0.03)
    drop = plan.detectable
    found = binary_rates(n, (changed - drop) / 2, (changed + drop) / 2, margin)["regressed"]
    assert found == pytest.approx(POWER, abs=0.05)


def test_the_guard_can_fail():
    """A gate that calls every lower value a regression would be caught by the tests above."""
    drawn = np.random.default_rng(0).multinomial(500, [0.05, 0.05, 0.9], size=2000)
    assert (drawn[:, 0] < drawn[:, 1]).mean() > at_most(ALPHA, 2000)


def simulate(kind, in_memory, number, drop=0.0, margin=0.05, runs=3):
    """Shares of verdicts of whole comparisons: clustered recalls, losses, or several seeds."""
    generator = np.random.default_rng(11)
    share = dict.fromkeys(OUTCOMES, 0.0)
    clusters = np.repeat(np.arange(60), 5)
    for _ in range(number):
        tables = Tables()
        if kind == "clusters":
            easy = np.repeat(generator.normal(size=60), 5)
            sides = [
                easy + np.repeat(generator.normal(0, 0.3, 60), 5) + generator.normal(0, 0.3, 300) > shift
                for shift in (0.0, drop * 2.7)
            ]
            made = [
                in_memory(side[None].astype(float), tables=tables, name=name, clusters=clusters)
                for side, name in zip(sides, "ab", strict=True)
            ]
        elif kind == "losses":
            hard = generator.gamma(2.0, 0.2, size=200)
            made = [
                in_memory((hard + shift + generator.normal(0, 0.2, 200))[None], tables=tables, name=name,
                          higher_is_better=False)
                for shift, name in ((0.0, "a"), (drop, "b"))
            ]  # fmt: skip
        else:
            easy = generator.normal(size=200)
            made = [
                in_memory(
                    easy + generator.normal(0, 0.3, (runs, 200)) - shift + generator.normal(0, 0.05, (runs, 1)),
                    tables=tables, name=name,
                )
                for shift, name in ((0.0, "a"), (drop, "b"))
            ]  # fmt: skip
        share[decide(contrast(*made, settings=SETTINGS, tables=tables), margin).outcome] += 1 / number
    return share


@pytest.mark.parametrize("kind", ["clusters", "losses", "seeds"])
def test_other_outcomes_keep_the_rates_too(in_memory, kind):
    number = 30
    share = simulate(kind, in_memory, number, margin=0.02)
    assert share["regressed"] <= at_most(ALPHA, number)
    assert simulate(kind, in_memory, 8, drop=0.3, margin=0.02)["regressed"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clusters", "losses", "seeds"])
def test_other_outcomes_keep_the_rates_in_thousands_of_gates(in_memory, kind):
    number = 900
    assert simulate(kind, in_memory, number, margin=0.002)["regressed"] <= at_most(ALPHA, number)
    # 0.12 is several standard errors of each kind: what is found there must be found at least as often as stated.
    assert simulate(kind, in_memory, number // 3, drop=0.16, margin=0.02)["regressed"] >= at_least(POWER, number // 3)
    assert simulate(kind, in_memory, number // 3, drop=0.05, margin=0.05)["ok"] <= at_most(ALPHA, number // 3)


def test_over_many_metrics_the_rate_holds_for_all_together():
    """Twenty metrics without any change: Holm keeps the chance of a single alarm, no correction does not."""
    generator = np.random.default_rng(5)
    drawn = generator.multinomial(400, [0.05, 0.05, 0.9], size=(300, 20))
    p = stats.binom.sf(drawn[..., 1] - 1, drawn[..., :2].sum(axis=-1), 0.5)
    alarms = {rule: np.mean([adjust(row.tolist(), rule).min() <= ALPHA for row in p]) for rule in ("holm", "none")}
    assert alarms["holm"] <= at_most(ALPHA, 300)
    assert alarms["none"] > 0.3
