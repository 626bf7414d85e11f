"""Which objects a command line means: ``KIND NAME...``, ``KIND,KIND``, ``KIND/NAME ...``, ``all``.

Kinds are called by plural, singular, short name or Kind, with or without the group behind a dot, as
kubectl takes them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import Client
from api.resources.errors import Cause, ConfigError, NotFound
from api.resources.meta import API_GROUP
from api.resources.registry import KINDS, Kind, by_name
from routed.ctl import documents

Document = dict[str, Any]


class UnknownKind(ConfigError):
    """No kind is called so; `near` is the name that was perhaps meant."""

    def __init__(self, name: str) -> None:
        known = [each for kind in KINDS.values() for each in kind.names]
        self.near = next(iter(difflib.get_close_matches(name.lower(), known, 1)), "")
        meant = f"; did you mean {self.near!r}?" if self.near else ""
        super().__init__("the command line", [Cause("", f"{name!r} is no kind{meant}")])


class NothingFound(ConfigError):
    """The command line names no object."""

    @classmethod
    def of(cls, problem: str) -> NothingFound:
        return cls("the command line", [Cause("", problem)])


@dataclass(frozen=True, slots=True)
class Selected:
    """By labels and fields, as the service selects; "" selects all."""

    labels: str = ""
    fields: str = ""

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)


@dataclass(frozen=True, slots=True)
class Target:
    """Objects of one kind; without names all of them."""

    kind: Kind
    names: tuple[str, ...] = ()


def kind_of(name: str) -> Kind:
    """UnknownKind."""
    bare, _, group = name.partition(".")
    kind = by_name(bare)
    if kind is None or group not in ("", API_GROUP, f"v1.{API_GROUP}"):
        raise UnknownKind(name)
    return kind


def targets(words: Sequence[str]) -> list[Target]:
    """What `words` name; ConfigError."""
    if not words:
        raise NothingFound.of("say KIND [NAME...] or KIND/NAME")
    if "/" in words[0]:
        found: dict[str, list[str]] = {}
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                problem = f"{word!r} is not KIND/NAME, as the first is"
                raise ConfigError("the command line", [Cause("", problem)])
            found.setdefault(kind_of(kind).plural, []).append(name)
        return [Target(KINDS[plural], tuple(names)) for plural, names in found.items()]
    if words[0] == "all":
        kinds = list(KINDS.values())
    else:
        kinds = [kind_of(part) for part in words[0].split(",") if part]
    if bad := next((word for word in words[1:] if "/" in word), ""):
        problem = f"{bad!r}: say KIND/NAME everywhere, or KIND NAME NAME"
        raise ConfigError("the command line", [Cause("", problem)])
    return [Target(kind, tuple(words[1:])) for kind in kinds]


def named(paths: Sequence[Path], recursive: bool) -> list[Target]:
    """The objects that files describe; ConfigError."""
    found = documents.read(paths, recursive=recursive)
    return [Target(kind, (document["metadata"]["name"],)) for kind, document in found]


def chosen(wanted: Sequence[Target], selected: Selected, *, every: bool) -> None:
    """NothingFound unless names, a selector or `--all` say which objects are meant."""
    if not (selected or every) and (not wanted or any(not each.names for each in wanted)):
        raise NothingFound.of("say KIND NAME..., KIND/NAME, KIND -l SELECTOR, or KIND --all")


async def find(client: Client, target: Target, selected: Selected = Selected()) -> list[Document]:
    """The objects as the service has them; NotFound names one that is not there."""
    if target.names:
        return [await one(client, target.kind, name) for name in target.names]
    query = {"labelSelector": selected.labels, "fieldSelector": selected.fields}
    listed = await client.raw("GET", f"/{target.kind.plural}", params=query)
    head = {"apiVersion": listed["apiVersion"], "kind": target.kind.kind}
    return [{**head, **item} for item in listed["items"]]


async def one(client: Client, kind: Kind, name: str) -> Document:
    """A workload born on its node is called NAME.NODE; whoever says NAME is told."""
    try:
        return await client.raw("GET", f"/{kind.plural}/{name}")
    except NotFound as error:
        if kind.plural != "workloads" or "." in name:
            raise
        listed = await client.raw("GET", "/workloads")
        names = [d["metadata"]["name"] for d in listed["items"]]
        born = [n for n in names if n.startswith(f"{name}.")]
        if not born:
            raise
        hint = f"attached on its node, it is called {' or '.join(born)}"
        raise NotFound(f"{error}; {hint}", kind=kind.kind, name=name) from error
