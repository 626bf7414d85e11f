"""Label and field selectors of list and watch requests (Kubernetes syntax).

Label: ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Field: ``metadata.name=x,spec.node!=y``, of the
kind's declared paths only. Anything else is a BadRequest that says what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from api.resources.errors import BadRequest
from api.resources.registry import Kind

Document = dict[str, Any]
Predicate = Callable[[Document], bool]

_SET = re.compile(r"(?P<key>[^\s,!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\Z")
_EQUAL = re.compile(r"(?P<key>[^\s,!=()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,!=()]*)\Z")
_HAS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s,!=()]+)\Z")


def selection(kind: Kind, labels: str, fields: str) -> Predicate:
    """Whether a document is selected by both selectors."""
    tests = [_label(term) for term in _terms(labels)] + [
        _field(kind, term) for term in _terms(fields)
    ]
    return lambda document: all(test(document) for test in tests)


def at(document: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for part in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document


def _terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts = re.split(r",(?![^()]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def _labels(document: Document) -> dict[str, str]:
    return at(document, "metadata.labels") or {}


def _label(term: str) -> Predicate:
    if match := _SET.match(term):
        key, inside = match["key"], match["op"] == "in"
        values = {value.strip() for value in match["values"].split(",")}
        if inside:
            return lambda d: _labels(d).get(key) in values
        return lambda d: _labels(d).get(key) not in values
    if match := _EQUAL.match(term):
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda d: _labels(d).get(key) != value
        return lambda d: _labels(d).get(key) == value
    if match := _HAS.match(term):
        key = match["key"]
        if match["no"]:
            return lambda d: key not in _labels(d)
        return lambda d: key in _labels(d)
    raise BadRequest(f"cannot read label selector {term!r}: KEY=VALUE, KEY in (A,B), KEY or !KEY")


def _field(kind: Kind, term: str) -> Predicate:
    match = _EQUAL.match(term)
    allowed = ("metadata.name", *kind.selectable)
    if match is None or match["key"] not in allowed:
        raise BadRequest(
            f"cannot select {kind.plural} by {term!r}: field selectors are PATH=VALUE and "
            f"PATH!=VALUE with PATH one of {', '.join(allowed)}"
        )
    path, value = match["key"], match["value"]
    if match["op"] == "!=":
        return lambda d: str(at(d, path) or "") != value
    return lambda d: str(at(d, path) or "") == value
