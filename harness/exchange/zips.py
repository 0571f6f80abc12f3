"""Zip files whose members may be compressed with Zstandard, as Inspect writes them.

A member of method 93, which Python's `zipfile` knows from 3.14 on only, is found by it and
decompressed by pyarrow, frame after frame. A member says how long it is: what is longer, larger
than `LARGEST` or swells by more than `RATIO` is refused, so that a small file cannot fill the
memory. No more than a member says is decompressed; methods where Python cannot stop are refused.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError

ZSTD = 93  # APPNOTE 4.4.5
LARGEST = 256 << 20  # bytes of a member
RATIO = 1_000  # bytes of a member for each that it is packed in, where it has ...
SMALL = 1 << 20  # ... more bytes than this
_LOCAL = struct.Struct("<4s5H3I2H")  # APPNOTE 4.3.7


class Archive:
    """The members of a zip file by name; of several of one name the last one counts."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self._file = path, file
        self.members = {info.filename: info for info in file.infolist()}
        self._inside: dict[str, list[str]] = {}

    def inside(self, folder: str) -> list[str]:
        """The names of the members that lie right in a folder."""
        if not self._inside:
            for name in self.members:
                self._inside.setdefault(name.rpartition("/")[0], []).append(name)
        return self._inside.get(folder, [])

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises UsageError: damaged, too large, or of another compression."""
        info, where = self.members[name], f"{self.path}: {name}"
        if info.file_size > LARGEST:
            raise UsageError(
                f"{where}: expected at most {LARGEST:,} bytes, found {info.file_size:,}"
            )
        if info.file_size > max(SMALL, RATIO * info.compress_size):
            raise UsageError(
                f"{where}: expected at most {RATIO:,} times the {info.compress_size:,} bytes that "
                f"it is packed in, found {info.file_size:,}"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTD):
            raise UsageError(f"{where}: packed by method {info.compress_type}, not known here")
        try:
            if info.compress_type == ZSTD:
                found = self._unpacked(info)
            else:
                with self._file.open(info) as member:
                    found = member.read(info.file_size)
        except (
            OSError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
        ) as error:
            raise UsageError(f"{where}: damaged: {str(error).splitlines()[0][:100]}") from error
        if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
            raise UsageError(f"{where}: damaged: its bytes are not those that were written")
        return found

    def _unpacked(self, info: zipfile.ZipInfo) -> bytes:
        import pyarrow as pa

        file = self._file.fp
        assert file is not None
        file.seek(info.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) != _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise ValueError("no local header")
        *_, name, extra = _LOCAL.unpack(header)
        file.seek(name + extra, 1)
        packed = file.read(info.compress_size)
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            return bytes(stream.read(info.file_size + 1))


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An archive, closed afterwards. Raises UsageError."""
    try:
        with zipfile.ZipFile(path) as file:
            yield Archive(path, file)
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path}: expected a zip file, {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
