"""The file of a suite: a grid of runs (methods x workers x meta-agents x benchmarks x seeds).

A TOML or YAML file, or the name of one that is shipped (`harness/suites`), holds

    name = "table1"
    summary = "one line"
    [defaults]        # flags of `eval` by name, for every cell: list = "paper", knobs = { .. }
    [budget]          # for all cells together: usd, tokens, minutes
    [grid]            # lists, all crossed with each other: benchmark = [ .. ], seed = [0, 1, 2]
    [[row]]           # one or more, each crossed with the grid
    method = "vanilla"
    worker = ["openai/o1-mini", "openai/gpt-4o-mini"]    # a list in a row is crossed, too

Each combination is a cell: one run, as `eval` would make it, in a run folder of its own. A row's
entry goes before the grid's, and that before the default; tables (`knobs`, `role`, `sampling`, and
`base-urls`: the server of a role) are merged key by key. A `meta`, `role`, `sampling` or
`base-urls` of another section than the row goes only to methods that have the role. Cells run one
after the other; all share the cache, and the budget. The same command again goes on: a cell that is
complete starts nothing.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import baselines
from harness import api, benchmarks
from harness.config import ALIASES, read_table
from harness.errors import UsageError

SHIPPED = Path(__file__).parent / "suites"

_TEXT = ("benchmark", "method", "worker", "meta", "base-url", "list", "protocol", "limit",
         "problems", "reasoning-effort", "cache", "prices", "out", "level", "artifact")  # fmt: skip
_WHOLE = ("n-samples", "max-tokens", "seed", "max-connections", "jobs")
_NUMBER = ("temperature", "top-p")
_TABLE = ("knobs", "role", "sampling", "base-urls")
KEYS = (*_TEXT, *_WHOLE, *_NUMBER, *_TABLE)
_ALIASES = {**ALIASES, "roles": "role", "knob": "knobs", "A": "knobs", "S": "knobs",
            "role-url": "base-urls"}  # fmt: skip
_BUDGET = ("usd", "tokens", "minutes")

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    config: api.Config
    label: str  # short: "humaneval vanilla gpt-4o-mini seed 0"
    row: int  # 1-based, of the file's rows


@dataclass(frozen=True)
class Suite:
    """A file's grid, with what the command line puts in place of its entries."""

    name: str
    summary: str
    file: Path
    defaults: Entry
    grid: Mapping[str, Sequence[Any]]
    rows: Sequence[Entry]
    budget: Mapping[str, float] = field(default_factory=dict)  # usd, tokens, minutes
    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of `Config`, for every cell

    def cells(self) -> list[Cell]:
        """All cells, rows in order, each crossed with the grid in order.

        Cells that only `changes` make equal are one. Raises UsageError that names file and row.
        """
        found: dict[str, Cell] = {}
        for number, row in enumerate(self.rows, 1):
            where = f"{self.file}: [[row]] {number}"
            for entry in self._crossed(row):
                try:
                    config = self._config(entry, row)
                except UsageError as error:
                    raise UsageError(f"{where}: {error}") from None
                key = json.dumps(asdict(config), sort_keys=True, default=str)
                if key in found and not self.changes:
                    raise UsageError(
                        f"{where}: the cell {found[key].label!r} is in row {found[key].row} "
                        "already: keep one"
                    )
                found.setdefault(key, Cell(config, _label(config), number))
        return list(found.values())

    def _crossed(self, row: Entry) -> Iterable[Entry]:
        """Every combination of the grid and of the row's lists, over the defaults."""
        axes = {key: values for key, values in self.grid.items() if key not in row}
        axes |= {key: value for key, value in row.items() if isinstance(value, list)}
        fixed = {key: value for key, value in row.items() if key not in axes}
        for values in itertools.product(*axes.values()):
            own = {**dict(zip(axes, values, strict=True)), **fixed}
            tables = {
                key: _merged(self.defaults[key], own.get(key, {}))
                for key in _TABLE
                if key in self.defaults
            }
            yield {**self.defaults, **own, **tables}

    def _config(self, entry: Entry, row: Entry) -> api.Config:
        """The config of one cell. Raises UsageError for what no benchmark or data is needed for."""
        kept = {key.replace("-", "_"): value for key, value in entry.items()}
        kept |= {key: value for key, value in self.changes.items() if key != "meta"}
        if "method" not in kept or not kept.get("worker"):
            missing = "worker" if "method" in kept else "method"
            raise UsageError(f"no {missing}: name one in the row, [grid] or [defaults]")
        method = baselines.load(kept["method"])
        roles = dict(kept.pop("role", {}))
        if "meta" in kept:
            roles["meta"] = kept.pop("meta")
        if not {"meta", "role"} & row.keys():
            able = {*method.roles, *(roles.keys() - {"meta"} if method.nodes else ())}
            roles = {role: model for role, model in roles.items() if role in able}
        if "meta" in self.changes and "meta" in method.roles:
            roles["meta"] = self.changes["meta"]
        if "sampling" in kept and "sampling" not in row:
            known = {role: set_ for role, set_ in kept["sampling"].items() if role in method.roles}
            kept["sampling"] = known
        kept.pop("base_urls", None)
        if urls := self._urls(entry, row, method.roles):
            kept["base_urls"] = urls
        if "problems" in kept:
            kept["problems"] = [p.strip() for p in kept["problems"].split(",") if p.strip()]
        for name in ("out", "prices"):
            if kept.get(name) is not None:
                kept[name] = Path(kept[name])
        config = api.Config(roles=roles, **kept)
        baselines.knobs(method, config.knobs)
        for name, value, valid in (
            ("benchmark", config.benchmark, (*benchmarks.REGISTRY, *benchmarks.ALIASES)),
            ("protocol", config.protocol, tuple(benchmarks.PROTOCOL_LEVELS)),
            ("cache", config.cache, api.CACHE_MODES),
        ):
            if value is not None and value not in valid:
                raise UsageError(f"unknown {name} {value!r}: {_advice(value, valid)}")
        return config

    def _urls(self, entry: Entry, row: Entry, roles: Sequence[str]) -> dict[str, str]:
        """{role: its server}. One of the file's goes with the file's model, not with another."""
        urls = {
            role: url
            for role, url in entry.get("base-urls", {}).items()
            if role not in self.changes and (role in roles or "base-urls" in row)
        }
        given = self.changes.get("base_urls", {})
        return urls | {role: url for role, url in given.items() if role in roles}


