"""Who may do what: a pure function, deny by default.

An admin may do everything. A node may read everything and write only its own: its Node object,
blocks it claims or gives back, reports of node-born workloads on it, and the status of those that
were declared for it. The node's name comes from its credential, never from the request's body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.auth.tokens import Identity

READS = frozenset(("get", "list", "watch"))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `held` is the object as it is, `wanted` as it should become (if any)."""

    verb: str
    plural: str
    name: str = ""
    status: bool = False
    held: dict[str, Any] | None = None
    wanted: dict[str, Any] | None = None


def allowed(who: Identity, request: Request) -> bool:
    """Whether `who` may do it."""
    if who.role == "admin":
        return True
    if who.role != "node" or not who.node:
        return False
    if request.verb in READS:
        return request.plural not in ("credentials", "metrics")
    objects = [document for document in (request.held, request.wanted) if document is not None]
    if not objects:
        return False
    if request.plural == "nodes":
        return request.verb in ("create", "update", "patch") and all(
            _at(document, "metadata", "name") == who.node for document in objects
        )
    if not all(_at(document, "spec", "node") == who.node for document in objects):
        return False
    if request.plural == "ipblocks":
        return request.verb in ("create", "delete") or request.status
    if request.plural == "workloads":
        return request.status or all(
            _at(document, "spec", "origin") == "Node" for document in objects
        )
    return False


def _at(document: dict[str, Any], *path: str) -> Any:
    value: Any = document
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
