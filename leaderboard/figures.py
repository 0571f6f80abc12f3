"""Figures for a paper as PDF, SVG or PNG: the charts of the board, drawn without a browser.

`cost`, `ablation` and `rounds` are those of `leaderboard.charts`; here is what goes into them.
`ablation` is Figure 4 of FlowReasoner (arXiv:2504.15257), `size` asks its claim that workflows are
finer where problems are harder, and `cases` prints the listings of `leaderboard.cases`. Rows that
may not share a ranking are never in one chart. Needs altair and vl-convert-python (the extra
`leaderboard`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.aggregate import mean_interval
from harness.errors import UsageError
from harness.metrics import count
from harness.page import things
from harness.rounds import Unit
from leaderboard.cases import COMMAND, Case, find_cases, listing, round_rows, searched
from leaderboard.costs import sample_cost
from leaderboard.export import title
from leaderboard.queries import BoardRow, best_of_n, board, groups, run_rounds

if TYPE_CHECKING:
    import altair as alt
    from duckdb import DuckDBPyConnection

    from leaderboard.charts import AblationBar

Name = Literal["cost", "ablation", "rounds", "cases", "size"]
NAMES: tuple[Name, ...] = ("cost", "ablation", "rounds", "cases", "size")
FORMATS = ("pdf", "svg", "png")
INSTALL = "pip install 'flowreasoner-harness[leaderboard]'"
MOST = 6  # panels of a figure
PANEL = 560  # px
WHOLE = ("$schema", "autosize", "config", "datasets")  # of a chart as a whole, not of its parts
MARGIN, LETTER = 4.0, 6.0  # px, of a listing and of one of its letters
SCALE = 2.0  # of a PNG: pixels per px
MEASURED = "python -m harness eval --method vanilla -b humaneval"

# One row a run: the workflows that its meta-agent wrote, and those of them that gave no answer.
BROKEN = """
WITH asked AS (SELECT unnest(?::TEXT[]) AS run_id), last AS (
  SELECT DISTINCT ON (run_no, result_key, round) rounds.*, run_id
  FROM rounds JOIN runs USING (run_no) JOIN asked USING (run_id)
  WHERE about IS NULL AND round IS NOT NULL
  ORDER BY run_no, result_key, round, segment DESC, logged_at DESC, rounds.rowid DESC
)
SELECT run_id, count(*), count(error) FROM last
WHERE NOT (parent IS NULL AND reply_sha IS NULL AND error IS NULL)  -- the template
GROUP BY run_id
"""


@dataclass(frozen=True)
class SizeBar:
    """How large the chosen workflows of a run are, in one way, on average over problems."""

    benchmark: str
    measure: str  # "Operators" or "Model calls"
    value: float
    low: float | None  # 95% interval; None: one problem
    high: float | None
    problems: int
    run: str


def figure(
    connection: DuckDBPyConnection,
    results_dir: Path,
    name: str,
    format: str,
    *,
    runs: Sequence[str] | None = None,
) -> bytes:
    """A figure as `pdf`, `svg` or `png`; `runs` names the runs that it may show.

    Raises UsageError: unknown name or format, nothing to draw (with what to run), or a package that
    is missing (with how to install it); StoreError when a journal that is needed has gone.
    """
    if name not in NAMES:
        raise UsageError(f"{name}: no such figure; one of {', '.join(NAMES)}")
    if format not in FORMATS:
        raise UsageError(f"{format}: unknown format of a figure; one of {', '.join(FORMATS)}")
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError as error:
        raise UsageError(f"figures need {error.name}: `{INSTALL}`") from error
    draw: Callable[..., dict[str, Any]] = {
        "cost": _cost, "ablation": _ablation, "rounds": _rounds, "size": _size, "cases": _cases,
    }[name]  # fmt: skip
    spec = draw(connection, results_dir, runs)
    if format == "svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    spec = spec | {"background": "white"}
    if format == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec))
    return bytes(vl_convert.vegalite_to_png(spec, scale=SCALE))


def _cost(
    connection: DuckDBPyConnection, results_dir: Path, runs: Sequence[str] | None
) -> dict[str, Any]:
    """Score against dollars, a panel a ranking; against tokens where all was free."""
    del results_dir
    from leaderboard.charts import CostPoint, cost_chart

    rows = [row for row in board(connection) if row.kind != "simulated"]
    if runs is not None:
        wanted = {row.run_id for row in searched(connection, runs, "cost")}
        rows = [row for row in rows if row.run_id in wanted]
    panels: list[tuple[str, Any]] = []
    apart = sorted(groups(rows), key=lambda group: -len(group.ranked))
    for group in apart:
        unit: Literal["usd", "tokens"] = "usd"
        if not any(sample_cost(row, "usd") for row in group.rows):
            unit = "tokens"
        points = [
            CostPoint(_label(row, group.rows) + (f" ({note})" if note else ""), row.method,
                      row.estimate.value, row.estimate.low, row.estimate.high,
                      sample_cost(row, unit), not note, row.run_id)
            for row in group.rows
            for note in [group.note(row)]
            if row.estimate.value is not None
        ]  # fmt: skip
        if any(point.cost is not None for point in points):
            panels.append((title(group), cost_chart(points, unit)))
    if not panels:
        raise UsageError(f"cost: no measured run whose cost is known; `{MEASURED}` makes one")
    return _stacked(panels, "cost")


def _label(row: BoardRow, beside: Sequence[BoardRow]) -> str:
    """A row's name, with its worker where there are several."""
    several = len({other.worker for other in beside}) > 1
    return f"{row.named}, {row.worker.rpartition('/')[2]}" if several else row.named


