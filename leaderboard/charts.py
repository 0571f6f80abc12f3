"""Charts that pages show and files hold: the same Vega-Lite, from plain rows.

Every function takes rows of small frozen dataclasses and gives an altair chart; `dark` is for a
dark page. Nothing is queried or counted here but where things are drawn. Colours: those of Wong
2011, Nature Methods 8:441, moved until each has a contrast of 3 with its page (WCAG 2.2, 1.4.11)
and all are told apart by the colour-blind (tested); colour is never alone: a shape, a dash or a
text says the same. A chart that is one view is as wide as its place (`width="container"`), down
to a page of 390 px; those of several views are of a stated width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Literal

from harness.aggregate import pareto_front
from harness.metrics import count, dollars, duration, percent
from harness.rounds import BEST_OF_N, Round, Unit
from harness.store import plain

if TYPE_CHECKING:
    import altair as alt

Measure = Literal["usd", "calls", "tokens", "time"]  # what a sample took, on average
MEASURES: dict[Measure, str] = {"usd": "Dollars", "calls": "Model calls", "tokens": "Tokens",
                                "time": "Seconds"}  # fmt: skip
SAID: dict[Measure, Callable[[float | None], str]] = {
    "usd": dollars, "calls": count, "tokens": count, "time": duration,
}  # fmt: skip
AXIS = {"usd": "$,~r", "calls": ",~r", "tokens": ",~s", "time": ",~r"}  # d3 formats of ticks

# What methods have in common, by which they are coloured: the paper's types, and its controls.
FAMILIES: dict[str, frozenset[str]] = {
    "One call": frozenset({"vanilla", "vanilla-tests"}),
    "Control": frozenset({"best-of-n", "repair", "meta-direct"}),
    "By hand": frozenset({"self-refine", "llm-debate", "llm-blender"}),
    "Searched": frozenset({"autoagents", "adas", "aflow", "maas", "scoreflow"}),
    "FlowReasoner": frozenset({"flowreasoner"}),
}
OTHER = "Other"
SHAPES = {"One call": "circle", "Control": "cross", "By hand": "square", "Searched": "triangle-up",
          "FlowReasoner": "diamond", OTHER: "triangle-down"}  # fmt: skip
LIGHT = {"One call": "#5c5b5b", "Control": "#7f1d82", "By hand": "#0072b2", "Searched": "#008c6a",
         "FlowReasoner": "#d55e00", OTHER: "#5a3a00"}  # fmt: skip
DARK = {"One call": "#c5cddd", "Control": "#da79b2", "By hand": "#54b0ef", "Searched": "#1fd596",
        "FlowReasoner": "#ff8f3f", OTHER: "#f0e442"}  # fmt: skip
PAGE = {False: "#ffffff", True: "#0e1117"}  # what charts are drawn on
INK = {False: "#31333f", True: "#fafafa"}
FAINT = {False: "#6b6d76", True: "#a3a8b4"}  # of axes and lesser texts
GRID = {False: "#e6e7ea", True: "#2b2e38"}
SOLVED = {False: "#0072b2", True: "#56b4e9"}
FAILED = {False: "#e9c9ad", True: "#5a3418"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

HEIGHT = 340  # px of a plot
WIDTHS = {"narrow": 290, "middle": 470, "wide": 640}  # px of plots that labels are placed for
LETTER = 6.3  # px that a letter of a label takes on average, at 11 px
LINE = 13  # px from one label to the next
SPOTS = (("left", 10, 0), ("right", -10, 0), ("center", 0, -14), ("center", 0, 14),
         ("left", 9, -11), ("right", -9, -11), ("left", 9, 11), ("right", -9, 11))  # fmt: skip
# where a label may stand: how it is aligned, and px from its point
FAR = tuple(
    (align, dx, dy)
    for away in range(24, 240, 14)
    for dy in (-away, away)
    for align, dx in (("left", 8), ("right", -8), ("center", 0))
)  # where one that must be there stands instead, tied to its point by a line
DECADE = 8.0  # the least ratio of costs that is drawn on a log axis
LABEL = 30  # characters of a label in a chart
STRIP = 600  # points of single problems that are drawn one by one


@dataclass(frozen=True)
class CostPoint:
    """One row in a chart of score against what a sample took."""

    name: str  # its label
    method: str  # which gives colour and shape
    score: float  # pass@1, a share
    low: float | None  # 95% interval
    high: float | None
    cost: float | None  # mean of a sample, in the chart's unit; None is unknown
    ranked: bool = True  # else it is drawn hollow and is on no front
    run: str = ""  # its run, in the tooltip


@dataclass(frozen=True)
class Spread:
    """What each problem took in one run: a box in the chart of distributions."""

    name: str
    method: str
    costs: tuple[float, ...]  # mean of a problem's samples, in the chart's unit; known ones
    unknown: int = 0  # problems of which it is not known


@dataclass(frozen=True)
class MatrixCell:
    """How one system did at one problem."""

    problem: str
    system: str
    share: float | None  # of its graded samples that passed; None: not asked, or no verdict
    samples: int  # graded


@dataclass(frozen=True)
class AblationBar:
    """One bar of Figure 4: a system whose meta-agent or worker was exchanged."""

    name: str  # of what was exchanged
    score: float | None  # pass@1, a share
    low: float | None = None
    high: float | None = None
    broken: float | None = None  # share of its workflows that gave no answer; None: not known
    reported: bool = False  # a number of the paper, not measured here


def family(method: str) -> str:
    """What a method is drawn as."""
    return next((name for name, members in FAMILIES.items() if method in members), OTHER)


def palette(dark: bool) -> dict[str, str]:
    """The colour of each family on a light or a dark page."""
    return DARK if dark else LIGHT


def cost_chart(
    points: Sequence[CostPoint], unit: Measure, *, dark: bool = False, label: str | None = None
) -> alt.LayerChart:
    """Score in percent against what a sample took, with intervals and the Pareto front.

    The front is a step line over ranked points: what is below it and to its right is solved no
    better for no less. The axis is logarithmic where costs differ 8-fold or more and none is
    zero. Points of the front and the best of each family have a label, the others where there is
    room. Points of unknown cost stand in words below. `label` replaces the name of the axis.
    Raises ValueError where no point has a known cost.
    """
    import altair as alt

    known = [(point, point.cost) for point in points if point.cost is not None]
    if not known:
        raise ValueError("cost chart: expected a point with a known cost, found none")
    costs = [cost for _, cost in known]
    log = _is_log(costs)
    low_x, high_x = _cost_domain(costs, log)
    low_y, high_y = _score_domain([point for point, _ in known])
    at = [(_place(cost, low_x, high_x, log), (100 * point.score - low_y) / (high_y - low_y))
          for point, cost in known]  # fmt: skip
    names = _point_names([point for point, _ in known])
    front = front_corners([point for point in points if point.ranked], high_x)
    place = [(_place(cost, low_x, high_x, log), (100 * score - low_y) / (high_y - low_y))
             for cost, score in front]  # fmt: skip
    lines = list(pairwise(place))
    lines += [
        ((where[0], (100 * point.low - low_y) / (high_y - low_y)),
         (where[0], (100 * point.high - low_y) / (high_y - low_y)))
        for where, (point, _) in zip(at, known, strict=True)
        if point.low is not None and point.high is not None
    ]  # fmt: skip
    must = _leading([point for point, _ in known])
    placed = {size: _labels(at, names, width, lines, must) for size, width in WIDTHS.items()}
    x = alt.X("cost:Q", title=label or f"{MEASURES[unit]} of a sample, on average",
              scale=_scale(low_x, high_x, log), axis=_ticks(low_x, high_x, log, unit))  # fmt: skip
    y = alt.Y("score:Q", title="Problems solved, percent",
              scale=alt.Scale(domain=[low_y, high_y], nice=False, zero=False))  # fmt: skip
    records = [
        {
            "name": plain(point.name),
            "label": names[n],
            "family": family(point.method),
            "cost": cost,
            "score": _percent(point.score),
            "low": None if point.low is None else _percent(point.low),
            "high": None if point.high is None else _percent(point.high),
            "run": plain(point.run),
            "said": f"{percent(point.score)} % ({percent(point.low)} to {percent(point.high)})",
            "took": SAID[unit](cost),
            "ranked": point.ranked,
            **{f"{size}_{k}": v for size, found in placed.items() for k, v in found[n].items()},
        }
        for n, (point, cost) in enumerate(known)
    ]
    base = alt.Chart(_inline(records)).encode(x=x, y=y)
    colour = _family_colour([r["family"] for r in records], dark)
    tips = [
        alt.Tooltip("name:N", title="Method"),
        alt.Tooltip("said:N", title="pass@1"),
        alt.Tooltip("took:N", title=MEASURES[unit]),
        alt.Tooltip("run:N", title="Run"),
    ]
    whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q"), y2="high:Q", color=colour
    )
    marks = base.mark_point(size=110, strokeWidth=2, opacity=1).encode(
        color=colour,
        shape=_family_shape([r["family"] for r in records]),
        fill=alt.condition("datum.ranked", colour, alt.value("transparent")),
        tooltip=tips,
    )
    step = (
        alt.Chart(_inline([{"cost": c, "score": _percent(s), "order": n}
                           for n, (c, s) in enumerate(front)]))
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=FAINT[dark])
        .encode(x=x, y=y, order="order:O")
    )  # fmt: skip
    return _dressed(
        alt.layer(step, whiskers, *_label_layers(base, dark), marks),
        dark,
        height=HEIGHT,
        description=_cost_words(points, unit),
        below=_unknown_words(points),
    )


def front_corners(points: Sequence[CostPoint], end: float) -> list[tuple[float, float]]:
    """(cost, score) of the corners of the Pareto front's steps, up to the cost `end`.

    From each point of the front level to the cost of the next, then up to it.
    """
    known = [(p.cost, p.score) for p in points if p.cost is not None]
    on = sorted({known[n] for n in pareto_front(known)})
    corners: list[tuple[float, float]] = []
    for cost, score in on:
        if corners:
            corners.append((cost, corners[-1][1]))
        corners.append((cost, score))
    if corners and corners[-1][0] < end:
        corners.append((end, corners[-1][1]))
    return corners


def spread_chart(
    rows: Sequence[Spread], unit: Measure, *, dark: bool = False, label: str | None = None
) -> alt.LayerChart:
    """What single problems took, a box for each row: quartiles, 5th and 95th percentile, mean.

    Where there are few, every problem is a dot behind its box; the dearest one always is. Rows
    without a known cost are named below. Raises ValueError where no row has one.
    """
    import altair as alt

    known = [row for row in rows if row.costs]
    if not known:
        raise ValueError("distribution chart: expected a row with a known cost, found none")
    costs = [cost for row in known for cost in row.costs]
    log = _is_log(costs)
    low, high = _cost_domain(costs, log)
    names = _distinct([row.name for row in known])
    span: dict[str, Any] = {"title": label or f"{MEASURES[unit]} of a problem's sample",
            "scale": _scale(low, high, log), "axis": _ticks(low, high, log, unit)}  # fmt: skip
    x = alt.X("cost:Q", **span)
    y = alt.Y("name:N", title=None, sort=names, axis=alt.Axis(labelLimit=150, ticks=False))
    boxes: list[dict[str, Any]] = []
    dots: list[dict[str, Any]] = []
    few = len(costs) <= STRIP
    for row, name in zip(known, names, strict=True):
        found = five(row.costs)
        kind = family(row.method)
        mean = sum(row.costs) / len(row.costs)
        said = ", ".join(
            f"{word} {SAID[unit](value)}"
            for word, value in zip(("5 %", "25 %", "half", "75 %", "95 %"), found, strict=True)
        )
        boxes.append({"name": name, "family": kind, "mean": mean, "said": said,
                      **dict(zip(("p05", "p25", "p50", "p75", "p95"), found, strict=True)),
                      "problems": len(row.costs), "mean_said": SAID[unit](mean)})  # fmt: skip
        seen = row.costs if few else (max(row.costs),)
        dots += [{"name": name, "family": kind, "cost": cost} for cost in sorted(seen)]
    base = alt.Chart(_inline(boxes)).encode(y=y)
    colour = _family_colour([box["family"] for box in boxes], dark, legend=False)
    tips = [
        alt.Tooltip("name:N", title="Method"),
        alt.Tooltip("said:N", title=MEASURES[unit]),
        alt.Tooltip("mean_said:N", title="Mean"),
        alt.Tooltip("problems:Q", title="Problems"),
    ]
    dotted = (
        alt.Chart(_inline(dots)).mark_circle(size=14, opacity=0.35).encode(x=x, y=y, color=colour)
    )
    whisker = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("p05:Q", **span), x2="p95:Q",
                                                      color=colour)  # fmt: skip
    box = base.mark_bar(height=16, fillOpacity=0.35, strokeWidth=1.5, cornerRadius=2).encode(
        x=alt.X("p25:Q", **span), x2="p75:Q", color=colour, stroke=colour, tooltip=tips
    )
    middle = base.mark_tick(thickness=3, size=16).encode(x=alt.X("p50:Q", **span), color=colour)
    mean = base.mark_point(
        shape="diamond", size=50, filled=True, opacity=1, color=INK[dark]
    ).encode(x=alt.X("mean:Q", **span), tooltip=tips)
    missing = [f"{_short(row.name)} ({row.unknown} problems)" for row in rows if row.unknown]
    return _dressed(
        alt.layer(dotted, whisker, box, middle, mean),
        dark,
        height=max(90, 34 * len(known)),
        description=f"{MEASURES[unit]} by problem: "
        + "; ".join(f"{b['name']}: {b['said']}, mean {b['mean_said']}" for b in boxes),
        below=_wrapped("Unknown: " + ", ".join(missing)) if missing else [],
    )


def five(costs: Sequence[float]) -> tuple[float, float, float, float, float]:
    """The 5th, 25th, 50th, 75th and 95th percentile, between neighbours in proportion."""
    if len(costs) == 1:
        return (costs[0],) * 5
    cuts = quantiles(costs, n=20, method="inclusive")
    return cuts[0], cuts[4], cuts[9], cuts[14], cuts[18]


ROUND_AXES: dict[Unit, str] = {
    "calls": "Model calls of a sample, on average",
    "tokens": "Tokens of a sample, on average",
    "usd": "Dollars of a sample, on average",
}
LINES = {"all feedback": ("By hand", [4, 3], "square"),
         "all hidden": ("FlowReasoner", [1, 0], "circle"),
         f"{BEST_OF_N}, all hidden": ("Searched", [7, 3], "triangle-up")}  # fmt: skip


def rounds_chart(
    rounds: Sequence[Round],
    rival: Sequence[Round] | None = None,
    unit: Unit = "calls",
    *,
    dark: bool = False,
) -> alt.LayerChart:
    """Samples whose best program so far passes all feedback, and all hidden, tests, round by round.

    Over what a sample took up to there, so that `rival`, rounds of best-of-n, is beside it at equal
    cost; of the rival only what takes no more is drawn. Raises ValueError where nothing is known.
    """
    import altair as alt

    most = max((taken for one in rounds if (taken := getattr(one, unit)) is not None), default=0.0)
    beside = [one for one in rival or () if (getattr(one, unit) or 0.0) <= most * (1 + 1e-9)]
    curves: dict[str, list[tuple[Round, float | None]]] = {
        "all feedback": [(one, one.passes) for one in rounds],
        "all hidden": [(one, one.hidden) for one in rounds],
        f"{BEST_OF_N}, all hidden": [(one, one.hidden) for one in beside],
    }
    points = [
        {"line": name, "round": one.number, "taken": taken, "share": _percent(value),
         "said": f"{percent(value)} %"}
        for name, values in curves.items()
        for one, value in values
        if value is not None and (taken := getattr(one, unit)) is not None
    ]  # fmt: skip
    if not points:
        raise ValueError("rounds chart: expected a round with a known score, found none")
    names = [name for name in curves if any(point["line"] == name for point in points)]
    low, high = _percent_domain([point["share"] for point in points])
    height = 280
    x = alt.X("taken:Q", title=ROUND_AXES[unit],
              scale=alt.Scale(domain=[0, 1.03 * most], nice=False),
              axis=alt.Axis(format=AXIS[unit], tickCount=6))  # fmt: skip
    tall: dict[str, Any] = {"title": "Samples, percent",
            "scale": alt.Scale(domain=[low, high], nice=False, zero=False)}  # fmt: skip
    y = alt.Y("share:Q", **tall)
    colours = [palette(dark)[LINES[name][0]] for name in names]
    colour = alt.Color("line:N", legend=None, scale=alt.Scale(domain=names, range=colours))
    base = alt.Chart(_inline(points)).encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash("line:N", legend=None, scale=alt.Scale(
            domain=names, range=[LINES[name][1] for name in names]))
    )  # fmt: skip
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(
        shape=alt.Shape("line:N", legend=None, scale=alt.Scale(
            domain=names, range=[LINES[name][2] for name in names])),
        tooltip=[alt.Tooltip("line:N", title="Line"), alt.Tooltip("round:Q", title="Round"),
                 alt.Tooltip("said:N", title="Samples"),
                 alt.Tooltip("taken:Q", title=ROUND_AXES[unit], format=AXIS[unit])],
    )  # fmt: skip
    ends = _line_ends(points, names, low, high, height)
    named = alt.Chart(_inline(ends)).encode(x=x, y=alt.Y("at:Q", **tall), text="line:N")
    style: dict[str, Any] = {"align": "right", "fontSize": 12, "fontWeight": 600}
    halo = named.mark_text(**style, color=PAGE[dark], stroke=PAGE[dark], strokeWidth=4)
    labels = named.mark_text(**style).encode(color=colour)
    return _dressed(
        alt.layer(lines, halo, dots, labels),
        dark,
        height=height,
        description="Samples by round, in percent: " + "; ".join(
            f"{name} " + ", ".join(p["said"] for p in points if p["line"] == name)
            for name in names
        ),
    )  # fmt: skip


def _line_ends(
    points: Sequence[dict[str, Any]], names: Sequence[str], low: float, high: float, height: int
) -> list[dict[str, Any]]:
    """Where the name of each line stands: over its last point, clear of the others and the axis."""
    last = {name: [p for p in points if p["line"] == name][-1] for name in names}
    up = 14 * (high - low) / height  # percent that one line of text takes
    found: list[dict[str, Any]] = []
    for name in sorted(names, key=lambda name: -last[name]["share"]):
        wanted = last[name]["share"] + up
        if found:
            wanted = min(wanted, found[-1]["at"] - 1.1 * up)
        if abs(wanted - last[name]["share"]) < 0.6 * up:
            wanted = last[name]["share"] - up  # below its point rather than over it
        found.append({"line": name, "taken": last[name]["taken"], "at": wanted})
    lowest = low + up  # over the axis and over a point that lies on it
    for end in reversed(found):
        end["at"] = max(end["at"], lowest)
        lowest = end["at"] + 1.1 * up
    return found


def matrix_chart(cells: Sequence[MatrixCell], *, dark: bool = False) -> alt.LayerChart:
    """How often each system solves each problem, in the order of `cells`.

    A system is a line and a problem a column. Where there is room a mark in the cell says the
    same: ✓ all samples, ✗ none, else how many percent; what is not known has no colour. Raises
    ValueError when empty.
    """
    import altair as alt

    if not cells:
        raise ValueError("matrix: expected a cell, found none")
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    systems = list(dict.fromkeys(cell.system for cell in cells))
    shown = dict(zip(systems, _distinct(systems), strict=True))
    labelled = len(problems) <= 40
    records = [
        {"problem": plain(cell.problem), "system": shown[cell.system],
         "share": None if cell.share is None else _percent(cell.share),
         "mark": _mark(cell.share), "strong": cell.share is not None and cell.share > 0.6,
         "said": "unknown" if cell.share is None
         else f"{percent(cell.share)} % of {cell.samples} graded"}
        for cell in cells
    ]  # fmt: skip
    base = alt.Chart(_inline(records)).encode(
        x=alt.X("problem:N", sort=[plain(one) for one in problems],
                title=None if labelled else f"{len(problems):,} problems",
                axis=alt.Axis(labels=labelled, ticks=False, labelAngle=-60, domain=False,
                              labelLimit=110),
                scale=alt.Scale(paddingInner=0.08 if labelled else 0.0)),
        y=alt.Y("system:N", sort=list(shown.values()), title=None,
                axis=alt.Axis(ticks=False, domain=False, labelLimit=150),
                scale=alt.Scale(paddingInner=0.08)),
    )  # fmt: skip
    fill = base.transform_filter("isValid(datum.share)").mark_rect().encode(
        color=alt.Color(
            "share:Q", title="Samples that solve it, percent",
            scale=alt.Scale(domain=[0, 100], range=[FAILED[dark], SOLVED[dark]],
                            interpolate="lab"),
            legend=alt.Legend(orient="top", gradientLength=160, tickCount=2),
        ),
        tooltip=[alt.Tooltip("system:N", title="System"), alt.Tooltip("problem:N", title="Problem"),
                 alt.Tooltip("said:N", title="Solved")],
    )  # fmt: skip
    layers = [fill]
    if len(problems) <= 24:
        layers.append(
            base.mark_text(fontSize=11).encode(
                text="mark:N",
                color=alt.condition("datum.strong", alt.value(PAGE[dark]), alt.value(INK[dark])),
            )
        )
    return _dressed(
        alt.layer(*layers),
        dark,
        height=max(60, 24 * len(systems)),
        description=f"{len(systems)} systems at {len(problems)} problems; the table says the same",
    )


def ablation_chart(
    bars: Sequence[AblationBar], *, title: str | None = None, dark: bool = False
) -> alt.LayerChart:
    """One panel of Figure 4: pass@1 by what was exchanged, and the share of broken workflows.

    Measured bars are filled and carry their interval, those of the paper are outlines. Raises
    ValueError without a bar.
    """
    import altair as alt

    if not bars:
        raise ValueError("ablation: expected a bar, found none")
    names = list(dict.fromkeys(_distinct([bar.name for bar in bars], keep_equal=True)))
    score, reported, broken = "pass@1", "the paper's", "broken workflows"
    records = []
    for bar in bars:
        kind = reported if bar.reported else score
        where = {"name": _short(bar.name)}
        said = "unknown" if bar.score is None else percent(bar.score)
        records.append({**where, "kind": kind, "value": _known(bar.score), "low": _known(bar.low),
                        "high": _known(bar.high), "said": said})  # fmt: skip
        if bar.broken is not None:
            records.append({**where, "kind": broken, "value": _percent(bar.broken), "low": None,
                            "high": None, "said": f"{percent(bar.broken)} broken"})  # fmt: skip
    kinds = [kind for kind in (score, reported, broken) if any(r["kind"] == kind for r in records)]
    for record in records:  # a text stands right of its bar and of its whisker
        record["end"] = record["high"] or record["value"] or 0.0
    fills = {score: palette(dark)["FlowReasoner"], reported: PAGE[dark],
             broken: palette(dark)["One call"]}  # fmt: skip
    strokes = {**fills, reported: palette(dark)["FlowReasoner"]}
    scale = alt.Scale(domain=[0, 112], nice=False)
    axis = alt.Axis(values=[0, 20, 40, 60, 80, 100], grid=True)
    several = len(kinds) > 1
    legend = alt.Legend(orient="top", symbolType="square", columns=2) if several else None
    base = alt.Chart(_inline(records)).encode(
        y=alt.Y("name:N", sort=names, title=None,
                axis=alt.Axis(ticks=False, domain=False, labelLimit=150),
                scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("kind:N", sort=kinds, scale=alt.Scale(paddingInner=0.15)),
    )  # fmt: skip
    bar_layer = base.mark_bar(strokeWidth=1.5, cornerRadiusEnd=2).encode(
        x=alt.X("value:Q", title="Percent", scale=scale, axis=axis),
        fill=alt.Fill("kind:N", title=None, scale=alt.Scale(
            domain=kinds, range=[fills[kind] for kind in kinds]),
            legend=legend),
        stroke=alt.Stroke("kind:N", scale=alt.Scale(
            domain=kinds, range=[strokes[kind] for kind in kinds]),
            legend=legend,
            title=None),
        tooltip=[alt.Tooltip("name:N", title="Name"), alt.Tooltip("kind:N", title="What"),
                 alt.Tooltip("said:N", title="Percent")],
    )  # fmt: skip
    whisker = base.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_rule(
        strokeWidth=1.5, color=INK[dark]
    ).encode(x=alt.X("low:Q", title="Percent", scale=scale), x2="high:Q")  # fmt: skip
    text = base.mark_text(align="left", dx=5, fontSize=11, color=INK[dark]).encode(
        x=alt.X("end:Q", title="Percent", scale=scale), text="said:N"
    )
    return _dressed(
        alt.layer(bar_layer, whisker, text),
        dark,
        height=max(80, 24 * len(records) + 14 * len(names)),
        description=(f"{title}: " if title else "")
        + "; ".join(f"{r['name']}, {r['kind']} {r['said']}" for r in records),
        above=title,
    )


def ablation_figure(
    panels: Mapping[str, Sequence[AblationBar]], *, dark: bool = False, width: int = 520
) -> alt.VConcatChart:
    """Panels of Figure 4 one under the other, by title, for a file."""
    import altair as alt

    drawn = [_bare(ablation_chart(bars, title=title, dark=dark), width)
             for title, bars in panels.items()]  # fmt: skip
    figure: alt.VConcatChart = _configured(alt.vconcat(*drawn, spacing=28), dark)
    return figure


def training_charts(
    steps: Sequence[Mapping[str, float]], *, dark: bool = False
) -> dict[str, alt.LayerChart]:
    """One small chart for each quantity that the steps of a training noted, by its name.

    A step is its `number` and other numbers by name; a value that is no number (nan, infinite) is
    a gap and is counted below.
    """
    import altair as alt

    names = list(dict.fromkeys(name for step in steps for name in step if name != "number"))
    charts = {}
    for name in names:
        found = [(step["number"], step[name]) for step in steps if name in step]
        points = [{"step": n, "value": v} for n, v in found if math.isfinite(v)]
        lost = len(found) - len(points)
        values = {point["value"] for point in points}
        level = len(values) == 1  # of which Vega would print every digit
        scale = alt.Scale(zero=False)
        axis = alt.Axis(tickCount=4)
        if level:
            (value,) = values
            room = abs(value) or 1.0
            scale = alt.Scale(domain=[value - room, value + room], nice=False, zero=False)
            axis = alt.Axis(values=[value], format=".4~g")
        at = sorted({point["step"] for point in points})
        few = {"values": at} if len(at) <= 6 else {"tickMinStep": 1, "tickCount": 5}
        steps_axis = alt.Axis(format=",~r", **few)
        base = alt.Chart(_inline(points)).encode(
            x=alt.X("step:Q", title=None, axis=steps_axis),
            y=alt.Y("value:Q", title=None, scale=scale, axis=axis),
            tooltip=[alt.Tooltip("step:Q", title="Step", format=",~r"),
                     alt.Tooltip("value:Q", title="Value", format=".4~g")],
        )  # fmt: skip
        colour = palette(dark)["By hand"]
        line = base.mark_line(strokeWidth=1.5, color=colour)
        dots = base.mark_circle(size=24 if len(points) <= 60 else 4, color=colour)
        ends = f"from {points[0]['value']:.4g} to {points[-1]['value']:.4g}" if points else "none"
        charts[name] = _dressed(
            alt.layer(line, dots),
            dark,
            height=150,
            description=f"{plain(name)} over {len(points)} steps, {ends}",
            above=_short(name),
            below=[f"{lost} not finite, left out"] if lost else [],
        )
    return charts


def training_figure(
    steps: Sequence[Mapping[str, float]],
    *,
    dark: bool = False,
    columns: int = 2,
    width: int = 260,
) -> alt.ConcatChart:
    """The charts of `training_charts` in rows, for a file. Raises ValueError without a number."""
    import altair as alt

    charts = [_bare(chart, width) for chart in training_charts(steps, dark=dark).values()]
    if not charts:
        raise ValueError("training curves: expected steps with a number, found none")
    joined = alt.concat(*charts, columns=columns, spacing=24)
    figure: alt.ConcatChart = _configured(joined, dark)
    return figure


def svg(chart: Any, *, width: int | None = None) -> str:
    """A chart as an SVG document; one as wide as its place becomes `width` px (640) wide.

    Needs vl-convert-python, of the extra `leaderboard`; no browser and no network.
    """
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification(chart, width=width)))


def specification(chart: Any, *, width: int | None = None) -> dict[str, Any]:
    """A chart as Vega-Lite JSON, for a file: of a width in px, where it was its place's."""
    found: dict[str, Any] = chart.to_dict()
    if found.get("width") == "container":
        found["width"] = width or WIDTHS["wide"]
    return found


