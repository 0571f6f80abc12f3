"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import StoreError, UsageError


@contextmanager
def new_path(path: Path, made: list[Path]) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end unless an error came or nothing is there.

    Raises UsageError where `path` is there already or cannot be made, and StoreError.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            raise UsageError(f"{path}: is there already; remove it, or write elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        beside.unlink()
    except FileExistsError as error:
        raise UsageError(f"{path.parent}: is a file; name a folder to write into") from error
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be written: {error.strerror or error}") from error
    try:
        yield beside
        if beside.exists():
            os.replace(beside, path)
            made.append(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
