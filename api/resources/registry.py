"""One declaration per kind.

`@resource("ippools", short=("pool",), ...)` on a model is all that a kind needs: routes,
discovery, table columns, field selectors and the CLI's names are generated from the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from api.resources.meta import Resource


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `get`; `path` is dotted (``spec.cidr``), priority 1 is shown with `-o wide`."""

    name: str
    path: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything generic code must know of a kind."""

    kind: str
    plural: str
    singular: str
    short: tuple[str, ...]
    model: type[Resource]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...]
    immutable: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which the command line knows the kind."""
        return (self.plural, self.singular, *self.short)


T = TypeVar("T", bound=Resource)

KINDS: dict[str, Kind] = {}  # by plural, in order of declaration


def resource(
    plural: str,
    *,
    short: tuple[str, ...] = (),
    columns: tuple[Column, ...] = (),
    selectable: tuple[str, ...] = (),
    immutable: tuple[str, ...] = (),
    kept: tuple[str, ...] = (),
) -> Callable[[type[T]], type[T]]:
    """Declare a kind.

    `selectable` lists the field-selector paths beside ``metadata.name``;
    `immutable` the paths that an update may not change; `kept` the fields of the spec (Python
    names) that an update keeps where it does not name them: somebody else fills them in.
    """

    def declare(model: type[T]) -> type[T]:
        kind = model.KIND
        KINDS[plural] = Kind(
            kind, plural, kind.lower(), short, model, columns, selectable, immutable, kept
        )
        return model

    return declare


def by_name(name: str) -> Kind | None:
    """The kind called `name` (plural, singular, short or Kind, any case), or None."""
    wanted = name.lower()
    for kind in KINDS.values():
        if wanted in kind.names:
            return kind
    return None


def by_kind(kind: str) -> Kind | None:
    """The kind whose `kind` field is exactly `kind`, or None."""
    return next((known for known in KINDS.values() if known.kind == kind), None)
