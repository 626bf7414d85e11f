"""Documents to typed resources: everything wrong with one is reported at once.

An unknown field is a decoding error (400, as `kubectl --validate=strict` expects it), or is left
out for whoever asks for that; any other mistake makes the object Invalid (422) with a cause per
field, whose path reads as users write it (``spec.peers[2].asNumber``).
"""

from __future__ import annotations

import copy
import json
from typing import Any

from pydantic import ValidationError

from api.resources.errors import BadRequest, Cause, Invalid
from api.resources.meta import API_VERSION, Resource, dns_label
from api.resources.registry import Kind
from api.resources.workload import Origin, Workload

DEPTH_MOST = 64
_SAID = {
    "missing": ("is required", "FieldValueRequired"),
    "extra_forbidden": ("is not a known field", "FieldValueNotSupported"),
}


def parse_body(body: bytes, *, array: bool = False) -> Any:
    """The JSON object in `body` (with `array` an array will do); BadRequest if it is none, or
    holds what cannot be written as UTF-8: half of a surrogate pair would be taken in here and be
    nobody's to write down later."""
    try:
        document = json.loads(body)
        if not _is_plain(body):
            _flat(document)
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise BadRequest("cannot read the request: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise BadRequest(f"cannot read the request: it is no Unicode text ({error})") from error
    except ValueError as error:
        raise BadRequest(f"cannot read the request: it is not JSON ({error})") from error
    if not isinstance(document, dict) and not (array and isinstance(document, list)):
        raise BadRequest("cannot read the request: it must be a JSON object")
    return document


def _flat(document: Any) -> None:
    """RecursionError for what is nested so deeply that no object of ours is."""
    level = [document]
    for _ in range(DEPTH_MOST):
        level = [
            child
            for held in level
            if isinstance(held, dict | list)
            for child in (held.values() if isinstance(held, dict) else held)
        ]
        if not level:
            return
    raise RecursionError


def _is_plain(body: bytes) -> bool:
    """Short, shallow ASCII without escapes: nothing in it could not be written again."""
    return (
        len(body) < 4096
        and body.isascii()
        and b"\\" not in body
        and body.count(b"[") + body.count(b"{") < 64
    )


def decode(kind: Kind, document: Any, unknown: list[str] | None = None) -> Resource:
    """The resource in `document`; BadRequest or Invalid name the object and each field. With
    `unknown`, fields that are not known are left out and added to it, and values of the status,
    which is only a report."""
    if not isinstance(document, dict):
        raise BadRequest(f"cannot read the {kind.kind}: it must be an object")
    document = of_kind(kind, document)
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    said = _called(kind, document)
    if isinstance(metadata, dict) and isinstance(metadata.get("generateName"), str):
        # It says nothing of an object that has a name.
        known = {k: v for k, v in metadata.items() if k != "generateName"}
        document = {**document, "metadata": known}
    try:
        held = _typed(kind, document)
    except ValidationError as error:
        extra = [problem for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if unknown is not None:
            odd = [p for p in error.errors() if (p["type"], p["loc"][:1]) == ("enum", ("status",))]
            unknown += [_unknown(problem) for problem in extra]
            unknown += [f'unknown value of "{cause_of(problem).field}"' for problem in odd]
            if places := [problem["loc"] for problem in (*extra, *odd)]:
                return decode(kind, without(document, places), unknown)
        causes = [cause_of(problem) for problem in error.errors()]
        if len(extra) == len(causes):
            fields = ", ".join(f'unknown field "{cause.field}"' for cause in causes)
            raise BadRequest(f"strict decoding error: {said}: {fields}", causes=causes) from error
        raise invalid(kind, name, causes) from error
    causes = checks(held)
    if causes:
        raise invalid(kind, name, causes)
    return held


def of_kind(kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    """`document`, which says of which kind it is; BadRequest if it says another."""
    document = {"apiVersion": API_VERSION, "kind": kind.kind, **document}
    if document["apiVersion"] != API_VERSION or document["kind"] != kind.kind:
        raise BadRequest(
            f"cannot read {_called(kind, document)}: it is {document['apiVersion']} "
            f"{document['kind']}, not {API_VERSION} {kind.kind}"
        )
    return document


def _called(kind: Kind, document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{kind.kind} {name!r}" if isinstance(name, str) else kind.kind


def _typed(kind: Kind, document: Any) -> Resource:
    """By the names on the wire alone: those of Python are unknown fields like any other."""
    return kind.model.model_validate(document, by_alias=True, by_name=False)


def known(kind: Kind, document: Any, unknown: list[str] | None) -> Any:
    """`document`, which need not be whole, without the fields that are not known: they are added to
    `unknown`. None: they stay, and `decode` refuses them."""
    if unknown is None:
        return document
    try:
        _typed(kind, document)
    except ValidationError as error:
        extra = [problem for problem in error.errors() if problem["type"] == "extra_forbidden"]
        unknown += [_unknown(problem) for problem in extra]
        return without(document, [problem["loc"] for problem in extra])
    return document


def _unknown(problem: Any) -> str:
    return f'unknown field "{cause_of(problem).field}"'


def without(document: Any, places: list[tuple[int | str, ...]]) -> Any:
    made = copy.deepcopy(document)
    for place in places:
        around = made
        for part in place[:-1]:
            around = around[part]
        del around[place[-1]]
    return made


def checks(held: Resource) -> list[Cause]:
    """The rules that concern more than one field."""
    found: list[Cause] = []
    spec = getattr(held, "spec", None)
    rules = getattr(spec, "causes", None)
    if rules is not None:
        found.extend(rules())
    if isinstance(held, Workload):
        found.extend(_name_of(held))
    return found


def _name_of(held: Workload) -> list[Cause]:
    """API-born names are DNS labels, node-born ones ``<label>.<node>``: they never collide."""
    name = held.metadata.name
    try:
        if held.spec.origin is Origin.API:
            dns_label(name)
        else:
            label, _, node = name.partition(".")
            dns_label(label)
            if node != held.spec.node:
                return [Cause("metadata.name", f"must be NAME.{held.spec.node} for origin Node")]
    except ValueError as error:
        return [Cause("metadata.name", str(error))]
    return []


def invalid(kind: Kind, name: Any, causes: list[Cause]) -> Invalid:
    listed = "; ".join(str(cause) for cause in causes)
    return Invalid(
        f'{kind.kind} "{name}" is invalid: {listed}', causes=causes, kind=kind.kind, name=str(name)
    )


def cause_of(problem: Any) -> Cause:
    """One pydantic problem as a cause."""
    path = ""
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    message, reason = _SAID.get(problem["type"], (str(problem["msg"]), "FieldValueInvalid"))
    return Cause(path, message.removeprefix("Value error, "), reason)
