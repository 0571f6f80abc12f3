"""What to run, as people write it, settled to one form: `Config`, and `evaluate`'s keywords.

Text for a path or a number, a number for a limit, ids with commas: all are understood, and what is
none of it is a one-line UsageError. What a benchmark or a method decides is checked in `prepare`.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from harness.benchmarks import DataSources
from harness.config import SETTINGS, advice, number, setting_of, whole
from harness.errors import UsageError
from harness.replies import Mode as CacheMode

CACHE_MODES: tuple[CacheMode, ...] = ("off", "read", "on")
T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """What to run. None means the default; `prepare` settles it and says so.

    Raises UsageError for values of no use.
    """

    method: str = "flowreasoner"
    benchmark: str = "humaneval"
    worker: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)  # other roles, `meta` among them
    base_url: str | None = None  # of the first model that is not local, worker first
    base_urls: Mapping[str, str] = field(default_factory=dict)  # by role, before `base_url`
    knobs: Mapping[str, Any] = field(default_factory=dict)
    list: str = "full"
    protocol: str | None = None  # none, public, split, aflow; the preset's, else public
    level: str | None = (
        None  # the most that the method may do; None: what it and the protocol allow
    )
    artifact: str | None = None  # a fit's run, or its file; None: that of the very same settings
    limit: str | None = None  # "20", "10-30" or "0.1"
    problems: Sequence[str] | None = None
    n_samples: int = 1
    temperature: float | None = None  # of the worker, as the next three
    max_tokens: int | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by role and setting
    seed: int = 0
    cache: str = "on"  # replies of earlier runs: on, read (nothing new is kept) or off
    prices: Path | None = None  # a file of prices that go before the table's
    max_connections: int | None = None
    jobs: int | None = None  # samples at once
    budget_usd: float | None = None
    budget_tokens: int | None = None
    budget_minutes: float | None = None
    data: DataSources = field(default_factory=DataSources)
    out: Path = Path("results")
    fresh: bool = False
    unsafe_local: bool = False
    run: str | None = None  # go on with this very run, and with no other
    meta: InitVar[str | None] = None  # roles["meta"]

    def __post_init__(self, meta: str | None) -> None:
        for name, settle in _FORMS.items():
            value = getattr(self, name)
            if value is not None or name in _NEEDED:
                object.__setattr__(self, name, settle(_flag(name), value))
        if meta is not None:
            object.__setattr__(self, "roles", {**self.roles, "meta": _text("--meta", meta)})
        if "worker" in self.roles:
            others = {role: model for role, model in self.roles.items() if role != "worker"}
            object.__setattr__(self, "worker", self.roles["worker"])
            object.__setattr__(self, "roles", others)


class Options(TypedDict, total=False):
    """The keywords of `evaluate`: fields of `Config`, in every form that it understands."""

    benchmark: str
    worker: str | None
    meta: str | None
    roles: Mapping[str, str]
    base_url: str | None
    base_urls: Mapping[str, str]
    knobs: Mapping[str, Any]
    list: str
    protocol: str | None
    level: str | None
    artifact: str | Path | None
    limit: str | float | None
    problems: str | int | Sequence[str | int] | None
    n_samples: int | str
    temperature: float | str | None
    max_tokens: int | str | None
    top_p: float | str | None
    reasoning_effort: str | None
    sampling: Mapping[str, Mapping[str, Any]]
    seed: int | str
    cache: str
    prices: str | Path | None
    max_connections: int | str | None
    jobs: int | str | None
    budget_usd: float | str | None
    budget_tokens: int | str | None
    budget_minutes: float | str | None
    data: DataSources | str | Path
    out: str | Path
    fresh: bool
    unsafe_local: bool
    run: str | None


def settled(method: str, given: Mapping[str, Any]) -> Config:
    """The config of `evaluate`'s keywords. Raises UsageError, also for an unknown one."""
    known = sorted(Options.__annotations__)
    for name in given:
        if name not in known:
            raise UsageError(f"evaluate has no keyword {name!r}: {advice(name, known)}")
    return Config(method=method, **given)


