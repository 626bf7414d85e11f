"""What can go wrong, as types.

    RoutedError
    ├── ConfigError      settings or a file: exit code 2 at start, last good kept at reload
    ├── IntentError      what was asked for cannot be: a 4xx answer, nothing changed
    │   ├── BadRequest        400
    │   ├── Unauthorized      401
    │   ├── Forbidden         403
    │   ├── NotFound          404
    │   ├── MethodNotAllowed  405
    │   ├── AlreadyExists     409, reason AlreadyExists
    │   ├── Conflict          409, reason Conflict
    │   ├── Expired           410
    │   ├── Unsupported       415
    │   ├── Invalid           422, with a cause per field
    │   └── PoolExhausted     409, reason PoolExhausted; names pool, used, free, cooling, reserved
    ├── StorageError     the store cannot take a write: 507 (full) or 503
    ├── Unreadable       an object of another release (api.resources.reading)
    ├── Incompatible     a program of a release too far from ours
    ├── ApplyError       the kernel refused: key, operation, errno
    └── SpeakerError     the speaker or ExaBGP refused or is out of reach

Messages start with "cannot ..." and name the object.
Status codes and reasons: Kubernetes API conventions, "Response Status Kind".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class RoutedError(Exception):
    """Root of every error that routed raises on purpose."""


class Incompatible(RoutedError):
    """The other program's release is too far from ours (api.resources.versions)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with one field; `field` is a path such as ``spec.peers[2].asNumber``."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class ConfigError(RoutedError):
    """Settings or a configuration file are wrong; `problems` has all of them at once."""

    def __init__(self, source: str, problems: Sequence[Cause]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"cannot use {source}: {len(self.problems)} problem(s){lines}")


class IntentError(RoutedError):
    """What was asked for cannot be; nothing was changed."""

    status = 400
    reason = "BadRequest"

    def __init__(
        self,
        message: str,
        *,
        causes: Sequence[Cause] = (),
        kind: str = "",
        name: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.kind = kind
        self.name = name


class BadRequest(IntentError):
    """The request itself cannot be read."""


class Unauthorized(IntentError):
    status, reason = 401, "Unauthorized"


class Forbidden(IntentError):
    status, reason = 403, "Forbidden"


class NotFound(IntentError):
    status, reason = 404, "NotFound"


class MethodNotAllowed(IntentError):
    """A verb that these objects do not have; RFC 9110, section 15.5.6."""

    status, reason = 405, "MethodNotAllowed"


class AlreadyExists(IntentError):
    status, reason = 409, "AlreadyExists"


class Conflict(IntentError):
    status, reason = 409, "Conflict"


class Expired(IntentError):
    """The revision asked for has been compacted away: list again."""

    status, reason = 410, "Expired"


class TooLarge(IntentError):
    status, reason = 413, "RequestEntityTooLarge"


class TooManyRequests(IntentError):
    """Nothing was done, and may be asked for again after so many seconds; RFC 6585, section 4."""

    status, reason = 429, "TooManyRequests"

    def __init__(self, message: str, retry_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class HeadTooLarge(IntentError):
    """Of an HTTP request; RFC 6585, section 5."""

    status, reason = 431, "RequestHeaderFieldsTooLarge"


class TooLate(IntentError):
    """A request that takes too long to arrive; RFC 9110, section 15.5.9."""

    status, reason = 408, "RequestTimeout"


class NoAnswer(IntentError):
    """Somebody else had to be asked, and says nothing; RFC 9110, section 15.6.5."""

    status, reason = 504, "Timeout"


class Unsupported(IntentError):
    """A media type that is not known."""

    status, reason = 415, "UnsupportedMediaType"


class Invalid(IntentError):
    """A well-formed object that cannot be accepted; `causes` names every field that is wrong."""

    status, reason = 422, "Invalid"


class PoolExhausted(IntentError):
    """No address or block is left; the message names pool, used, free, cooling and reserved."""

    status, reason = 409, "PoolExhausted"


class StorageError(RoutedError):
    """The store did not take the write; nothing was acknowledged."""

    status, reason = 503, "ServiceUnavailable"

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.message = message
        if full:
            self.status, self.reason = 507, "InsufficientStorage"


class ApplyError(RoutedError):
    """The kernel refused one operation on one object.

    `errno` is the positive errno; `transient` says that trying again may help.
    """

    def __init__(self, key: str, operation: str, errno: int, *, transient: bool = False) -> None:
        self.key = key
        self.operation = operation
        self.errno = errno
        self.transient = transient
        super().__init__(f"cannot {operation} {key}: {os.strerror(errno)}")


class SpeakerError(RoutedError):
    """The speaker, or ExaBGP behind it, refused or cannot be reached."""


def none_such(what: str, name: str | None, known: Iterable[str]) -> str:
    """The sentence for a reference to what is not there; `known`: what is, in the order to name."""
    return f"there is no {what} {name!r}; there are: {', '.join(known) or 'none'}"