def _inline(records: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Rows within the chart itself; no data frame."""
    import altair as alt

    return alt.InlineData(values=[dict(record) for record in records])


def _percent(share: float) -> float:
    """A share in percent as it is drawn; float noise off."""
    return round(100 * share, 6)


def _known(share: float | None) -> float | None:
    return None if share is None else _percent(share)


def _mark(share: float | None) -> str:
    if share is None:
        return "?"
    return "✓" if share >= 1 else "✗" if share <= 0 else percent(share, 0)


def _short(text: str) -> str:
    """A name as a label: one line, plain, its end cut."""
    said = " ".join(plain(text).split())
    return said if len(said) <= LABEL else f"{said[: LABEL - 1]}…"


def _distinct(names: Sequence[str], *, keep_equal: bool = False) -> list[str]:
    """Labels, with a number behind those that would be taken for another one."""
    found: list[str] = []
    for name in map(_short, names):
        again = 1
        label = name
        while label in found and not keep_equal:
            again += 1
            label = f"{name} ({again})"
        found.append(label)
    return found


def _is_log(costs: Sequence[float]) -> bool:
    return min(costs) > 0 and max(costs) >= DECADE * min(costs)


def _cost_domain(costs: Sequence[float], log: bool) -> tuple[float, float]:
    if log:
        room = (max(costs) / min(costs)) ** 0.06
        return min(costs) / room, max(costs) * room
    return 0.0, max(costs) * 1.08 or 1.0


def _score_domain(points: Sequence[CostPoint]) -> tuple[float, float]:
    ends = [e for p in points for e in (p.score, p.low, p.high) if e is not None]
    return _percent_domain([_percent(end) for end in ends])


def _percent_domain(values: Sequence[float]) -> tuple[float, float]:
    """Fives around the values with some room, within 0 to 100 (and a little over)."""
    low = max(0, 5 * math.floor((min(values) - 2) / 5))
    high = min(100, 5 * math.ceil((max(values) + 2) / 5))
    return float(low), float(max(high, low + 5))


def _place(value: float, low: float, high: float, log: bool) -> float:
    """Where a value stands on an axis, in [0, 1]."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _scale(low: float, high: float, log: bool) -> alt.Scale:
    import altair as alt

    if log:
        return alt.Scale(type="log", domain=[low, high], nice=False)
    return alt.Scale(type="linear", domain=[low, high], nice=False, zero=True)


def _ticks(low: float, high: float, log: bool, unit: Measure) -> alt.Axis:
    """Ticks at 1, 2 and 5 times powers of ten; only at these powers where that is enough."""
    import altair as alt

    if not log:
        return alt.Axis(format=AXIS[unit], tickCount=5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 3.5 else (1, 3) if high / low > 300 else (1, 2, 5)
    values = [value for p in powers for s in steps if low <= (value := float(f"{s}e{p}")) <= high]
    return alt.Axis(format=AXIS[unit], values=values)


def _labels(
    at: Sequence[tuple[float, float]],
    names: Sequence[str],
    width: int,
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    must: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Where the label of each point stands in a plot of `width` px: right, left, over or under it.

    `at` are the places of the points in [0, 1], `lines` such pairs of places that a label crosses
    only where it has to. One that would cover another label or a point is not drawn: `show` is
    False (its row is in the tooltip and in the table beside). Those of `must` come first, and where
    there is no room they stand farther off, tied to their points by a line: `far` is True.
    """
    spots = [(x * width, (1 - y) * HEIGHT) for x, y in at]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    thin = [(min(x, u) * width, (1 - max(y, v)) * HEIGHT - 1, max(x, u) * width + 1,
             (1 - min(y, v)) * HEIGHT + 1) for (x, y), (u, v) in lines]  # fmt: skip
    found = [{"show": False, "far": False, "align": "left", "dx": 0, "dy": 0} for _ in at]
    for n in sorted(range(len(at)), key=lambda n: (n not in must, -at[n][1])):  # the best first
        wide = LETTER * len(names[n])
        for places, far in ((SPOTS, False), (FAR, True))[: 2 if n in must else 1]:
            open_ = []  # (lines crossed, place in `places`, boxes)
            for order, (align, dx, dy) in enumerate(places):
                here = _box(spots[n], align, dx, dy, wide)
                inside = here[0] >= 0 and here[2] <= width and here[1] >= 0 and here[3] <= HEIGHT
                if inside and not any(_overlap(here, other) for other in taken):
                    tie = _steps(spots[n], dx, dy) if far else []
                    crossed = sum(_overlap(here, line) for line in thin)
                    crossed += 3 * sum(_overlap(one, other) for one in tie for other in taken)
                    open_.append((crossed + abs(dy) / 40 if far else crossed, order, [here, *tie]))
            if open_:
                _, order, boxes = min(open_)
                taken += boxes
                align, dx, dy = places[order]
                found[n] = {"show": True, "far": far, "align": align, "dx": dx, "dy": dy}
                break
    return found


def _box(
    spot: tuple[float, float], align: str, dx: float, dy: float, wide: float
) -> tuple[float, float, float, float]:
    """What a label takes, in px: left, upper, right and lower edge."""
    left = spot[0] + dx - {"left": 0.0, "right": wide, "center": wide / 2}[align]
    return left, spot[1] + dy - LINE / 2, left + wide, spot[1] + dy + LINE / 2


def _steps(
    spot: tuple[float, float], dx: float, dy: float
) -> list[tuple[float, float, float, float]]:
    """What the line from a point to its label takes, as small boxes, clear of the point."""
    share = (n / 10 for n in range(2, 9))
    at = [(spot[0] + s * dx, spot[1] + s * dy) for s in share if abs(s * dy) > 9]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in at if abs(y - spot[1]) < abs(dy) - LINE / 2]


def _leading(points: Sequence[CostPoint]) -> frozenset[int]:
    """The points that have a label: those of the front, and the best of each family."""
    ranked = [(n, point) for n, point in enumerate(points) if point.ranked]
    front = pareto_front([(point.cost, point.score) for _, point in ranked])
    found = {ranked[place][0] for place in front}
    best: dict[str, int] = {}
    order = sorted(enumerate(points), key=lambda one: (not one[1].ranked, -one[1].score,
                                                       one[1].cost or 0.0))  # fmt: skip
    for n, point in order:
        best.setdefault(family(point.method), n)
    return frozenset(found | set(best.values()))


def _point_names(points: Sequence[CostPoint]) -> list[str]:
    """Labels: the method, and of the rest of its name what others of that method do not share.

    A name is the method with its knobs and, after a comma, its worker.
    """
    parts = [(first.split(), rest) for first, _, rest in
             (plain(point.name).partition(", ") for point in points)]  # fmt: skip
    workers = {rest for _, rest in parts}
    found = []
    for point, (words, rest) in zip(points, parts, strict=True):
        alike = [set(other) for one, (other, _) in zip(points, parts, strict=True)
                 if one.method == point.method]  # fmt: skip
        shared = set.intersection(*alike)
        own = [*words[:1], *(word for word in words[1:] if word not in shared)]
        named = " ".join(own) + (f", {rest}" if rest and len(workers) > 1 else "")
        found.append(_short(named))
    return found


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return (one[0] < other[2] and other[0] < one[2]) and (one[1] < other[3] and other[1] < one[3])


def _label_layers(base: alt.Chart, dark: bool) -> list[Any]:
    """The labels of points, as they fit into the width that the plot has, and lines to far ones."""
    import altair as alt

    def chosen(what: str) -> str:
        return (
            f"(width < {WIDTHS['middle']} ? datum.narrow_{what} : "
            f"width < {WIDTHS['wide']} ? datum.middle_{what} : datum.wide_{what})"
        )

    near = f"({chosen('dy')} > 0 ? -1 : 1) * {LINE / 2}"  # the edge of the label
    tie = base.mark_rule(
        color=FAINT[dark], strokeWidth=1, clip=False,
        opacity=alt.expr(f"{chosen('far')} ? 1 : 0"), x2Offset=alt.expr(chosen("dx")),
        y2Offset=alt.expr(f"{chosen('far')} ? {chosen('dy')} + {near} : 0"),
    ).encode(x2="cost", y2="score")  # fmt: skip
    place: dict[str, Any] = {
        "fontSize": 11, "baseline": "middle", "align": alt.expr(chosen("align")),
        "dx": alt.expr(chosen("dx")), "dy": alt.expr(chosen("dy")),
        "text": alt.expr(f"{chosen('show')} ? datum.label : ''"),
    }  # fmt: skip
    halo = base.mark_text(**place, color=PAGE[dark], stroke=PAGE[dark], strokeWidth=3)
    return [tie, halo, base.mark_text(**place, color=INK[dark])]


def _family_colour(found: Iterable[str], dark: bool, *, legend: bool = True) -> alt.Color:
    import altair as alt

    names = [name for name in SHAPES if name in set(found)]
    return alt.Color(
        "family:N",
        title=None,
        scale=alt.Scale(domain=names, range=[palette(dark)[name] for name in names]),
        legend=_family_legend(names) if legend else None,
    )


def _family_shape(found: Iterable[str]) -> alt.Shape:
    import altair as alt

    names = [name for name in SHAPES if name in set(found)]
    return alt.Shape(
        "family:N",
        title=None,
        scale=alt.Scale(domain=names, range=[SHAPES[name] for name in names]),
        legend=_family_legend(names),
    )


def _family_legend(names: Sequence[str]) -> alt.Legend | None:
    import altair as alt

    return alt.Legend(orient="top", columns=3) if len(names) > 1 else None


def _cost_words(points: Sequence[CostPoint], unit: Measure) -> str:
    """What a chart of costs shows, for those who cannot see it."""
    said = "; ".join(
        f"{_short(p.name)} {percent(p.score)} % at {SAID[unit](p.cost)}" for p in points
    )
    return f"pass@1 against {MEASURES[unit].lower()} a sample: {said}"


def _unknown_words(points: Sequence[CostPoint]) -> list[str]:
    """The rows whose cost is not known, with their scores."""
    said = [f"{_short(p.name)} {percent(p.score)} %" for p in points if p.cost is None]
    return _wrapped("Unknown cost: " + ", ".join(said)) if said else []


def _wrapped(text: str, most: int = 52) -> list[str]:
    """Lines that a phone is wide enough for."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) > most and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def _dressed(
    chart: Any,
    dark: bool,
    *,
    height: int,
    description: str,
    above: str | None = None,
    below: Sequence[str] = (),
) -> alt.LayerChart:
    """A chart as wide as its place, with its words and our type."""
    import altair as alt

    told: dict[str, Any] = {"width": "container", "height": height,
            "description": plain(description),
            "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}  # fmt: skip
    if above:
        told["title"] = alt.TitleParams(text=plain(above), subtitle=list(below), anchor="start")
    elif below:
        told["title"] = alt.TitleParams(
            text=list(below), orient="bottom", anchor="start", offset=8, fontSize=11,
            fontWeight="normal", color=FAINT[dark],
        )  # fmt: skip
    drawn: alt.LayerChart = _configured(chart.properties(**told), dark)
    return drawn


def _bare(chart: alt.LayerChart, width: int) -> alt.LayerChart:
    """A chart as a part of a larger one: of fixed width, and without a configuration."""
    import altair as alt

    part = chart.copy()
    part.width, part.autosize, part.config = width, alt.Undefined, alt.Undefined
    return part


def _configured(chart: Any, dark: bool) -> Any:
    """Our type and lines on a transparent page."""
    import altair as alt

    return chart.configure(  # at once: each call copies the chart with all its rows
        background="transparent",
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=FAINT[dark], titleColor=FAINT[dark], gridColor=GRID[dark],
            domainColor=GRID[dark], tickColor=GRID[dark], labelFontSize=11, titleFontSize=12,
            titleFontWeight="normal", labelOverlap=True,
        ),
        legend=alt.LegendConfig(labelColor=INK[dark], titleColor=FAINT[dark], labelFontSize=12,
                                titleFontWeight="normal", symbolStrokeWidth=2, symbolOpacity=1),
        title=alt.TitleConfig(color=INK[dark], subtitleColor=FAINT[dark], fontSize=13,
                              subtitleFontSize=11, fontWeight=600),
    )  # fmt: skip