def shipped() -> dict[str, str]:
    """{name: one line} of the suites that come with the harness."""
    return {path.stem: load(path.stem).summary for path in sorted(SHIPPED.glob("*.toml"))}


def load(source: str, **changes: Any) -> Suite:
    """The suite of a file, or of the name of a shipped one; every cell is checked.

    `changes` are fields of `api.Config` (`worker`, `out`, `cache`, `limit`, `data`, ...), and
    `meta`, that go before the file's in every cell; `budget_usd`, `budget_tokens` and
    `budget_minutes` go before [budget]; None changes nothing. Raises UsageError.
    """
    path = _file(source)
    found = read_table(path)
    sections = ("name", "summary", "defaults", "budget", "grid", "row")
    for key in found:
        if key not in sections:
            raise UsageError(f"{path}: unknown key {key!r}: {_advice(key, sections)}")
    given = {name: value for name, value in changes.items() if value is not None}
    budget = _budget(path, _section(path, found, "budget"))
    budget |= {n: given.pop(f"budget_{n}") for n in _BUDGET if f"budget_{n}" in given}
    rows = found.get("row")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: wants one [[row]] or more, each with a method")
    suite = Suite(
        name=str(found.get("name", path.stem)),
        summary=str(found.get("summary", "")),
        file=path,
        defaults=_entry(f"{path}: [defaults]", _section(path, found, "defaults"), lists=False),
        grid=_entry(f"{path}: [grid]", _section(path, found, "grid"), lists=True),
        rows=[_entry(f"{path}: [[row]] {n}", row, lists=None) for n, row in enumerate(rows, 1)],
        budget=budget,
    )
    suite.cells()
    changed = replace(suite, changes=given)
    if given:
        changed.cells()
    return changed


