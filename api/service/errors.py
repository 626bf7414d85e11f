"""Errors as Kubernetes `Status` objects (API conventions, "Response Status Kind")."""

from __future__ import annotations

from typing import Any

from api.resources.errors import IntentError, StorageError
from api.resources.meta import API_GROUP
from api.resources.registry import by_kind


def status_of(error: IntentError | StorageError) -> dict[str, Any]:
    """The body that answers `error`; its ``code`` is the HTTP status."""
    status: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.status,
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


def success(kind: str, name: str, uid: str) -> dict[str, Any]:
    """What a deletion answers."""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Success",
        "details": {"group": API_GROUP, "kind": kind, "name": name, "uid": uid},
    }
