"""Who set which field: server-side apply (Kubernetes API conventions, "Server Side Apply").

Pure, on documents. A field is a path to a leaf; maps are taken apart, lists are one leaf, except
conditions, which are a map by their type. `metadata.managedFields` has the paths of each manager in
the form of fieldsV1. Only those who say a `fieldManager` are kept account of; agents do not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.resources.errors import Cause, Conflict
from api.resources.meta import API_VERSION

Document = dict[str, Any]
Path = tuple[str, ...]  # of fieldsV1's segments: ``f:NAME``, ``k:{"type":"Ready"}``

APPLY, UPDATE = "Apply", "Update"
_OURS = frozenset(
    f"f:{name}"
    for name in ("name", "uid", "resourceVersion", "generation", "creationTimestamp",
                 "deletionTimestamp", "managedFields", "generateName")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manager:
    """Whose fields: one who applies and one who updates are two, so are those of /status."""

    name: str
    operation: str
    subresource: str = ""


Managed = dict[Manager, frozenset[Path]]


def of_subresource(document: Document, subresource: str) -> Document:
    """What of `document` is written there: the status, or ("") all but the status."""
    names = ("apiVersion", "kind", "status") if subresource else document.keys() - {"status"}
    return {name: value for name, value in document.items() if name in names}


def leaves(document: Mapping[str, Any]) -> frozenset[Path]:
    """The fields that `document` sets, without those that are the service's."""
    return frozenset(
        path
        for path in _leaves(document, ())
        if path[0] not in ("f:apiVersion", "f:kind")
        and not (path[0] == "f:metadata" and (len(path) == 1 or path[1] in _OURS))
    )


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    inside = _children(value, path)
    if not inside and not (value == {} and len(path) < 2):  # `spec: {}` says nothing
        yield path
    for segment, child in inside:
        yield from _leaves(child, (*path, segment))


def _children(value: Any, path: Path) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"f:{name}", child) for name, child in value.items()]
    if path == ("f:status", "f:conditions") and isinstance(value, list):
        return [(_key(one), one) for one in value if isinstance(one, dict)]
    return []


def _key(item: Mapping[str, Any]) -> str:
    return "k:" + json.dumps({"type": item.get("type")}, separators=(",", ":"))


def _is(item: Any, segment: str) -> bool:
    return isinstance(item, dict) and _key(item) == segment


def applied(
    live: Document, wanted: Document, manager: Manager, managed: Managed, *, force: bool
) -> tuple[Document, Managed]:
    """`live` with every field of `wanted` set, those that `manager` had set and no longer does
    taken away, and whose fields are whose then. Conflict names the others, unless `force`."""
    fields = leaves(wanted)
    made = copy.deepcopy(live)
    for path in sorted(fields):
        _put(made, path, _at(wanted, path))
    around = _around(fields)
    taken = {
        (other, path)
        for other, paths in managed.items()
        for path in paths
        if other != manager
        and _touched(path, fields, around)
        and _at(live, path) != _at(made, path)
    }
    if taken and not force:
        raise _conflict(taken)
    left = {
        other: paths - {path for who, path in taken if who == other}
        for other, paths in managed.items()
        if other != manager
    }
    others = fields.union(*left.values())
    around = _around(others)
    for path in managed.get(manager, frozenset()) - fields:
        if not _touched(path, others, around):
            _remove(made, path)
    left[manager] = fields
    return made, {who: paths for who, paths in left.items() if paths}


def updated(live: Document, made: Document, manager: Manager, managed: Managed) -> Managed:
    """Whose fields are whose after `manager` has put `made` in the place of `live`."""
    before, after = leaves(live), leaves(made)
    changed = frozenset(path for path in after if _at(live, path) != _at(made, path))
    gone = before - after
    found = {
        who: frozenset(path for path in paths if path not in gone and path not in changed)
        for who, paths in managed.items()
    }
    found[manager] = found.get(manager, frozenset()) | changed
    return {who: paths for who, paths in found.items() if paths}


def _around(paths: frozenset[Path]) -> frozenset[Path]:
    """Every path that one of these is inside of."""
    return frozenset(path[:n] for path in paths for n in range(1, len(path)))