def _rounds(
    connection: DuckDBPyConnection, results_dir: Path, runs: Sequence[str] | None
) -> dict[str, Any]:
    """Feedback and hidden score by round beside best-of-n at equal calls, a panel a run."""
    del results_dir
    from leaderboard.charts import rounds_chart

    panels: list[tuple[str, Any]] = []
    unit: Unit = "calls"
    for row in searched(connection, runs, "rounds"):
        found = run_rounds(connection, row.run_id)
        known = [one for one in found if getattr(one, unit) is not None]
        if not any(one.hidden is not None or one.passes is not None for one in known):
            continue
        rival = best_of_n(connection, row)
        said = f"{row.named} on {row.benchmark}, worker {row.worker}"
        said += f", meta-agent {row.meta}" if row.meta else ""
        said += "" if rival else "; no best-of-n run beside it"
        panels.append((said, rounds_chart(found, rival and rival[1], unit)))
    if not panels:
        raise UsageError(f"rounds: no run with scores by round; `{COMMAND}` makes one")
    return _stacked(panels, "rounds")


def ablation(
    connection: DuckDBPyConnection, runs: Sequence[str] | None = None
) -> dict[str, list[AblationBar]]:
    """{title: bars} of Figure 4's two panels: meta-agents under one worker, workers under one.

    From runs of FlowReasoner that share a ranking, level and knobs: those with the most meta-agents
    and workers, the newest of several. A panel is left out where only one thing was exchanged.
    Raises UsageError where neither can be drawn.
    """
    rows = searched(connection, runs, "ablation")
    apart: dict[tuple[object, ...], list[BoardRow]] = {}
    for row in rows:
        apart.setdefault((row.ranking, row.level, row.named), []).append(row)
    panels: dict[str, list[AblationBar]] = {}
    for fixed, exchanged, words in (
        ("worker", "meta", "Meta-agents"), ("meta", "worker", "Workers"),
    ):  # fmt: skip
        found: list[tuple[int, float, str, dict[str, BoardRow]]] = []
        for members in apart.values():
            for value in {getattr(row, fixed) for row in members}:
                same = [row for row in members if getattr(row, fixed) == value]
                most = max(row.estimate.problems for row in same)
                newest: dict[str, BoardRow] = {}
                for row in sorted(same, key=lambda row: (row.started_at or 0.0, row.run_id)):
                    if row.estimate.problems == most and getattr(row, exchanged):
                        newest[getattr(row, exchanged)] = row
                latest = max((row.started_at or 0.0 for row in newest.values()), default=0.0)
                found.append((len(newest), latest, str(value), newest))
        many, _, value, bars = max(found, key=lambda one: one[:3])
        if many > 1:
            first = next(iter(bars.values()))
            name = f"{words}, {fixed.replace('meta', 'meta-agent')} {value}: {first.benchmark}"
            panels[f"{name}, {first.named}"] = _bars(connection, bars)
    if not panels:
        raise UsageError(
            "ablation: needs runs of flowreasoner that share all but the meta-agent, or all but "
            f"the worker; `{COMMAND} --meta OTHER` makes one"
        )
    return panels


