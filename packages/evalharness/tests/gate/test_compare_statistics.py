"""Tests of paired outcomes against scipy, statsmodels, enumeration and formulas."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from unveil_evalharness.compare import binary, correction, paired

counts = st.integers(0, 40)
few = settings(max_examples=25, deadline=None)


@few
@given(gains=counts, losses=counts)
def test_mid_p_is_the_exact_test_less_half_of_what_was_observed(gains, losses):
    exact = mcnemar([[10, gains], [losses, 10]], exact=True).pvalue
    own = binary.mcnemar_mid_p(gains, losses)
    if gains == losses:
        assert own == 1.0
    else:
        assert own == pytest.approx(exact - stats.binom.pmf(min(gains, losses), gains + losses, 0.5))
    assert own == binary.mcnemar_mid_p(losses, gains)


@few
@given(gains=counts, losses=counts)
def test_the_one_sided_test_is_scipys_binomial_test(gains, losses):
    expected = stats.binomtest(losses, gains + losses, 0.5, alternative="greater").pvalue if gains + losses else 1.0
    assert binary.mcnemar_worse(gains, losses) == pytest.approx(expected)


def score(gains, losses, n, difference):
    """Tango's statistic with the constrained maximum found numerically from the likelihood."""
    from scipy.optimize import minimize_scalar

    concordant = n - gains - losses

    def minus_log_likelihood(lost):
        gained = lost + difference
        rest = 1 - lost - gained
        terms = ((gains, gained), (losses, lost), (concordant, rest))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    lost = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (gains - losses - n * difference) / math.sqrt(n * (2 * lost + difference * (1 - difference)))