def _touched(path: Path, others: frozenset[Path], around: frozenset[Path]) -> bool:
    """Whether one of `others` is the same field, or inside it, or around it; `around` is theirs."""
    return path in others or path in around or any(path[:n] in others for n in range(1, len(path)))


def _conflict(taken: set[tuple[Manager, Path]]) -> Conflict:
    causes = [
        Cause(_said(path), f'conflict with "{who.name}"', "FieldManagerConflict")
        for who, path in sorted(taken, key=lambda one: (one[0].name, one[1]))
    ]
    names = ", ".join(sorted({f'"{who.name}"' for who, _ in taken}))
    listed = ", ".join(cause.field for cause in causes)
    return Conflict(
        f"Apply failed with {len(causes)} conflict(s) with {names}: {listed}", causes=causes
    )


def _said(path: Path) -> str:
    """``.spec.cidr``, as kubectl shows it."""
    return "".join(f".{p[2:]}" if p.startswith("f:") else f"[{p[2:]}]" for p in path)


def _at(document: Any, path: Sequence[str]) -> Any:
    value = document
    for segment in path:
        if segment.startswith("k:"):
            items = value if isinstance(value, list) else []
            value = next((one for one in items if _is(one, segment)), None)
        else:
            value = value.get(segment[2:]) if isinstance(value, dict) else None
    return value


def _put(document: Document, path: Path, value: Any) -> None:
    held: Any = document
    for place, segment in enumerate(path):
        last = place == len(path) - 1
        if segment.startswith("k:"):
            found = next((one for one in held if _is(one, segment)), None)
            if found is None:
                found = dict(json.loads(segment[2:]))
                held.append(found)
            held = found
            continue
        name = segment[2:]
        if last:
            if value != {} or not isinstance(held.get(name), dict):  # else others' fields stay
                held[name] = copy.deepcopy(value)
            return
        of_list = path[place + 1].startswith("k:")
        if not isinstance(held.get(name), list if of_list else dict):
            held[name] = [] if of_list else {}
        held = held[name]


def _remove(document: Document, path: Path) -> None:
    around = _at(document, path[:-1])
    if path[-1].startswith("k:") and isinstance(around, list):
        around[:] = [one for one in around if not _is(one, path[-1])]
    elif isinstance(around, dict):
        around.pop(path[-1][2:], None)
        if not around and len(path) > 2:  # an empty map of labels is none
            _remove(document, path[:-1])


# -- as it is kept ---------------------------------------------------------------------------------


def read(entries: Sequence[Mapping[str, Any]]) -> Managed:
    """`metadata.managedFields`."""
    found: Managed = {}
    for entry in entries:
        who = Manager(entry["manager"], entry["operation"], entry.get("subresource", ""))
        paths = frozenset(_paths(entry.get("fieldsV1", {}), ()))
        found[who] = found.get(who, frozenset()) | paths
    return found


def written(managed: Managed, before: Sequence[Document], now: str) -> list[Document]:
    """The same as entries; one whose fields are as `before` keeps its time."""
    found: list[Document] = []
    known = {_identity(entry): entry for entry in before}
    for who in sorted(managed, key=lambda one: (one.name, one.operation, one.subresource)):
        tree: Document = {}
        for path in sorted(managed[who]):
            held = tree
            for segment in path:
                held = held.setdefault(segment, {})
        entry: Document = {"manager": who.name, "operation": who.operation}
        entry |= {"apiVersion": API_VERSION, "fieldsType": "FieldsV1", "fieldsV1": tree}
        if who.subresource:
            entry["subresource"] = who.subresource
        old = known.get(_identity(entry))
        same = old is not None and old.get("fieldsV1") == tree
        found.append(entry | {"time": old["time"] if same and old and "time" in old else now})
    return found


def _identity(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["manager"], entry["operation"], entry.get("subresource", "")


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    inside = {segment: child for segment, child in tree.items() if segment != "."}
    if not inside and path:
        yield path
    for segment, child in inside.items():
        yield from _paths(child, (*path, segment))
