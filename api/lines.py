"""A log of lines in a bounded file: at `most` bytes ``NAME`` becomes ``NAME.1``, and the oldest
goes."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

MOST = 16 << 20  # bytes of one file
KEPT = 7  # files beside the one that is written


class Lines:
    """Opened when the first line is written, mode 0600."""

    def __init__(self, path: Path, most: int = MOST, kept: int = KEPT) -> None:
        self.path = path
        self._most = most
        self._kept = kept
        self._file = -1
        self._size = 0
        self._torn = False  # the last line could not be written whole

    def append(self, line: bytes) -> None:
        """In the file, though not yet on the disk. OSError."""
        if self._file < 0:
            self._open()
        if self._size and self._size + len(line) > self._most:
            self.close()
            self._rotate()
            self._open()
        whole = b"\n" + line if self._torn else line
        self._torn = True
        written = os.write(self._file, whole)
        self._size += written
        if written < len(whole):
            raise OSError(f"{written} of {len(whole)} bytes written")
        self._torn = False

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        for number in range(self._kept, 0, -1):
            before = self._numbered(number - 1)
            with contextlib.suppress(FileNotFoundError):
                before.rename(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


@lru_cache(maxsize=1)
def _second(number: int) -> str:
    return datetime.fromtimestamp(number, UTC).isoformat()[:-6]


def now() -> str:
    """RFC 3339 in UTC, to the millisecond."""
    seconds, thousandths = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{thousandths:03d}Z"
