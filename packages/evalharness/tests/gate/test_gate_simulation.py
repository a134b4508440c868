"""Measured error rates of the gate: false alarms under A/A, planted regressions found, margins missed.

0/1 outcomes: a verdict is a function of the discordant pairs, so that thousands of gates cost as much as the pairs that
occur. Other kinds run the whole comparison on outcomes in memory, a few hundred times here and thousands of times in the
slow tests. Bounds leave three standard errors of the simulation.
"""

import math

import numpy as np
import pytest
from unveil_evalharness.compare import binary
from unveil_evalharness.compare.correction import adjust
from unveil_evalharness.compare.difference import Settings, contrast
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.compare.verdict import judge

ALPHA, POWER = 0.05, 0.8
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


@pytest.fixture
def binary_rates(in_memory, flips):
    """Share of each verdict over many gates on `n` images that change with the given probabilities."""

    def rates(n, gained, lost, margin, *, number=20_000, seed=0):
        drawn = np.random.default_rng(seed).multinomial(n, [gained, lost, 1 - gained - lost], size=number)
        pairs, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
        share = dict.fromkeys(OUTCOMES, 0.0)
        first, second = flips(n, int(pairs[0, 0]), int(pairs[0, 1]))
        tables = Tables()
        a, b = (in_memory(side[None], tables=tables, name=name) for side, name in ((first, "a"), (second, "b")))
        template = contrast(a, b, settings=SETTINGS, tables=tables)
        for (gains, losses), count in zip(pairs.tolist(), times.tolist(), strict=True):
            one = replace_pairs(template, gains, losses)
            share[decide(one, margin).outcome] += count / number
        return share

    return rates


def replace_pairs(template, gains, losses):
    """The comparison of the same items with other discordant pairs."""
    import dataclasses

    gain, n = (gains - losses) / template.n, template.n
    error = math.sqrt(max(0.0, (gains + losses) / n - gain**2) / (n - 1))
    return dataclasses.replace(
        template,
        gain=gain,
        discordant=(gains, losses),
        p_worse=binary.mcnemar_worse(gains, losses),
        sampling_error=error,
        standard_error=error,
    )


def test_the_shortcut_is_the_comparison(in_memory, flips):
    """What `binary_rates` changes in a comparison is what the comparison itself gives."""
    tables = Tables()
    made = []
    for gains, losses in ((3, 9), (12, 4)):
        first, second = flips(200, gains, losses, 50)
        name = f"{gains}-{losses}"
        a, b = (in_memory(side[None], tables=tables, name=name + end) for side, end in ((first, "a"), (second, "b")))
        made.append(contrast(a, b, settings=SETTINGS, tables=tables))
    short = replace_pairs(made[0], 12, 4)
    for field in ("gain", "discordant", "p_worse", "sampling_error"):
        assert getattr(short, field) == pytest.approx(getattr(made[1], field))
    assert decide(short, 0.05).lower == pytest.approx(decide(made[1], 0.05).lower)


@pytest.mark.parametrize(("n", "changed"), [(100, 0.02), (100, 0.2), (500, 0.1), (2000, 0.05)])
@pytest.mark.parametrize("margin", [0.002, 0.02])
def test_an_unchanged_candidate_is_called_regressed_at_most_as_often_as_stated(binary_rates, n, changed, margin):
    share = binary_rates(n, changed / 2, changed / 2, margin)
    assert share["regressed"] <= at_most(ALPHA, 20_000)


@pytest.mark.parametrize(("n", "changed"), [(100, 0.2), (500, 0.1), (2000, 0.05)])
def test_a_candidate_that_is_a_whole_margin_worse_passes_at_most_as_often_as_stated(binary_rates, n, changed):
    margin = 0.05 if n == 100 else 0.02
    share = binary_rates(n, (changed - margin) / 2, (changed + margin) / 2, margin)
    assert share["ok"] <= at_most(ALPHA, 20_000) + 0.005  # Tango's bound is a large-sample one


def items_needed(margin, changed):
    """What the gate itself says would decide, asked of a pilot of 400 images."""
    from scipy import stats

    reach = stats.norm.isf(ALPHA) + stats.norm.ppf(POWER)
    return math.ceil(changed * (reach / margin) ** 2)


