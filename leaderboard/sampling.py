"""How the models of a run were asked: samples a problem, sampling of each role, further roles.

Two runs of one method, worker and meta-agent that differ in any of it are two rows of a paper's
table. Read from the `roles` of run.json, which the board's query gives. Names are those of the
command line: `temperature` is the worker's, `meta.temperature` the meta-agent's, `judge` the model
of a further role.
"""

from __future__ import annotations

from collections.abc import Iterable

from leaderboard.queries import BoardRow, object_of

UNKNOWN = "unknown"
COLUMNS = ("worker", "meta")  # the roles whose models are columns of their own


def settings(row: BoardRow, only: str | None = None) -> dict[str, str]:
    """{name: value in words} of all that a run's models were asked with, or that of one role.

    `sampling` or `ROLE.sampling` is "unknown" where the run does not tell how a role was asked.
    """
    found = {"samples": UNKNOWN if row.n_samples is None else str(row.n_samples)}
    for role, told in object_of(row.roles).items():
        if only not in (None, role):
            continue
        known = told if isinstance(told, dict) else {}
        if role not in COLUMNS:
            found[role] = str(known.get("model") or UNKNOWN)
        prefix = "" if role == "worker" else f"{role}."
        sampling = known.get("sampling")
        if not isinstance(sampling, dict) or not sampling:
            found[f"{prefix}sampling"] = UNKNOWN
            continue
        found |= {f"{prefix}{k}": _said(v) for k, v in sampling.items() if v is not None}
    return found


def differing(rows: Iterable[BoardRow]) -> list[str]:
    """The names of the settings in which some of the rows differ, in order."""
    told = [settings(row) for row in rows]
    names = sorted({name for one in told for name in one})
    return [name for name in names if len({one.get(name) for one in told}) > 1]


def _said(value: object) -> str:
    """A value as short as it can be written: 0.0 is 0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
