"""Charts are valid Vega-Lite, hold exactly the points given, and are readable by everybody."""

import math
from itertools import combinations, pairwise
from typing import Any

import pytest

from harness.rounds import Round
from leaderboard import charts
from leaderboard.charts import (
    AblationBar,
    CostPoint,
    MatrixCell,
    Spread,
    ablation_chart,
    ablation_figure,
    cost_chart,
    family,
    five,
    front_corners,
    matrix_chart,
    rounds_chart,
    specification,
    spread_chart,
    svg,
    training_charts,
    training_figure,
)

HOSTILE = "</text><script>alert(1)</script> \x1b[31m \ud800 datum['x']"


def point(name: str, cost: float | None, score: float, **more: Any) -> CostPoint:
    return CostPoint(name, name.partition(" ")[0], score, score - 0.05, score + 0.05, cost, **more)


def data(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The rows of every data set of a chart."""
    return list(spec["datasets"].values())


def rows_with(spec: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The rows of the one data set that has these columns."""
    (found,) = [rows for rows in data(spec) if rows and all(name in rows[0] for name in names)]
    return found


POINTS = [
    point("vanilla", 0.001, 0.60),
    point("best-of-n n=8", 0.004, 0.70),
    point("self-refine", 0.006, 0.65),  # worse than best-of-n for more
    point("flowreasoner", 0.03, 0.80),
    point("aflow", None, 0.75),
    point("oracle", 0.0001, 0.95, ranked=False),
]


def test_a_cost_chart_holds_the_known_points_and_says_the_unknown_ones() -> None:
    spec = cost_chart(POINTS, "usd").to_dict()
    rows = {row["name"]: row for row in rows_with(spec, "name", "family")}
    assert {name: (row["cost"], row["score"]) for name, row in rows.items()} == {
        "vanilla": (0.001, 60.0), "best-of-n n=8": (0.004, 70.0), "self-refine": (0.006, 65.0),
        "flowreasoner": (0.03, 80.0), "oracle": (0.0001, 95.0),
    }  # fmt: skip
    assert (rows["vanilla"]["low"], rows["vanilla"]["high"]) == (55.0, 65.0)
    assert rows["vanilla"]["family"] == "One call"
    assert rows["vanilla"]["took"] == "$0.00100"
    assert [row["ranked"] for row in rows.values()] == [True, True, True, True, False]
    assert spec["title"]["text"] == ["Unknown cost: aflow 75.0 %"]
    assert "aflow 75.0 % at unknown" in spec["description"]


def test_the_front_climbs_in_steps_over_ranked_points_alone() -> None:
    spec = cost_chart(POINTS, "usd").to_dict()
    steps = [(row["cost"], row["score"]) for row in rows_with(spec, "order")]
    assert steps[:-1] == [(0.001, 60.0), (0.004, 60.0), (0.004, 70.0), (0.03, 70.0), (0.03, 80.0)]
    assert steps[-1][0] > 0.03
    assert steps[-1][1] == 80.0
    assert [row["order"] for row in rows_with(spec, "order")] == list(range(6))


def test_equal_points_make_one_corner_and_one_point_a_level_line() -> None:
    twice = [point("vanilla", 1.0, 0.5), point("repair", 1.0, 0.5)]
    assert front_corners(twice, 2.0) == [(1.0, 0.5), (2.0, 0.5)]
    assert front_corners([point("aflow", None, 0.5)], 2.0) == []


@pytest.mark.parametrize(
    ("costs", "kind"), [((1.0, 7.9), "linear"), ((1.0, 8.0), "log"), ((0.0, 20.0), "linear")]
)
def test_the_axis_is_logarithmic_where_costs_lie_far_apart_and_none_is_zero(
    costs: tuple[float, float], kind: str
) -> None:
    points = [point("vanilla", costs[0], 0.5), point("repair", costs[1], 0.6)]
    spec = cost_chart(points, "calls").to_dict()
    scales = [layer["encoding"]["x"]["scale"] for layer in spec["layer"]]
    assert {scale["type"] for scale in scales} == {kind}
    low, high = scales[0]["domain"]
    assert low <= min(costs) <= max(costs) < high


def test_a_chart_without_a_known_cost_is_refused() -> None:
    for draw in (
        lambda: cost_chart([point("aflow", None, 0.5)], "usd"),
        lambda: spread_chart([Spread("aflow", "aflow", (), 3)], "usd"),
        lambda: rounds_chart([]),
        lambda: matrix_chart([]),
        lambda: ablation_chart([]),
        lambda: training_figure([{"number": 1.0}]),
    ):
        with pytest.raises(ValueError, match="found none"):
            draw()


def test_labels_cover_neither_each_other_nor_a_point_and_none_leaves_the_plot() -> None:
    many = [point(f"method-{n}", 1.0 + 0.7 * (n % 5), 0.5 + 0.013 * (n % 11)) for n in range(40)]
    rows = rows_with(cost_chart(many, "calls").to_dict(), "label")
    for size in charts.WIDTHS:
        shown = [row for row in rows if row[f"{size}_show"]]
        assert 0 < len(shown) < len(rows)
    alone = rows_with(cost_chart(many[:1], "calls").to_dict(), "label")
    assert all(alone[0][f"{size}_show"] for size in charts.WIDTHS)
    at = [(0.5, 0.5), (0.52, 0.5), (0.98, 0.5)]
    placed = charts._labels(at, ["left one", "right one", "at the edge"], 640)
    assert [one["align"] for one in placed] == ["right", "left", "right"]
    crossed = charts._labels([(0.5, 0.5)], ["level"], 640, [((0.5, 0.5), (1.0, 0.5))])
    assert crossed[0]["align"] == "right"  # beside the line that leaves to the right


def test_the_front_and_the_best_of_each_family_are_always_named() -> None:
    crowd = [point(f"aflow n={n}", 5.0 + 0.01 * n, 0.5) for n in range(30)]
    named = [
        point("vanilla", 5.0, 0.51), point("repair", 5.1, 0.52),  # the front
        point("self-refine", 5.1, 0.51), point("flowreasoner", 5.2, 0.505),  # best of their kind
    ]  # fmt: skip
    rows = rows_with(cost_chart([*crowd, *named], "calls").to_dict(), "label")
    for size, width in charts.WIDTHS.items():
        shown = {row["name"] for row in rows if row[f"{size}_show"]}
        assert shown >= {one.name for one in named} | {"aflow n=0"}, size
        assert len(shown) < len(rows)
        assert any(row[f"{size}_far"] for row in rows)  # tied to its point by a line
        boxes = [
            charts._box((0.0, 0.0), row[f"{size}_align"], row[f"{size}_dx"], row[f"{size}_dy"], 9)
            for row in rows if row[f"{size}_far"]
        ]  # fmt: skip
        assert all(abs(box[0]) < width for box in boxes)


def test_a_label_is_the_method_and_what_tells_it_from_others_of_that_method() -> None:
    names = ["vanilla", "flowreasoner evals=1 rounds=3", "flowreasoner workflow=single evals=1",
             "best-of-n n=8"]  # fmt: skip
    points = [point(name, 1.0 + n, 0.5) for n, name in enumerate(names)]
    assert charts._point_names(points) == [
        "vanilla", "flowreasoner rounds=3", "flowreasoner workflow=single", "best-of-n",
    ]  # fmt: skip
    several = [CostPoint("vanilla n=1, small", "vanilla", 0.5, None, None, 1.0),
               CostPoint("vanilla n=1, big", "vanilla", 0.5, None, None, 2.0)]  # fmt: skip
    assert charts._point_names(several) == ["vanilla, small", "vanilla, big"]
    assert charts._point_names(several[:1]) == ["vanilla"]


def test_a_spread_says_quartiles_mean_and_every_problem_while_there_are_few() -> None:
    costs = tuple(float(n) for n in range(1, 22))  # 1 to 21: percentiles at whole numbers
    assert five(costs) == (2.0, 6.0, 11.0, 16.0, 20.0)
    assert five((3.0,)) == (3.0,) * 5
    rows = [Spread("vanilla", "vanilla", costs), Spread("aflow", "aflow", (5.0,), unknown=2)]
    spec = spread_chart(rows, "calls").to_dict()
    boxes = {row["name"]: row for row in rows_with(spec, "p50")}
    assert [boxes["vanilla"][k] for k in ("p05", "p25", "p50", "p75", "p95", "mean")] == [
        2.0, 6.0, 11.0, 16.0, 20.0, 11.0,
    ]  # fmt: skip
    assert sorted(r["cost"] for r in rows_with(spec, "name", "cost") if r["name"] == "vanilla") == [
        *costs
    ]
    assert spec["title"]["text"] == ["Unknown: aflow (2 problems)"]
    crowd = [Spread("vanilla", "vanilla", tuple(map(float, range(charts.STRIP + 1))))]
    dots = rows_with(spread_chart(crowd, "calls").to_dict(), "name", "cost")
    assert [dot["cost"] for dot in dots] == [float(charts.STRIP)]  # the dearest alone


def in_round(number: int, passes: float, hidden: float | None, calls: float) -> Round:
    return Round(number, 4, True, 1.0, 1.0, passes, passes, passes, hidden, None, calls)


def test_rounds_stand_beside_what_best_of_n_has_for_no_more_calls() -> None:
    own = [in_round(1, 0.5, 0.25, 2.0), in_round(2, 0.75, None, 4.0), in_round(3, 1.0, 0.5, 6.0)]
    rival = [in_round(n, 0.9, 0.3 + n / 100, float(n)) for n in range(1, 10)]
    rows = rows_with(rounds_chart(own, rival).to_dict(), "line", "round")
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault(row["line"], []).append((row["taken"], row["share"]))
    assert lines == {
        "all feedback": [(2.0, 50.0), (4.0, 75.0), (6.0, 100.0)],
        "all hidden": [(2.0, 25.0), (6.0, 50.0)],
        "best-of-n, all hidden": [(float(n), 30.0 + n) for n in range(1, 7)],
    }
    alone = rows_with(rounds_chart(own).to_dict(), "line", "round")
    assert {row["line"] for row in alone} == {"all feedback", "all hidden"}


def test_the_names_of_close_lines_stand_apart() -> None:
    own = [in_round(1, 0.50, 0.49, 1.0), in_round(2, 0.60, 0.60, 2.0)]
    spec = rounds_chart(own, [in_round(1, 0.6, 0.6, 2.0)]).to_dict()
    places = sorted(row["at"] for row in rows_with(spec, "line", "at"))
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    line = 14 * (high - low) / 280
    assert all(b - a > 0.99 * line for a, b in pairwise(places))


def test_names_of_lines_that_end_at_zero_stand_over_the_axis() -> None:
    own = [in_round(1, 0.5, 0.25, 1.0), in_round(2, 0.0, 0.0, 2.0)]
    spec = rounds_chart(own, own).to_dict()
    places = sorted(row["at"] for row in rows_with(spec, "line", "at"))
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    line = 14 * (high - low) / 280
    assert low == 0.0
    assert places[0] >= line
    assert all(b - a > 0.99 * line for a, b in pairwise(places))


def test_a_matrix_has_a_cell_for_each_problem_and_system_and_says_it_in_marks() -> None:
    cells = [
        MatrixCell("a/0", "vanilla", 1.0, 1), MatrixCell("a/1", "vanilla", 0.0, 1),
        MatrixCell("a/0", "flow", 0.4, 5), MatrixCell("a/1", "flow", None, 0),
    ]  # fmt: skip
    spec = matrix_chart(cells).to_dict()
    rows = rows_with(spec, "problem", "system")
    assert [(r["problem"], r["system"], r["share"], r["mark"]) for r in rows] == [
        ("a/0", "vanilla", 100.0, "✓"), ("a/1", "vanilla", 0.0, "✗"),
        ("a/0", "flow", 40.0, "40"), ("a/1", "flow", None, "?"),
    ]  # fmt: skip
    assert spec["layer"][0]["encoding"]["x"]["sort"] == ["a/0", "a/1"]
    many = [MatrixCell(f"a/{n}", "flow", 1.0, 1) for n in range(164)]
    wide = matrix_chart(many).to_dict()
    assert len(wide["layer"]) == 1
    assert wide["layer"][0]["encoding"]["x"]["title"] == "164 problems"


BARS = [
    AblationBar("Claude 3.5", 0.58, 0.52, 0.63, broken=0.125),
    AblationBar("Claude 3.5", 0.6112, reported=True),
    AblationBar("Qwen", None),
]


def test_an_ablation_shows_measured_reported_and_broken_shares_apart() -> None:
    rows = rows_with(ablation_chart(BARS, title="meta-agents").to_dict(), "kind")
    assert [(r["name"], r["kind"], r["value"], r["said"]) for r in rows] == [
        ("Claude 3.5", "pass@1", 58.0, "58.0"),
        ("Claude 3.5", "broken workflows", 12.5, "12.5 broken"),
        ("Claude 3.5", "the paper's", 61.12, "61.1"),
        ("Qwen", "pass@1", None, "unknown"),
    ]
    assert rows[0]["end"] == 63.0  # the text stands beyond the whisker


def test_training_has_a_chart_for_each_number_and_gaps_where_one_is_none() -> None:
    steps = [{"number": float(n), "loss": 1 / n, "kl": math.nan if n == 2 else 0.1 * n}
             for n in range(1, 4)] + [{"number": 4.0, "reward": 1.0}]  # fmt: skip
    found = training_charts(steps)
    assert list(found) == ["loss", "kl", "reward"]
    assert [row["value"] for row in rows_with(found["loss"].to_dict(), "step")] == [1, 0.5, 1 / 3]
    kl = found["kl"].to_dict()
    assert [row["step"] for row in rows_with(kl, "step")] == [1.0, 3.0]
    assert kl["title"]["subtitle"] == ["1 not finite, left out"]


@pytest.mark.parametrize("name", ["\\", "__proto__", '"', "a.b[0]", "it's"])
def test_a_training_chart_is_drawn_whatever_its_number_is_called(name: str) -> None:
    steps = [{"number": n, name: float(n)} for n in (1, 2)]
    (chart,) = training_charts(steps).values()
    drawn = svg(chart)
    assert drawn.count("<path") > 2
    assert "Value: 2" in drawn  # of a point's tooltip, which is Vega's expression


@pytest.mark.parametrize("value", [0.5, 0.0, -1e-5])
def test_a_number_that_never_changes_is_one_tick_in_the_middle(value: float) -> None:
    (chart,) = training_charts([{"number": n, "lr": value} for n in range(3)]).values()
    y = chart.to_dict()["layer"][0]["encoding"]["y"]
    assert y["axis"]["values"] == [value]
    low, high = y["scale"]["domain"]
    assert low < value < high
    assert (low + high) / 2 == pytest.approx(value)
    assert "0.500000" not in svg(chart)


def every_chart(dark: bool) -> list[Any]:
    hostile = [point(HOSTILE, 1.0, 0.5), point("vanilla", 2.0, 0.6)]
    rounds = [in_round(n, 0.5, 0.4, float(n)) for n in range(1, 4)]
    return [
        cost_chart(hostile, "usd", dark=dark),
        spread_chart([Spread(HOSTILE, HOSTILE, (1.0, 2.0))], "time", dark=dark),
        rounds_chart(rounds, rounds, dark=dark),
        matrix_chart([MatrixCell(HOSTILE, HOSTILE, 0.5, 2)], dark=dark),
        ablation_chart([AblationBar(HOSTILE, 0.5, 0.4, 0.6, broken=0.1)], dark=dark),
        ablation_figure({"a": BARS, HOSTILE: BARS}, dark=dark),
        training_figure([{"number": n, HOSTILE: 1.0} for n in range(3)], dark=dark),
    ]


def test_every_chart_is_valid_and_becomes_a_drawing_in_which_names_are_text() -> None:
    for chart in [*every_chart(False), every_chart(True)[0]]:
        drawn = svg(chart)  # to_dict validates against the schema of Vega-Lite
        assert drawn.startswith("<svg")
        assert "<script" not in drawn
        assert "\x1b" not in drawn
        assert "href=" not in drawn


def test_the_same_rows_make_the_same_drawing() -> None:
    assert svg(cost_chart(POINTS, "usd")) == svg(cost_chart(POINTS, "usd"))


def test_a_chart_as_wide_as_its_place_gets_a_width_in_a_file() -> None:
    chart = cost_chart(POINTS, "usd")
    assert chart.to_dict()["width"] == "container"
    assert specification(chart, width=420)["width"] == 420
    assert 'width="420"' in svg(chart, width=420)


def test_every_method_has_a_family_with_a_shape_of_its_own() -> None:
    from baselines import REGISTRY

    assert {family(name) for name in REGISTRY} == set(charts.SHAPES) - {charts.OTHER}
    assert family("brought-by-somebody") == charts.OTHER
    assert len(set(charts.SHAPES.values())) == len(charts.SHAPES)


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    return sum(k * c for k, c in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def linear(colour: str) -> list[float]:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# How a dichromat sees linear RGB: Machado, Oliveira and Fernandes 2009, table 1, severity 1.
SEEN = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
               (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
               (-0.011820, 0.042940, 0.968881)),
}  # fmt: skip


def oklab(rgb: list[float]) -> list[float]:
    """Ottosson 2020: equal distances look about equally large; a hundredth can just be seen."""
    r, g, b = (max(0.0, c) for c in rgb)
    lms = [
        (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3),
        (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3),
        (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3),
    ]
    rows = ((0.2104542553, 0.7936177850, -0.0040720468),
            (1.9779984951, -2.4285922050, 0.4505937099),
            (0.0259040371, 0.7827717662, -0.8086757660))  # fmt: skip
    return [sum(k * c for k, c in zip(row, lms, strict=True)) for row in rows]


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out_from_the_page_and_are_told_apart_by_the_colour_blind(dark: bool) -> None:
    colours = charts.palette(dark)
    for colour in colours.values():
        assert contrast(colour, charts.PAGE[dark]) >= 3
    for colour in (charts.INK[dark], charts.FAINT[dark]):
        assert contrast(colour, charts.PAGE[dark]) >= 4.5
    for kind, matrix in SEEN.items():
        seen = {
            name: oklab([sum(k * c for k, c in zip(row, linear(colour), strict=True))
                         for row in matrix])
            for name, colour in colours.items()
        }  # fmt: skip
        for one, other in combinations(seen, 2):
            assert math.dist(seen[one], seen[other]) > 0.08, (kind, one, other)