def _file(source: str) -> Path:
    path = Path(source)
    ours = SHIPPED / f"{source}.toml"
    if path.is_file() or not (ours.is_file() or path.suffix == ""):
        return path
    if ours.is_file():
        return ours
    names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.toml")))
    raise UsageError(f"{source}: no such file, and no shipped suite of that name: {names}")


def _section(path: Path, found: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = found.get(name) or {}
    if not isinstance(section, dict):
        raise UsageError(f"{path}: {name} is a table, not {section!r}")
    return section


def _budget(path: Path, section: Mapping[str, Any]) -> dict[str, float]:
    for key, value in section.items():
        if key not in _BUDGET:
            raise UsageError(f"{path}: [budget]: unknown key {key!r}: {_advice(key, _BUDGET)}")
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or isinstance(value, float)) or not 0 <= value < math.inf:
            raise UsageError(f"{path}: [budget]: {key} is a number of at least 0, not {value!r}")
    return dict(section)


def _entry(where: str, table: Mapping[str, Any], *, lists: bool | None) -> dict[str, Any]:
    """A section's values by the flag's name, each checked; lists are wanted, refused or allowed."""
    found: dict[str, Any] = {}
    for given, value in table.items():
        key = str(given).lstrip("-").replace("_", "-")
        key = key if key in KEYS else _ALIASES.get(key, key)
        if key.startswith("budget"):
            raise UsageError(
                f"{where}: {given}: a suite has one budget for all: put it in [budget]"
            )
        if key not in KEYS:
            raise UsageError(f"{where}: unknown key {given!r}: {_advice(key, KEYS)}")
        if key in found:
            raise UsageError(f"{where}: {given!r} sets {key} a second time: keep one")
        if isinstance(value, list) is not lists and lists is not None:
            wrong = "wants a list" if lists else "is one value: a list belongs in [grid] or a row"
            raise UsageError(f"{where}: {key} {wrong}, not {value!r}")
        if isinstance(value, list):
            found[key] = [_value(f"{where}: {key}", key, one) for one in value]
            if not found[key]:
                raise UsageError(f"{where}: {key} is an empty list: no cell would be left")
        else:
            found[key] = _value(f"{where}: {key}", key, value)
    return found


def _value(where: str, key: str, value: Any) -> Any:
    if key == "cache" and isinstance(value, bool):  # YAML reads `off` as false
        return "on" if value else "off"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "limit" and number:
        return str(value)
    if key in _WHOLE:
        fits, wanted = number and isinstance(value, int), "a whole number"
    elif key in _NUMBER:
        fits, wanted = number, "a number"
    elif key in _TABLE:
        fits, wanted = isinstance(value, dict), "a table"
    else:
        fits, wanted = isinstance(value, str), "a text"
    if not fits:
        raise UsageError(f"{where} wants {wanted}, not {value!r}")
    of_role = {"sampling": (dict, "a table of settings"), "base-urls": (str, "a URL")}
    if key in of_role:
        kind, wanted = of_role[key]
        for role, given in value.items():
            if not isinstance(given, kind):
                raise UsageError(f"{where}.{role} wants {wanted}, not {given!r}")
    return value


def _merged(base: Any, over: Any) -> dict[str, Any]:
    """Two tables as one; tables in both are merged in turn."""
    both = {
        key: _merged(base[key], value)
        if isinstance(base.get(key), dict) and isinstance(value, dict)
        else value
        for key, value in over.items()
    }
    return {**base, **both}


def _advice(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(sorted(known))}"


def short(model: str) -> str:
    """A model's name without its provider and folders."""
    return model.rpartition("/")[2].removesuffix(".gguf") or model


def _label(config: api.Config) -> str:
    models = [config.worker or "", *config.roles.values()]
    names = " ".join(short(model) for model in models)
    return f"{config.benchmark} {config.method} {names} seed {config.seed}"
