"""Errors as Kubernetes `Status` objects (API conventions, "Response Status Kind").

Both APIs answer with these: the service's, and the agent's on its socket.
"""

from __future__ import annotations

from typing import Any

from api.resources.errors import (
    ApplyError,
    IntentError,
    RoutedError,
    SpeakerError,
    StorageError,
)
from api.resources.meta import API_GROUP
from api.resources.registry import by_kind


def status_of(error: RoutedError) -> dict[str, Any]:
    """The body that answers `error`; its ``code`` is the HTTP status."""
    code, reason = _code_and_reason(error)
    status: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": reason,
        "code": code,
    }
    if isinstance(error, IntentError) and (error.kind or error.causes):
        details: dict[str, Any] = {}
        kind = by_kind(error.kind)
        if error.kind:
            details |= {"group": API_GROUP, "kind": kind.plural if kind else error.kind}
        if error.name:
            details["name"] = error.name
        if error.causes:
            details["causes"] = [
                {"reason": cause.reason, "field": cause.field, "message": cause.message}
                for cause in error.causes
            ]
        status["details"] = details
    return status


def _code_and_reason(error: RoutedError) -> tuple[int, str]:
    if isinstance(error, IntentError | StorageError):
        return error.status, error.reason
    if isinstance(error, ApplyError):
        return (503 if error.transient else 500), "ApplyFailed"
    return 503, "SpeakerUnavailable" if isinstance(error, SpeakerError) else "ServiceUnavailable"


def success(kind: str, name: str, uid: str) -> dict[str, Any]:
    """What a deletion answers."""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Success",
        "details": {"group": API_GROUP, "kind": kind, "name": name, "uid": uid},
    }
