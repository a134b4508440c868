"""Figures as data: which runs over-fitted, scales and ticks, and the same numbers on the page and in files."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.plot import Figure, Panel, Series, colour_names
from unveil_evalharness.published import read_published
from unveil_evalharness.report.figures.data_size import data_size_figure
from unveil_evalharness.report.figures.forecast import Forecasted, forecast_figure
from unveil_evalharness.report.figures.runs import Look, RunPoint, count_text, overfitted
from unveil_evalharness.report.figures.scatter import residual_panel, scatter_panel
from unveil_evalharness.report.papers import paper_files
from unveil_evalharness.report.scales import Scale, tick_text
from unveil_evalharness.report.svg import figure_html

losses = st.floats(0.1, 2.0)


def point(loss: float, value: float = 0.5, **fields: object) -> RunPoint:
    known = {"label": "r", "model": "m", "data": "10 images", "num_images": 10, "steps": 5}
    return RunPoint(**{**known, "loss": loss, "value": value, **fields})


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), losses), max_size=12))
def test_overfitted_means_a_shorter_run_of_the_group_is_lower(runs) -> None:
    expected = [any(g == h and n < m and y < x for h, n, y in runs) for g, m, x in runs]
    assert overfitted(runs) == expected


def test_the_rule_marks_the_published_runs_as_the_published_column_does() -> None:
    table = read_published("xie2023")
    runs = [(row["pair"], row["steps"], row["loss"]) for row in table.iter_rows(named=True)]
    assert overfitted(runs) == table["overfitted"].to_list()
    assert 0 < sum(overfitted(runs)) < 63


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_a_scale_holds_its_values_and_its_ticks(values) -> None:
    scale = Scale.around(values, 0.0, 100.0)
    assert all(0 < scale(value) < 100 for value in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(scale.holds(tick) for tick in ticks)


def test_an_axis_has_three_ticks_or_more_where_round_steps_allow_it() -> None:
    assert Scale(low=6e4, high=1.18e6, start=0.0, end=1.0).ticks() == (2e5, 4e5, 6e5, 8e5, 1e6)


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=8))
def test_a_logarithmic_scale_is_even_in_ratios(values) -> None:
    scale = Scale.around([*values, 0.0, -1.0, math.nan, math.inf], 0.0, 100.0, log=True)
    middle = math.sqrt(scale.low * scale.high)
    assert scale(middle) == pytest.approx(50.0)
    assert all(scale.holds(tick) for tick in scale.ticks())


def test_ticks_are_written_short() -> None:
    texts = [tick_text(value, step) for value, step in ((0.45, 0.05), (125e3, 125e3), (-0.5, 0.5), (0.0, 0.1))]
    assert texts == ["0.45", "125k", "−0.5", "0"]
    assert [count_text(count) for count in (840, 1_000, 125_000, 1_281_167)] == ["840", "1k", "125k", "1.28M"]


def test_residuals_are_those_of_least_squares() -> None:
    points = [point(1.0, 3.0), point(2.0, 1.0), point(3.0, 2.0)]  # line: 3 - 0.5 x
    panel = residual_panel(points, Look.of(points), title="", loss_name="loss", metric="acc1")
    assert panel is not None
    assert [y for series in panel.series for y in series.y] == pytest.approx([0.5, -1.0, 0.5])
    assert residual_panel(points[:2], Look.of(points), title="", loss_name="loss", metric="acc1") is None


def test_a_far_away_baseline_is_not_drawn() -> None:
    near, far = ([point(1.0, 0.5, baseline=base), point(2.0, 0.6, baseline=base)] for base in (0.45, 0.0))
    drawn = [scatter_panel(p, Look.of(p), title="", loss_name="l", metric="m") for p in (near, far)]
    assert [any(series.style == "level" for series in panel.series) for panel in drawn] == [True, False]


def test_looks_tell_models_apart_and_lengths_where_there_is_one_model() -> None:
    two = [point(1.0, model="a"), point(1.0, model="b")]
    assert len({Look.of(two).marker_of(p) for p in two}) == 2
    lengths = [point(1.0, steps=5), point(1.0, steps=9)]
    assert len({Look.of(lengths).marker_of(p) for p in lengths}) == 2
    assert len(set(colour_names(6))) == 6
    assert len(set(colour_names(16))) == 16


def test_a_key_explains_the_markers_of_figures_that_tell_runs_apart_by_them() -> None:
    points = [point(1.0, steps=5), point(1.0, steps=9), point(1.0, steps=9, overfitted=True)]
    look = Look.of(points)
    assert [entry.label for entry in look.key(points, lines=True)] == ["10 images", "5 steps", "9 steps", "over-fitted"]
    assert {entry.marker for entry in look.key(points) if "steps" in entry.label} == {0, 1}
    assert [entry.label for entry in look.key(points, lines=True, markers=False)] == ["10 images", "over-fitted"]


def test_values_over_data_size_have_bars_of_one_standard_error() -> None:
    points = [point(1.0, 0.5, num_images=n, value_standard_error=error) for n, error in ((10, 0.1), (20, None))]
    figure = data_size_figure(points, name="f", metric="acc1")
    assert figure is not None
    (dots,) = (series for series in figure.panels[0].series if series.style == "points")
    assert (dots.low, dots.high) == ((0.4, 0.5), (0.6, 0.5))
    assert figure.notes == ("Bars: one standard error.",)
    bare = data_size_figure([point(1.0, num_images=n) for n in (10, 20)], name="f", metric="acc1")
    assert bare is not None
    assert bare.notes == ()


def test_large_numbers_are_written_short_in_files_too() -> None:
    series = Series(style="line", x=(1.0, 2.0), y=(2e5, 1.2e6))
    svg = paper_files(Figure(name="f", title="t", alternative="a", panels=(_panel(series),))).svg
    assert b"<!-- 400k -->" in svg
    assert b"<!-- 1M -->" in svg
    assert b"1e6" not in svg


def test_forecasts_lie_where_they_are_said_to_lie() -> None:
    runs = [
        Forecasted(label="a", group="g", loss=0.4, measured=0.8, forecast=0.7, low=0.6, high=0.9),
        Forecasted(label="b", group="h", loss=0.5, measured=0.2, forecast=0.5, low=0.4, high=0.6),
        Forecasted(label="c", group="h", loss=0.5, measured=math.nan, forecast=0.5, low=0.4, high=0.6),
    ]
    figure = forecast_figure(runs, name="f", metric="acc1", level=0.9)
    assert figure is not None
    assert "1 of 2 measured values lie inside" in figure.panels[0].subtitle
    assert [y for s in figure.panels[1].series for y in s.y] == pytest.approx([0.1, -0.3])
    assert forecast_figure(runs[2:], name="f", metric="acc1", level=0.9) is None


def test_what_is_not_finite_is_not_drawn_and_many_points_are_thinned() -> None:
    series = Series(style="points", x=(1.0, math.nan, 2.0), y=(1.0, 2.0, math.inf), tips=("one", "two", "three"))
    text = figure_html(Figure(name="f", title="t", alternative="a", panels=(_panel(series),)))
    assert text.count("data-tip") == 1
    assert "nan" not in text
    many = Series(style="points", x=tuple(map(float, range(5000))), y=(0.0,) * 5000, tips=("x",) * 5000)
    text = figure_html(Figure(name="f", title="t", alternative="a", panels=(_panel(many),)))
    assert 1000 < text.count("data-tip") <= 2000
    assert "evenly spaced ones are drawn" in text


def test_words_of_figures_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>\"'"
    series = Series(style="points", x=(1.0,), y=(1.0,), tips=(evil,))
    panel = Panel(title=evil, x_label=evil, y_label=evil, series=(series,), subtitle=evil)
    text = figure_html(Figure(name="f", title=evil, alternative=evil, panels=(panel,), notes=(evil,)))
    assert "<img" not in text
    assert 'alert(1)>"' not in text


def _panel(series: Series) -> Panel:
    return Panel(title="p", x_label="x", y_label="y", series=(series,))
