"""Zip files whose members may be compressed with Zstandard, as Inspect writes them.

Python's `zipfile` knows method 93 from 3.14 on; before, a member's bytes are found by it and
decompressed by pyarrow, frame after frame. A member says how long it is: what is longer, or larger
than `LARGEST`, is refused, so that a small file cannot fill the memory.
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
LARGEST = 2 << 30  # bytes of a member
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
        try:
            if info.compress_type != ZSTD or hasattr(zipfile, "ZIP_ZSTANDARD"):
                return self._file.read(info)
            found = self._unpacked(info)
        except (
            OSError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
        ) as error:
            raise UsageError(f"{where}: damaged: {str(error).splitlines()[0][:100]}") from error
        except NotImplementedError as error:
            raise UsageError(f"{where}: compressed in a way not known here: {error}") from error
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