@pytest.mark.parametrize(("gains", "losses", "n"), [(5, 12, 60), (12, 5, 60), (1, 0, 30), (0, 7, 50), (20, 20, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_tangos_bound_is_where_the_score_reaches_the_quantile(gains, losses, n, confidence):
    lower = binary.tango_bound(gains, losses, n, confidence=confidence)
    upper = binary.tango_bound(gains, losses, n, confidence=confidence, upper=True)
    z = stats.norm.ppf(confidence)
    assert score(gains, losses, n, lower) == pytest.approx(z, abs=1e-3)
    assert score(gains, losses, n, upper) == pytest.approx(-z, abs=1e-3)
    assert lower < (gains - losses) / n < upper


@pytest.mark.parametrize("n", [1, 10, 400])
def test_no_discordant_pair_proves_only_as_much_as_there_are_pairs(n):
    z = stats.norm.ppf(0.95)
    assert binary.tango_bound(0, 0, n, confidence=0.95) == pytest.approx(-z * z / (n + z * z))


def test_all_pairs_lost_has_the_lowest_bound():
    assert binary.tango_bound(0, 8, 8, confidence=0.95) == -1.0
    assert binary.tango_bound(8, 0, 8, confidence=0.95, upper=True) == 1.0


def test_tangos_bound_covers():
    """For small n and few discordant pairs the bound is passed about as often as it says, summed over all outcomes."""
    n, gained, lost = 40, 0.05, 0.08
    missed = 0.0
    for gains, losses in itertools.product(range(9), range(12)):
        probability = stats.multinomial.pmf([gains, losses, n - gains - losses], n, [gained, lost, 1 - gained - lost])
        if probability > 1e-5:
            missed += probability * (binary.tango_bound(gains, losses, n, confidence=0.95) > gained - lost)
    assert 0.02 < missed < 0.06


def test_effect_sizes_of_proportions():
    assert binary.cohens_h(0.5, 0.75) == pytest.approx(np.pi / 6)
    assert binary.cohens_h(0.4, 0.4) == 0.0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_corrections_are_statsmodels(size):
    p = np.random.default_rng(size).beta(0.5, 3, size=size).round(2).tolist()
    np.testing.assert_allclose(correction.holm(p), multipletests(p, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(correction.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)
    np.testing.assert_array_equal(correction.adjust(p, "none"), p)


def test_no_p_values_correct_to_none():
    assert len(correction.holm([])) == len(correction.benjamini_hochberg([])) == 0


@pytest.mark.parametrize("n", [2, 3, 50])
def test_items_that_are_their_own_clusters_have_the_usual_error(n):
    differences = np.random.default_rng(n).normal(size=n)
    assert paired.standard_error(paired.cluster(differences)) == pytest.approx(stats.sem(differences))


def test_the_clustered_error_is_that_of_the_cluster_robust_regression():
    from statsmodels.stats.sandwich_covariance import cov_cluster

    generator = np.random.default_rng(0)
    names = generator.integers(0, 40, size=200)
    differences = generator.normal(size=200) + generator.normal(size=40)[names]
    clusters = paired.cluster(differences, names)
    m = clusters.num
    fit = OLS(differences, np.ones(200)).fit()
    reference = np.sqrt(cov_cluster(fit, names, use_correction=False)[0, 0] * m / (m - 1))
    assert paired.standard_error(clusters) == pytest.approx(reference)
    assert paired.standard_error(clusters) > 1.5 * stats.sem(differences)


def test_one_cluster_has_no_error():
    assert paired.standard_error(paired.cluster(np.array([1.0, 2.0]), ["a", "a"])) is None


@pytest.mark.parametrize("kind", ["binary", "continuous", "clustered"])
def test_the_bootstrap_has_the_error_of_the_formula(kind):
    generator = np.random.default_rng(1)
    differences = generator.choice([-1.0, 0.0, 1.0], p=[0.2, 0.7, 0.1], size=300)
    names = None
    if kind == "continuous":
        differences = generator.normal(size=300)
    if kind == "clustered":
        names = np.repeat(np.arange(60), 5)
    clusters = paired.cluster(differences, names)
    means = paired.bootstrap_means(clusters, num_resamples=4000, seed=0)
    assert means.mean() == pytest.approx(differences.mean(), abs=0.005)
    assert means.std() == pytest.approx(paired.standard_error(clusters), rel=0.05)


def enumerated(totals):
    sums = np.array([np.dot(signs, totals) for signs in itertools.product((-1, 1), repeat=len(totals))])
    observed = totals.sum()
    return (np.abs(sums) >= abs(observed) - 1e-9).mean(), (sums <= observed + 1e-9).mean()


@few
@given(totals=st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_counts_are_flipped_exactly(totals):
    own = paired.sign_flip(np.array(totals, dtype=float), num_flips=100, seed=0)
    two_sided, worse = enumerated(np.array(totals))
    assert own.exact
    assert own.two_sided == pytest.approx(two_sided, abs=1e-9)
    assert own.worse == pytest.approx(worse, abs=1e-9)


def test_few_numbers_are_enumerated_and_many_are_sampled():
    generator = np.random.default_rng(2)
    few, many = generator.normal(size=10), generator.normal(0.1, 1, size=200)
    own = paired.sign_flip(few, num_flips=100, seed=0)
    assert own.exact
    assert (own.two_sided, own.worse) == pytest.approx(enumerated(few))
    sampled = paired.sign_flip(many, num_flips=5_000, seed=0)
    assert not sampled.exact
    reference = stats.permutation_test(
        (many, np.zeros(200)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=5_000,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    assert sampled.two_sided == pytest.approx(reference.pvalue, abs=0.03)


def test_single_items_flip_as_in_mcnemars_exact_test():
    totals = np.array([-1.0] * 9 + [1.0] * 3 + [0.0] * 50)
    own = paired.sign_flip(totals, num_flips=100, seed=0)
    assert own.worse == pytest.approx(binary.mcnemar_worse(3, 9))
    assert own.two_sided == pytest.approx(stats.binomtest(3, 12).pvalue)


def test_equal_sides_have_p_1():
    own = paired.sign_flip(np.zeros(20), num_flips=100, seed=0)
    assert (own.two_sided, own.worse, own.exact) == (1.0, 1.0, True)


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_fifty_thousand_items_take_seconds(kind):
    import time

    generator = np.random.default_rng(4)
    values = generator.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=50_000)
    if kind == "continuous":
        values = generator.normal(size=50_000)
    clusters = paired.cluster(values)
    begin = time.process_time()
    paired.bootstrap_means(clusters, num_resamples=500, seed=0)
    paired.sign_flip(clusters.totals, num_flips=500, seed=0)
    assert time.process_time() - begin < 5
