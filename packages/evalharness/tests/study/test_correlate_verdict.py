"""Each condition of the rule, met and missed."""

import dataclasses

import numpy as np
import pytest
from unveil_evalharness.correlate.axis import Axis
from unveil_evalharness.correlate.correlation import Stratum, correlate_points
from unveil_evalharness.correlate.join import Column, Point, Points, mark_overfitted

COLUMN = Column(
    task="t", metric="t.acc", main=True, unit="fraction", higher_is_better=True, protocol="p", data_hash="d", limit=None
)


def made(*, rising_loses: bool = True, rising: int = 8, seed: int = 0, noise: float = 0.002) -> list[Point]:
    """Six models on two sets of images, of four lengths; on the small set the loss rises at the end."""
    generator = np.random.default_rng(seed)
    points: list[Point] = []
    for model in range(6):
        for data in ("large", "small"):
            for index, step in enumerate((100, 200, 400, 800)):
                turned = data == "small" and index >= 2 and rising > 0
                loss = 0.60 - 0.02 * model - 0.03 * (min(index, 1) if turned else index) + 0.02 * (index - 1) * turned
                value = (
                    0.2 + 0.02 * model + 0.03 * ((1 - 0.6 * (index - 1) if rising_loses else 1) if turned else index)
                )
                points.append(
                    Point(
                        checkpoint_sha256="", label=f"{model}-{data}-{step}", run=f"{model}-{data}-{step}", step=step,
                        unique_samples=100, loss=loss, loss_standard_error=None,
                        value=value + noise * generator.standard_normal(), value_standard_error=0.001, num_seeds=1,
                        baseline=0.1, model=f"m{model}", data=data, setting=f"{model}-{data}", cluster=f"m{model}",
                    )
                )  # fmt: skip
    return points


def judged(points: list[Point], column: Column = COLUMN) -> Stratum:
    axis = Axis(key="a", name="validation loss", fields={"objective": "simmim"})
    given = Points(strata={(column, "a"): mark_overfitted(points)}, left_out=(), axes={"a": axis})
    return correlate_points(given, outputs=(), num_resamples=200).strata[0]


def holds(stratum: Stratum) -> list[bool | None]:
    assert stratum.verdict is not None
    return [criterion.holds for criterion in stratum.verdict.criteria]


def test_usable_where_both_sides_are_informative() -> None:
    stratum = judged(made())
    assert (stratum.verdict.code, holds(stratum)) == ("usable", [True] * 5)
    assert "usable for t.acc, falling or rising" in stratum.verdict.text


def test_one_sided_where_a_rising_loss_says_nothing() -> None:
    stratum = judged(made(rising_loses=False))
    assert (stratum.verdict.code, holds(stratum)) == ("usable one-sided", [True, True, True, True, False])
    assert "a falling one is informative, a rising one is not (it rose on 12 steps" in stratum.verdict.text


def test_one_sided_where_no_loss_ever_rose() -> None:
    stratum = judged(made(rising=0))
    assert stratum.verdict.code == "usable one-sided"
    assert "it never rose from a run to the next longer one" in stratum.verdict.text
    falling = stratum.verdict.criteria[3]
    assert falling.text.endswith("; it never rose, and whether longer runs have gained anyhow is not known")


def test_not_usable_where_longer_runs_gain_whatever_the_loss_does() -> None:
    points = [dataclasses.replace(p, value=p.value + 0.1 * (p.step >= 400) + 0.1 * (p.step >= 800)) for p in made()]
    stratum = judged(points)
    assert stratum.study.steps.falling.gained.low > 0.5
    assert stratum.study.steps.rising.num_gained == stratum.study.steps.rising.num_steps == 12
    assert holds(stratum)[3:] == [False, False]
    assert "where it rose, 12 of 12 gained (Fisher's p = 1)" in stratum.verdict.criteria[3].text
    assert stratum.verdict.code == "not usable"


def test_not_usable_where_the_size_alone_is_what_ranks() -> None:
    generator = np.random.default_rng(5)
    points = [
        dataclasses.replace(point, value=0.2 + 0.3 * int(point.model[1:]) + 0.01 * generator.random(), step=0)
        for point in made(rising=0)
    ]
    stratum = judged([dataclasses.replace(p, loss=p.loss - 0.3 * int(p.model[1:])) for p in points])
    assert stratum.statistics.spearman.value < -0.9
    assert stratum.verdict.code == "not usable"
    assert holds(stratum) == [True, False, True, None, None]


def test_not_usable_where_nothing_beats_chance_or_noise() -> None:
    weak = judged([dataclasses.replace(point, baseline=0.9) for point in made()])
    assert (weak.verdict.code, holds(weak)[2]) == ("not usable", False)
    noisy = judged([dataclasses.replace(point, value_standard_error=1.0, baseline=None) for point in made()])
    assert (noisy.verdict.code, holds(noisy)[2]) == ("not usable", False)


def test_not_usable_where_the_order_is_wrong_or_the_groups_are_few() -> None:
    wrong = judged([dataclasses.replace(point, value=1 - point.value, baseline=None) for point in made()])
    assert (wrong.verdict.code, holds(wrong)[0]) == ("not usable", False)
    few = judged([dataclasses.replace(p, cluster=p.data) for p in made()])
    assert few.verdict.code == "not usable"
    assert "its points are of 2 groups, at least 5 are needed" in few.verdict.text
    assert few.answer.startswith("It is not settled whether the validation loss ranks")
    assert "no interval of 2 groups, at least 5 are needed" in few.answer
    assert few.statistics.spearman.best is None
    assert "come from 2 groups; so few groups have no interval." in few.cautions[-1]


def test_lower_is_better_turns_every_condition() -> None:
    column = dataclasses.replace(COLUMN, higher_is_better=False)
    stratum = judged([dataclasses.replace(point, value=1 - point.value, baseline=0.95) for point in made()], column)
    assert (stratum.verdict.code, holds(stratum)) == ("usable", [True] * 5)
    assert stratum.statistics.spearman.value > 0.9
    assert stratum.study.within.statistics.spearman.value > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_is_not_usable(seed: int) -> None:
    generator = np.random.default_rng(seed)
    stratum = judged([dataclasses.replace(point, value=float(generator.random())) for point in made()])
    assert stratum.verdict.code == "not usable"
