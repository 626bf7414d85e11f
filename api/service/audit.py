"""The audit log: one line of JSON for every write of somebody who is known, done or refused.

It says who, what, to which object, at which revision, from where and with which outcome, and
nothing of what was written, so no secret can be in it. A line is in the file, though not yet on the
disk, when the write is answered. Whoever is not known changes nothing and is only counted
(`routed_api_requests_total`, code 401): else a stranger could push out what is of interest.

The file is bounded: at MOST bytes it becomes ``audit.log.1``, and the oldest goes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from api.auth.identity import Identity

log = logging.getLogger("routed.audit")

# In the scope of a request: that it is a dry run, where its query does not say so, and the outcomes
# of the deletions that it was.
DRY, DELETED = "routed.dry", "routed.deleted"

MOST = 16 << 20  # bytes of one file
KEPT = 7  # files beside the one that is written
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request was answered; `revision` is the object's then, or, deleted, its last."""

    code: int
    reason: str = ""
    name: str = ""
    revision: str = ""

    def __str__(self) -> str:
        if self.code < 400:
            return "done"
        return "forbidden" if self.code == 403 else "refused" if self.code < 500 else "failed"


@dataclass(frozen=True, slots=True)
class Deed:
    """A write; `source` is the client's address and port."""

    who: Identity
    verb: str
    resource: str
    name: str
    outcome: Outcome
    source: str
    dry: bool = False


class AuditLog:
    """`write` never fails: a log that cannot be written stops no work, but it is said and counted
    in `lost`."""

    def __init__(self, path: Path, most: int = MOST, kept: int = KEPT) -> None:
        self.path = path
        self.lost = 0
        self._most = most
        self._kept = kept
        self._file = -1
        self._size = 0
        self._torn = False  # the last line could not be written whole
        self._failing = False

    def write(self, deed: Deed) -> None:
        document = {
            "time": _now(),
            "user": deed.who.user,
            "role": deed.who.role,
            "verb": deed.verb,
            "resource": deed.resource,
            "name": deed.name,
            "resourceVersion": deed.outcome.revision,
            "dryRun": deed.dry,
            "outcome": str(deed.outcome),
            "code": deed.outcome.code,
            "reason": deed.outcome.reason,
            "source": deed.source,
        }
        try:
            self._append(_encode(document).encode() + b"\n")
            self._failing = False
        except OSError as error:
            self.lost += 1
            if not self._failing:
                log.error("audit log not written path=%s why=%s", self.path, error)
            self._failing = True

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: bytes) -> None:
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


def _now() -> str:
    """RFC 3339 in UTC, to the millisecond."""
    seconds, thousandths = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{thousandths:03d}Z"