def check_out(out: Path) -> None:
    """Raise UsageError when results cannot be written there. Leaves nothing."""
    try:
        place = next(p for p in (out / "runs", out, *out.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=place):  # nothing else tells of every kind of disk
            pass
    except OSError as error:
        raise UsageError(
            f"--out {out}: cannot write: {error.strerror}; name another folder"
        ) from None


def check_data_dir(data_dir: Path | None) -> None:
    """Raise UsageError when the folder of benchmark files is none."""
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(
            f"{data_dir}: no such folder; correct --data-dir or HARNESS_DATA_DIR (data= in Python)"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(flag: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{flag} is a text, not {value!r}")
    return value


def _limit(flag: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{flag} is a number, a range like 10-19, or a share, not {value!r}")
    return str(value).strip()


def _problems(flag: str, value: Any) -> Sequence[str]:
    """Ids, from text with commas, one number, or any of them in a row."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    try:
        ids = [*value]
    except TypeError:
        ids = [None]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in ids):
        raise UsageError(f"{flag} names ids, as in 0,3,HumanEval/7, not {value!r}")
    return [str(one) for one in ids]


def _checked(
    convert: Callable[[Any], T], fits: Callable[[T], bool], wanted: str, limits: str
) -> Callable[[str, Any], T]:
    """What settles a number: `wanted` says what it is, `limits` where it lies."""

    def settle(flag: str, value: Any) -> T:
        try:
            converted = convert(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{flag} is {wanted}, not {value!r}") from None
        if not fits(converted):
            raise UsageError(f"{flag} {limits}, not {converted}")
        return converted

    return settle


def _setting(flag: str, value: Any) -> Any:
    return setting_of(flag.lstrip("-").replace("-", "_"), value, flag)


def _cache(flag: str, value: Any) -> str:
    if value not in CACHE_MODES:
        raise UsageError(f"{flag} is one of {', '.join(CACHE_MODES)}, not {value!r}")
    return str(value)


def _path(flag: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{flag} is a path, not {value!r}")
    return Path(value)


def _data(flag: str, value: Any) -> DataSources:
    return value if isinstance(value, DataSources) else DataSources(_path("--data-dir", value))


def _switch(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{flag} is true or false, not {value!r}")
    return value


def _table(flag: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{flag} is a table of names and values, not {value!r}")
    return dict(value)


def _texts(flag: str, value: Any) -> dict[str, str]:
    return {name: _text(f"{flag} {name}", text) for name, text in _table(flag, value).items()}


def _tables(flag: str, value: Any) -> dict[str, dict[str, Any]]:
    return {name: _table(f"{flag} {name}", table) for name, table in _table(flag, value).items()}


_COUNT = _checked(whole, lambda n: n >= 1, "a whole number", "is at least 1")
_MOST = "a number of at least 0"
_BUDGET = _checked(number, lambda n: math.isfinite(n) and n >= 0, _MOST, f"is {_MOST}")
_FORMS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(
        ("method", "benchmark", "worker", "base_url", "list", "protocol", "level", "run"), _text
    ),
    "artifact": lambda flag, value: str(_path(flag, value)),
    **dict.fromkeys(("n_samples", "max_connections", "jobs"), _COUNT),
    **dict.fromkeys(("budget_usd", "budget_minutes"), _BUDGET),
    "budget_tokens": _checked(whole, lambda n: n >= 0, "a whole number", f"is {_MOST}"),
    "seed": _checked(whole, lambda n: 0 <= n < 2**63, "a whole number", "lies in 0 to 2^63 - 1"),
    **dict.fromkeys((name for name in SETTINGS if name != "extra_body"), _setting),
    "limit": _limit,
    "problems": _problems,
    "cache": _cache,
    "prices": _path,
    "out": _path,
    "data": _data,
    "fresh": _switch,
    "unsafe_local": _switch,
    "roles": _texts,
    "base_urls": _texts,
    "knobs": _table,
    "sampling": _tables,
}
_NEEDED = {f.name for f in fields(Config) if f.default is not None}

__all__ = ["CACHE_MODES", "Config", "Options", "check_data_dir", "check_out", "settled"]
