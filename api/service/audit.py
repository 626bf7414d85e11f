"""The audit log: one line of JSON for every write of somebody who is known, done or refused.

It says who, what, to which object, at which revision, from where and with which outcome, and
nothing of what was written, so no secret can be in it. A line is in the file, though not yet on the
disk, when the write is answered. Whoever is not known changes nothing and is only counted
(`routed_api_requests_total`, code 401): else a stranger could push out what is of interest.

The file is bounded: at MOST bytes it becomes ``audit.log.1``, and the oldest goes.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from api.auth.identity import Identity
from api.lines import KEPT, MOST, Lines, now

log = logging.getLogger("routed.audit")

# In the scope of a request: that it is a dry run, where its query does not say so, and the outcomes
# of the deletions that it was.
DRY, DELETED = "routed.dry", "routed.deleted"

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
        self._lines = Lines(path, most, kept)
        self._failing = False

    def write(self, deed: Deed) -> None:
        document = {
            "time": now(),
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
            self._lines.append(_encode(document).encode() + b"\n")
            self._failing = False
        except OSError as error:
            self.lost += 1
            if not self._failing:
                log.error("audit log not written path=%s why=%s", self.path, error)
            self._failing = True

    def close(self) -> None:
        self._lines.close()
