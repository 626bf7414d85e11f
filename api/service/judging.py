"""Whether somebody may do something with objects of one kind, as its handlers ask it.

The verb is judged before anything of the request is read, and the object when the change is
decided: it may be another's by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.datastructures import QueryParams

from api.auth.identity import Identity
from api.auth.rights import Grant, grant
from api.resources.errors import Forbidden
from api.resources.registry import Kind
from api.service.selection import Selection, selection

Document = dict[str, Any]
# Raises Forbidden: it is asked of an object as it is, and as it would become.
May = Callable[[Document], None]


class Judge:
    """Of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def granted(self, who: Identity, verb: str, name: str = "", *, status: bool = False) -> Grant:
        """What `who` may do it with; Forbidden if that is nothing, or cannot have this name."""
        granted = grant(who, verb, self.kind.plural, status=status)
        if granted is None or (name and granted.name not in ("", name)):
            raise self._forbidden(who, verb, name, status=status)
        return granted

    def selected(self, query: QueryParams, granted: Grant) -> Selection:
        """Those that the request selects, and `granted` lets it see."""
        chosen = selection(
            self.kind, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        return chosen.within(granted.name, granted.node, granted.test)

    def may(self, who: Identity, verb: str, granted: Grant, *, status: bool = False) -> May:
        """What refuses an object that `granted` does not cover."""
        return lambda document: self.covered(who, verb, granted, document, status=status)

    def covered(
        self, who: Identity, verb: str, granted: Grant, document: Document, *, status: bool = False
    ) -> None:
        if not granted.covers(document):
            raise self._forbidden(who, verb, document["metadata"]["name"], status=status)

    def may_create(self, who: Identity, name: str) -> May:
        """What refuses a new object called `name`, also when that is all that is wrong with it."""

        def may(document: Document) -> None:
            self.covered(who, "create", self.granted(who, "create", name), document)

        return may

    def _forbidden(self, who: Identity, verb: str, name: str, *, status: bool) -> Forbidden:
        return forbidden(who, verb, f"{self.kind.plural}{'/status' if status else ''}", name)


def forbidden(who: Identity, verb: str, plural: str, name: str = "") -> Forbidden:
    what = f"{plural} {name}".strip()
    return Forbidden(
        f"cannot {verb} {what}: role {who.role} of {who.user} does not allow it",
        kind=plural,
        name=name,
    )