def _bars(connection: DuckDBPyConnection, rows: Mapping[str, BoardRow]) -> list[AblationBar]:
    """A bar for each row, the best first."""
    from leaderboard.charts import AblationBar

    shares = broken_shares(connection, [row.run_id for row in rows.values()])
    tails = {name: name.rpartition("/")[2] for name in rows}
    if len(set(tails.values())) < len(tails):  # they differ in their providers alone
        tails = {name: name for name in rows}
    bars = [
        AblationBar(tails[name], row.estimate.value, row.estimate.low,
                    row.estimate.high, shares.get(row.run_id))
        for name, row in rows.items()
    ]  # fmt: skip
    return sorted(bars, key=lambda bar: (-(bar.score or 0.0), bar.name))


def broken_shares(connection: DuckDBPyConnection, run_ids: Sequence[str]) -> dict[str, float]:
    """{run: share of the workflows that its meta-agent wrote and that gave no answer}."""
    found = connection.execute(BROKEN, [list(run_ids)]).fetchall()
    return {run_id: broken / written for run_id, written, broken in found if written}


def _ablation(
    connection: DuckDBPyConnection, results_dir: Path, runs: Sequence[str] | None
) -> dict[str, Any]:
    del results_dir
    from leaderboard.charts import ablation_figure

    found: dict[str, Any] = ablation_figure(ablation(connection, runs), width=PANEL).to_dict()
    return found


def sizes(connection: DuckDBPyConnection, runs: Sequence[str] | None = None) -> list[SizeBar]:
    """Operators and calls of the chosen workflows by benchmark, with 95% intervals over problems.

    From the runs of FlowReasoner with one worker, meta-agent and set of knobs that cover the most
    benchmarks, the newest of several; `runs` names one a benchmark instead. A problem is the mean
    of its samples. Raises UsageError where no run has workflows that ran, or two are named on one
    benchmark.
    """
    rows = searched(connection, runs, "size")
    named: dict[str, str] = {}
    for row in rows if runs is not None else ():
        if (other := named.setdefault(row.benchmark, row.run_id)) != row.run_id:
            raise UsageError(
                f"size: {other} and {row.run_id} are both on {row.benchmark}; name one of them"
            )
    apart: dict[tuple[object, ...], dict[str, BoardRow]] = {}
    for row in sorted(rows, key=lambda row: (row.estimate.problems, row.started_at or 0.0)):
        key = (row.worker, row.meta, row.named, row.list, row.protocol, row.level)
        apart.setdefault(key if runs is None else (), {})[row.benchmark] = row
    wide = sorted(
        apart.values(),
        key=lambda by: (-len(by), -max(row.started_at or 0.0 for row in by.values())),
    )
    for chosen in wide:  # a run may have been made without rounds
        bars = [bar for name in sorted(chosen) for bar in _sizes_of(connection, chosen[name])]
        if bars:
            return bars
    raise UsageError(f"size: no run whose workflows ran; `{COMMAND}` makes one")