@pytest.mark.parametrize(("margin", "changed"), [(0.02, 0.1), (0.05, 0.2), (0.01, 0.04)])
def test_with_the_items_it_asks_for_it_finds_planted_regressions_and_passes_the_unchanged(
    binary_rates, in_memory, flips, margin, changed
):
    pilot = flips(400, int(200 * changed), int(200 * changed), 100)
    tables = Tables()
    a, b = (in_memory(side[None], tables=tables, name=name) for side, name in zip(pilot, "ab", strict=True))
    asked = decide(contrast(a, b, settings=SETTINGS, tables=tables), margin).plan.items
    assert asked == pytest.approx(items_needed(margin, changed), rel=0.15)
    planted = binary_rates(asked, (changed - margin) / 2, (changed + margin) / 2, margin)
    assert planted["regressed"] >= at_least(POWER, 20_000) - 0.02  # the exact test is discrete
    unchanged = binary_rates(asked, changed / 2, changed / 2, margin)
    assert unchanged["ok"] >= at_least(POWER, 20_000) - 0.02
    assert unchanged["regressed"] <= at_most(ALPHA, 20_000)
    larger = binary_rates(asked, (changed - 2 * margin) / 2, (changed + 2 * margin) / 2, margin)
    assert larger["regressed"] > 0.99


def test_the_stated_power_is_the_measured_one(binary_rates, in_memory, flips):
    n, changed, margin = 800, 0.08, 0.02
    tables = Tables()
    sides = flips(n, int(n * changed / 2), int(n * changed / 2), 100)
    a, b = (in_memory(side[None], tables=tables, name=name) for side, name in zip(sides, "ab", strict=True))
    plan = decide(contrast(a, b, settings=SETTINGS, tables=tables), margin).plan
    assert binary_rates(n, changed / 2, changed / 2, margin)["ok"] == pytest.approx(plan.power, abs=0.03)
    drop = plan.detectable
    found = binary_rates(n, (changed - drop) / 2, (changed + drop) / 2, margin)["regressed"]
    assert found == pytest.approx(POWER, abs=0.05)


def test_the_guard_can_fail(binary_rates):
    """A gate that calls every lower value a regression would be caught by the tests above."""
    drawn = np.random.default_rng(0).multinomial(500, [0.05, 0.05, 0.9], size=2000)
    assert (drawn[:, 0] < drawn[:, 1]).mean() > at_most(ALPHA, 2000)
    assert binary_rates(500, 0.05, 0.05, 0.02, number=2000)["regressed"] <= at_most(ALPHA, 2000)


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
    number = 150
    share = simulate(kind, in_memory, number, margin=0.02)
    assert share["regressed"] <= at_most(ALPHA, number)
    assert simulate(kind, in_memory, 40, drop=0.3, margin=0.02)["regressed"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clusters", "losses", "seeds"])
def test_other_outcomes_keep_the_rates_in_thousands_of_gates(in_memory, kind):
    number = 3000
    assert simulate(kind, in_memory, number, margin=0.002)["regressed"] <= at_most(ALPHA, number)
    # 0.12 is several standard errors of each kind: what is found there must be found at least as often as stated.
    assert simulate(kind, in_memory, number // 3, drop=0.16, margin=0.02)["regressed"] >= at_least(POWER, number // 3)
    assert simulate(kind, in_memory, number // 3, drop=0.05, margin=0.05)["ok"] <= at_most(ALPHA, number // 3)


def test_over_many_metrics_the_rate_holds_for_all_together():
    """Twenty metrics without any change: Holm keeps the chance of a single alarm, no correction does not."""
    generator = np.random.default_rng(5)
    drawn = generator.multinomial(400, [0.05, 0.05, 0.9], size=(1000, 20))
    p = np.vectorize(binary.mcnemar_worse, otypes=[float])(drawn[..., 0], drawn[..., 1])
    alarms = {rule: np.mean([adjust(row.tolist(), rule).min() <= ALPHA for row in p]) for rule in ("holm", "none")}
    assert alarms["holm"] <= at_most(ALPHA, 1000)
    assert alarms["none"] > 0.3
