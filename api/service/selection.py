"""Label and field selectors of list and watch requests (Kubernetes syntax).

Label: ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Field: ``metadata.name=x,spec.node!=y``, of the
kind's declared paths only. Anything else is a BadRequest that says what is accepted.

``metadata.name=`` and ``spec.node=`` are what agents select by: they are known of every object
without decoding it, and are kept apart from the tests that need a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.resources.errors import BadRequest
from api.resources.registry import Kind

Document = dict[str, Any]
Predicate = Callable[[Document], bool]

_SET = re.compile(r"(?P<key>[^\s,!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\Z")
_EQUAL = re.compile(r"(?P<key>[^\s,!=()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,!=()]*)\Z")
_HAS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s,!=()]+)\Z")


@dataclass(frozen=True, slots=True)
class Selection:
    """Both selectors: `name` and `node` as required ("": any), and the other tests."""

    name: str
    node: str
    tests: tuple[Predicate, ...]

    def selects(self, name: str, node: str, document: Callable[[], Document]) -> bool:
        """Whether the object with this name and spec.node is selected; `document` is called only
        if something else must be looked at."""
        if (self.name and name != self.name) or (self.node and node != self.node):
            return False
        return not self.tests or all(test(document()) for test in self.tests)

    def within(self, name: str, node: str, test: Predicate | None) -> Selection:
        """Of these only the objects with this name and spec.node ("": any) that pass `test`."""
        tests = self.tests if test is None else (*self.tests, test)
        if (name and self.name not in ("", name)) or (node and self.node not in ("", node)):
            tests = (_nothing,)
        return Selection(self.name or name, self.node or node, tests)

    def __call__(self, document: Document) -> bool:
        name, node = at(document, "metadata.name"), at(document, "spec.node")
        return self.selects(str(name), str(node or ""), lambda: document)


def _nothing(document: Document) -> bool:
    return False


def selection(kind: Kind, labels: str, fields: str) -> Selection:
    """What both selectors ask for; BadRequest if one cannot be read."""
    tests = [_label(term) for term in _terms(labels)]
    known = {"metadata.name": "", "spec.node": ""}
    for path, operator, value in field_terms(kind, fields):
        if operator != "!=" and value and known.get(path) == "":
            known[path] = value
        else:
            tests.append(_comparison(path, operator, value))
    return Selection(known["metadata.name"], known["spec.node"], tuple(tests))


def field_terms(kind: Kind, fields: str) -> list[tuple[str, str, str]]:
    """Path, operator and value of each term of a field selector; BadRequest."""
    return [_field(kind, term) for term in _terms(fields)]


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


def _field(kind: Kind, term: str) -> tuple[str, str, str]:
    match = _EQUAL.match(term)
    allowed = ("metadata.name", *kind.selectable)
    if match is None or match["key"] not in allowed:
        raise BadRequest(
            f"cannot select {kind.plural} by {term!r}: field selectors are PATH=VALUE and "
            f"PATH!=VALUE with PATH one of {', '.join(allowed)}"
        )
    return match["key"], match["op"], match["value"]


def _comparison(path: str, operator: str, value: str) -> Predicate:
    if operator == "!=":
        return lambda d: str(at(d, path) or "") != value
    return lambda d: str(at(d, path) or "") == value
