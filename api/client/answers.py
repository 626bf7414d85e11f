"""What the service answered, as typed values and our own errors. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from api.resources import errors
from api.resources.errors import Cause, IntentError, RoutedError, StorageError
from api.resources.meta import Resource
from api.resources.reading import Unreadable, read

R = TypeVar("R", bound=Resource)


class Unreachable(RoutedError):
    """The service gave no answer that can be used."""


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that this release cannot read, as it came: what can be said of it all the same, and
    why."""

    name: str
    uid: str
    revision: str
    why: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is BEGIN, END (the full set between them), ADDED, MODIFIED or DELETED; or QUESTION, to
    a node that watches itself: `text` is JSON then (`api.service.questions`)."""

    type: str
    object: Resource | Unread | None = None
    text: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """Of the object, as it goes over the wire; {}: there is none."""
        if self.object is None:
            return {}
        return self.object.document if isinstance(self.object, Unread) else self.object.wire()


_BY_REASON: dict[str, type[IntentError]] = {
    cls.reason: cls
    for cls in (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.AlreadyExists,
        errors.Conflict,
        errors.Expired,
        errors.TooLarge,
        errors.Invalid,
        errors.NoAnswer,
        errors.PoolExhausted,
    )
}


def typed(model: type[R], document: Any) -> R:
    try:
        return read(model, document)
    except Unreadable as error:
        raise Unreachable(f"the service sent what {error}") from error


def shown(model: type[R], document: Any) -> R | Unread:
    """One object of a watch; KeyError or TypeError if it has no name."""
    try:
        return read(model, document)
    except Unreadable as error:
        held = document["metadata"]
        name, uid, revision = held["name"], held.get("uid", ""), held["resourceVersion"]
        return Unread(str(name), str(uid), str(revision), str(error), document)


def failure(response: httpx.Response) -> RoutedError:
    try:
        status = response.json()
        message, reason = str(status["message"]), str(status["reason"])
    except (ValueError, KeyError, TypeError):
        return Unreachable(f"the service answered {response.status_code} without a Status")
    details = status.get("details") or {}
    causes = [
        Cause(c.get("field", ""), c.get("message", ""), c.get("reason", ""))
        for c in details.get("causes", [])
    ]
    if reason in _BY_REASON:
        return _BY_REASON[reason](
            message, causes=causes, kind=details.get("kind", ""), name=details.get("name", "")
        )
    if response.status_code == 429:
        return Unreachable(message)
    if response.status_code in (503, 507):
        return StorageError(message, full=response.status_code == 507)
    return IntentError(message, causes=causes)