def _sizes_of(connection: DuckDBPyConnection, row: BoardRow) -> Iterable[SizeBar]:
    found: dict[str, dict[str, list[float]]] = {"Operators": {}, "Model calls": {}}
    for one in round_rows(connection, row.run_id):
        if one.chosen and one.operators is not None and one.calls is not None:
            found["Operators"].setdefault(one.problem_id, []).append(one.operators)
            found["Model calls"].setdefault(one.problem_id, []).append(one.calls)
    for measure, problems in found.items():
        means = [sum(values) / len(values) for values in problems.values()]
        if means:
            value, low, high = mean_interval(means) or (means[0], None, None)
            yield SizeBar(row.benchmark, measure, value, None if low is None else max(0.0, low),
                          high, len(means), row.run_id)  # fmt: skip


def size_chart(bars: Sequence[SizeBar], *, dark: bool = False) -> alt.LayerChart:
    """Mean size of chosen workflows by benchmark, with intervals. Raises ValueError without one."""
    import altair as alt

    from leaderboard.charts import FAINT, FONT, GRID, INK, palette

    if not bars:
        raise ValueError("size: expected a bar, found none")
    records = [
        {
            "benchmark": f"{bar.benchmark} ({things(bar.problems, 'problem')})",
            "measure": bar.measure,
            "value": bar.value,
            "low": bar.low,
            "high": bar.high,
            "said": count(bar.value),
        }
        for bar in bars
    ]
    names = list(dict.fromkeys(str(r["benchmark"]) for r in records))
    measures = list(dict.fromkeys(bar.measure for bar in bars))
    colours = palette(dark)
    most = max(bar.high if bar.high is not None else bar.value for bar in bars)
    axis, scale = (
        "Mean over problems, of one execution",
        alt.Scale(domain=[0, most * 1.12], nice=False),
    )
    x = alt.X("value:Q", title=axis, scale=scale, axis=alt.Axis(format="~r", tickCount=5))
    base = alt.Chart(alt.InlineData(values=records)).encode(
        y=alt.Y("benchmark:N", sort=names, title=None,
                axis=alt.Axis(ticks=False, domain=False, labelLimit=240)),
        yOffset=alt.YOffset("measure:N", sort=measures, scale=alt.Scale(paddingInner=0.2)),
    )  # fmt: skip
    fill = alt.Fill("measure:N", title=None, legend=alt.Legend(orient="top", symbolType="square"),
                    scale=alt.Scale(domain=measures, range=[colours["FlowReasoner"],
                                                            colours["By hand"]]))  # fmt: skip
    drawn = base.mark_bar(cornerRadiusEnd=2).encode(x=x, fill=fill)
    whisker = base.transform_filter("isValid(datum.low)").mark_rule(
        strokeWidth=1.5, color=INK[dark]
    ).encode(x=alt.X("low:Q", title=axis, scale=scale), x2="high:Q")  # fmt: skip
    text = base.transform_calculate(
        end="isValid(datum.high) ? max(datum.value, datum.high) : datum.value"
    ).mark_text(align="left", dx=5, fontSize=11, color=INK[dark]).encode(
        x=alt.X("end:Q", title=axis, scale=scale), text="said:N"
    )  # fmt: skip
    told = "; ".join(f"{r['benchmark']}, {r['measure']} {r['said']}" for r in records)
    chart: alt.LayerChart = (
        alt.layer(drawn, whisker, text)
        .properties(width="container", height=max(90, 34 * len(records)), description=told,
                    autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(background="transparent", font=FONT)
        .configure_view(stroke=None)
        .configure_axis(labelColor=FAINT[dark], titleColor=FAINT[dark], gridColor=GRID[dark],
                        domainColor=GRID[dark], tickColor=GRID[dark], titleFontWeight="normal")
        .configure_legend(labelColor=INK[dark])
    )  # fmt: skip
    return chart


def _size(
    connection: DuckDBPyConnection, results_dir: Path, runs: Sequence[str] | None
) -> dict[str, Any]:
    del results_dir
    from leaderboard.charts import specification

    return specification(size_chart(sizes(connection, runs)), width=PANEL)


def _cases(
    connection: DuckDBPyConnection, results_dir: Path, runs: Sequence[str] | None
) -> dict[str, Any]:
    """Listings as text, one under the other."""
    if runs is not None and len(runs) != 1:
        raise UsageError(f"cases: wants one run, found {len(runs)}")
    found = find_cases(connection, results_dir, runs[0] if runs else None)
    return case_specification(found)


def case_specification(cases: Sequence[Case]) -> dict[str, Any]:
    """Listings as a Vega-Lite chart of text, for a file."""
    from leaderboard.charts import FAINT, FONT, INK

    records: list[dict[str, Any]] = []
    line = 0.0
    for number, case in enumerate(cases, 1):
        heads = listing(f"Case {number}: {case.rule}", 4, 84)
        heads += listing(f"{case.problem_id}: {'; '.join(case.facts)}", 4, 84)
        parts = [("head", said) for said in heads]
        parts += [("code", said) for said in listing(case.code or "(the reply held none)", 40)]
        parts += [("error", said) for said in listing(case.error or "", 4) if said]
        for kind, said in parts:
            code = said.lstrip()
            kept = code.replace("  ", "\u00a0 ")  # which a drawing would fold
            indent = MARGIN + LETTER * (len(said) - len(code))  # and this it would cut off
            records.append({"line": line, "text": kept, "kind": kind, "indent": indent})
            line += 1.0 if kind == "code" else 1.15
        line += 1.2
    shared = {
        "y": {"field": "line", "type": "quantitative", "axis": None,
              "scale": {"domain": [0, line], "reverse": True, "nice": False}},
        "x": {"field": "indent", "type": "quantitative", "scale": None, "axis": None},
        "text": {"field": "text", "type": "nominal"},
    }  # fmt: skip
    styles: dict[str, dict[str, Any]] = {
        "head": {"font": FONT, "fontSize": 12, "fontWeight": 600, "color": INK[False]},
        "code": {"font": "monospace", "fontSize": 10, "color": INK[False]},
        "error": {"font": "monospace", "fontSize": 10, "color": FAINT[False]},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": 600,
        "height": 13 * line,
        "background": "transparent",
        "data": {"values": records},
        "config": {"view": {"stroke": None}},
        "layer": [
            {"transform": [{"filter": f"datum.kind == '{kind}'"}],
             "mark": {"type": "text", "align": "left", "baseline": "top", "limit": 0, **style},
             "encoding": shared}
            for kind, style in styles.items()
        ],
    }  # fmt: skip


def _stacked(panels: Sequence[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Charts of one view each, one under the other, each with its title."""
    from leaderboard.charts import specification

    specs = [(name, specification(chart, width=PANEL)) for name, chart in panels]
    first = specs[0][1]
    if len(specs) == 1:
        return _titled(*specs[0])
    parts: list[dict[str, Any]] = []
    data: dict[str, Any] = {}
    for name, spec in specs[:MOST]:
        own = {k: v for k, v in spec.items() if k not in WHOLE}
        parts.append(_titled(name, own))
        data |= spec.get("datasets", {})
    left = len(specs) - len(parts)
    told = {"title": f"{left} more not drawn; name those of {what} with --runs"} if left else {}
    return {"$schema": first["$schema"], "config": first.get("config", {}), "datasets": data,
            "vconcat": parts, "spacing": 28, **told}  # fmt: skip


def _titled(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart with a title above it; what it said below goes into the lines under the title."""
    from harness.store import plain

    old = spec.get("title")
    under = old.get("subtitle", []) if isinstance(old, dict) else []
    return {**spec, "title": {"text": plain(name), "subtitle": under, "anchor": "start",
                              "limit": PANEL}}  # fmt: skip
