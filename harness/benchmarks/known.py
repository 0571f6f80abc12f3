"""Which hidden tests a protocol leaves fresh, kept in a file: finding it out takes 2 ms a problem.

The file is named by all that decides it: rows, protocol, and the programs that compare tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.types import Assertions, Cases, Tests

_SOURCES = ("overlap.py", "examples.py", "doctests.py", "protocols.py", "aflow.py", "unit_tests.py")


class Known:
    """What is fresh, by problem. A file that cannot be read or written costs only time."""

    def __init__(self, folder: Path | None, rows_digest: str, protocol: str) -> None:
        self._file: Path | None = None
        self._kept: dict[str, Any] = {}  # problem id -> "all", "none", or what is kept
        self._new = False
        if folder is None:
            return
        here = Path(__file__).parent
        sources = b"".join((here / name).read_bytes() for name in _SOURCES)
        parts = (rows_digest.encode(), protocol.encode(), sources)
        name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        self._file = folder / f"fresh-{name}.json"
        try:
            found = json.loads(self._file.read_bytes())
            self._kept = found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            pass  # not there yet, or no JSON: it is found out again, and then replaced

    def fresh(self, key: str, hidden: Tests, find: Callable[[], Tests | None]) -> Tests | None:
        """The fresh ones of a problem's hidden tests, by `find` where they are not known yet."""
        kept = self._kept.get(key)
        if kept == "all":
            return hidden
        if kept == "none":
            return None
        if isinstance(kept, list):
            return _part(hidden, kept)
        found = find()
        self._kept[key] = "none" if found is None else "all" if found is hidden else _names(found)
        self._new = True
        return found

    def save(self) -> None:
        """Keep what was found out since."""
        if self._file is None or not self._new:
            return
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._kept))
            os.replace(temporary, self._file)
            self._new = False
        except OSError:  # a folder that cannot be written: the next run finds out again
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _names(tests: Tests) -> list[Any]:
    """What tells a part of hidden tests from the whole."""
    if isinstance(tests, Assertions):
        return [list(tests.tests), tests.setup]
    return [list((tests.only or ()) if isinstance(tests, Cases) else tests.methods)]


def _part(hidden: Tests, kept: list[Any]) -> Tests:
    """The part of hidden tests that `_names` described."""
    if isinstance(hidden, Assertions):
        return replace(hidden, tests=tuple(kept[0]), setup=kept[1])
    if isinstance(hidden, Cases):
        return replace(hidden, only=tuple(kept[0]))
    return replace(hidden, methods=tuple(kept[0]))
