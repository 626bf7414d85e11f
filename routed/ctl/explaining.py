"""explain and api-resources: what kinds there are and what their fields mean, without a service."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from api.resources.errors import Cause, ConfigError
from api.resources.meta import API_GROUP, API_VERSION
from api.resources.registry import KINDS
from api.service import schemas
from api.service.discovery import VERBS
from routed.ctl.tables import aligned
from routed.ctl.targets import kind_of

Schema = dict[str, Any]


def explained(path: str, *, recursive: bool) -> str:
    """A kind, or a field of it: ``ippool.spec.cidr``. ConfigError names what there is."""
    name, *parts = path.split(".")
    kind = kind_of(name)
    field: Schema = schemas.reference(schemas.of(kind))
    for part in parts:
        known = _inside(field)
        if part not in known:
            problem = f"there is no field {part!r} in it; there are: {', '.join(known) or 'none'}"
            raise ConfigError(f"{path}", [Cause("", problem)])
        field = known[part]
    lines = [f"KIND:       {kind.kind}", f"VERSION:    {API_VERSION}", ""]
    if parts:
        lines += [f"FIELD: {parts[-1]} <{_type(field)}>", ""]
    said = _text(field.get("description") or _resolved(field).get("description", ""))
    lines += ["DESCRIPTION:", *_wrapped(said or "<empty>", 4)]
    if fields := list(_fields(field, recursive, 2)):
        lines += ["", "FIELDS:", *fields]
    return "\n".join(lines).rstrip()


def _fields(field: Schema, recursive: bool, indent: int) -> Iterator[str]:
    needed = _resolved(_items(field)).get("required", ())
    for name, one in _inside(field).items():
        mark = " -required-" if name in needed else ""
        yield f"{' ' * indent}{name}\t<{_type(one)}>{mark}"
        if recursive:
            yield from _fields(one, recursive, indent + 2)
        else:
            yield from _wrapped(_text(one.get("description", "")), indent + 2)
            yield ""


def _inside(field: Schema) -> dict[str, Schema]:
    found: dict[str, Schema] = _resolved(_items(field)).get("properties", {})
    return found


def _items(field: Schema) -> Schema:
    resolved = _resolved(field)
    return resolved["items"] if resolved.get("type") == "array" else resolved


def _resolved(field: Schema) -> Schema:
    """The schema that `field` refers to, or itself."""
    reference = field.get("$ref") or next((o["$ref"] for o in field.get("allOf", ())), None)
    return schemas.components()[reference.removeprefix(schemas.REF)] if reference else field


def _type(field: Schema) -> str:
    resolved = _resolved(field)
    if resolved.get("type") == "array":
        return f"[]{_type(resolved['items'])}"
    return "Object" if resolved.get("type") == "object" else str(resolved.get("type", "any"))


def _text(text: str) -> str:
    return " ".join(text.split())


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, 90, initial_indent=space, subsequent_indent=space)


def resources(form: str, *, header: bool) -> str:
    """The kinds: a table, with `form` wide also the verbs, with name the full names."""
    if form not in ("", "wide", "name"):
        raise ConfigError("-o", [Cause("", f"{form!r} is none of wide, name")])
    if form == "name":
        return "\n".join(f"{plural}.{API_GROUP}" for plural in KINDS)
    wide = form == "wide"
    rows = [["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", *(["VERBS"] * wide)]]
    for kind in KINDS.values():
        row = [kind.plural, ",".join(kind.short), API_VERSION, "false", kind.kind]
        rows.append([*row, *([",".join(VERBS)] * wide)])
    return aligned(rows if header else rows[1:])
