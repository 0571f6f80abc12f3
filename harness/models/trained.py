"""What a checkpoint says of its own training: `flowreasoner.json` beside its weights.

    {"format": 1, "knobs": {"layout": "multi_turn", "parent": "latest", "init_template": true},
     "list_digest": "...", "problems": ["HumanEval/9", ...]}

`knobs` are those of the method that it plays the meta-agent of: an evaluation follows them where
they are not given. `problems` are those that it was trained on: an evaluation leaves them out.
`train/` writes the file; for `local/PATH.gguf` it is `PATH.flowreasoner.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError

FILE = "flowreasoner.json"
FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """What a checkpoint was trained as, and on what. Empty: nothing is known."""

    knobs: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    list_digest: str | None = None


def read(weights: Path) -> Trained:
    """What lies beside a folder of weights or a GGUF file; empty where nothing does.

    Raises UsageError for a file that is no such description.
    """
    path = weights / FILE if weights.is_dir() else weights.with_suffix(f".{FILE}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Trained()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path}: no description of a checkpoint, format {FORMAT}")
    knobs, problems = found.get("knobs", {}), found.get("problems", [])
    if not isinstance(knobs, dict) or not isinstance(problems, list):
        raise UsageError(f"{path}: wants knobs as an object, and problems as a list of ids")
    return Trained(knobs, tuple(map(str, problems)), found.get("list_digest"))


__all__ = ["FILE", "FORMAT", "Trained", "read"]
