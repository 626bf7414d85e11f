"""kubectl's JSONPath templates: ``{range .items[*]}{.metadata.name}{"\\n"}{end}``. Pure.

Text outside braces stands for itself. Inside: a path, a quoted text, ``range PATH`` and ``end``.
A path is a chain of steps from the document (or, in a range, from the element): ``.name``,
``['name']``, ``[0]``, ``[-1]``, ``[0:2:1]``, ``[*]``, ``.*``, ``..name`` and filters,
``[?(@.type=="Ready")]``. What is not there is nothing, as kubectl says it.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from api.resources.errors import Cause, ConfigError

Step = Callable[[Any], Iterator[Any]]
Path = tuple[Step, ...]

_NAME = re.compile(r"(?:[^\s.\[\]{}()'\",=<>!|*?@$\\]|\\.)+")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?\Z")
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")
_ACTION = re.compile(r"\{((?:[^{}'\"]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")*)\}")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def rendered(template: str, document: Any) -> str:
    """ConfigError for a template that cannot be read."""
    pieces, at = _pieces(template), 0
    text, at = _rendered(template, pieces, at, document)
    if at != len(pieces):
        raise _wrong(template, "{end} without {range}")
    return text


def path(text: str) -> Path:
    """A single path: ``{.a.b}``, ``.a.b`` or ``a.b``, as kubectl takes for columns and sorting."""
    inside = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    if inside and inside[0] not in ".[$@":
        inside = f".{inside}"
    return _steps(inside, text)


def found(steps: Path, document: Any) -> list[Any]:
    """Every value that the path leads to."""
    values = [document]
    for step in steps:
        values = [reached for value in values for reached in step(value)]
    return values


def said(value: Any) -> str:
    """As kubectl prints a value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list) or value is None:
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _pieces(template: str) -> list[tuple[str, str]]:
    """Texts and actions, in order."""
    pieces, at = [], 0
    for match in _ACTION.finditer(template):
        pieces += [("text", template[at : match.start()]), ("action", match[1].strip())]
        at = match.end()
    pieces.append(("text", template[at:]))
    if any(kind == "text" and ("{" in text or "}" in text) for kind, text in pieces):
        raise _wrong(template, "its braces do not match")
    return pieces


def _rendered(
    template: str, pieces: Sequence[tuple[str, str]], at: int, document: Any
) -> tuple[str, int]:
    """What stands from piece `at` on, up to the end of its range; and where that is."""
    text = ""
    while at < len(pieces):
        kind, held = pieces[at]
        if kind == "text":
            text += held
        elif held == "end":
            return text, at
        elif held.startswith("range"):
            elements = found(_steps(held[5:].strip(), template), document)
            ends = _end(template, pieces, at)
            for element in elements:
                text += _rendered(template, pieces[:ends], at + 1, element)[0]
            at = ends
        elif quoted := _QUOTED.fullmatch(held):
            text += _unquoted(quoted)
        else:
            text += " ".join(map(said, found(_steps(held, template), document)))
        at += 1
    return text, at


def _end(template: str, pieces: Sequence[tuple[str, str]], at: int) -> int:
    """Where the range that begins at `at` ends."""
    depth = 0
    for place in range(at, len(pieces)):
        kind, held = pieces[place]
        if kind == "action":
            depth += held.startswith("range") - (held == "end")
            if not depth:
                return place
    raise _wrong(template, "{range} without {end}")


def _steps(text: str, whole: str) -> Path:
    steps: list[Step] = []
    rest = text.lstrip("$@") if text[:1] in "$@" else text
    if not text or (rest and rest[0] not in ".["):
        raise _wrong(whole, f"{text!r} is no path: paths begin with a dot")
    while rest:
        if rest.startswith("["):
            inside, rest = _bracket(rest, whole)
            steps.append(_inside(inside, whole))
        elif rest == ".":
            break  # the document itself
        elif rest.startswith("..") and (name := _NAME.match(rest, 2)):
            steps += [_deep, _field(_plain(name[0]))]
            rest = rest[name.end() :]
        elif rest.startswith(".."):
            steps.append(_deep)
            rest = rest[2:]
        elif rest.startswith(".*"):
            steps.append(_all)
            rest = rest[2:]
        elif rest.startswith(".["):
            rest = rest[1:]
        elif rest.startswith(".") and (name := _NAME.match(rest, 1)):
            steps.append(_field(_plain(name[0])))
            rest = rest[name.end() :]
        else:
            raise _wrong(whole, f"cannot go on at {rest!r}")
    return tuple(steps)


def _bracket(text: str, whole: str) -> tuple[str, str]:
    """What is between the first bracket and its partner, and what follows."""
    depth, at = 0, 0
    while at < len(text):
        if quoted := _QUOTED.match(text, at):
            at = quoted.end()
            continue
        depth += (text[at] == "[") - (text[at] == "]")
        at += 1
        if not depth:
            return text[1 : at - 1].strip(), text[at:]
    raise _wrong(whole, f"{text!r} has no end")


def _inside(text: str, whole: str) -> Step:
    if text == "*":
        return _all
    if text.startswith("?(") and text.endswith(")"):
        return _filter(text[2:-1].strip(), whole)
    if match := _SLICE.match(text):
        bounds = slice(*(int(part) if part else None for part in match.groups()))
        return lambda value: iter(value[bounds] if isinstance(value, list) else ())
    parts = [part.strip() for part in re.findall(r"'[^']*'|\"[^\"]*\"|[^,]+", text)]
    steps: list[Step] = []
    for part in parts:
        if quoted := _QUOTED.fullmatch(part):
            steps.append(_field(_unquoted(quoted)))
        elif re.fullmatch(r"-?\d+", part):
            steps.append(_element(int(part)))
        else:
            raise _wrong(whole, f"cannot read [{text}]")
    return lambda value: (reached for step in steps for reached in step(value))


def _filter(text: str, whole: str) -> Step:
    """Elements for which ``@.path`` is there, or compares so with a literal or another path."""
    left, *rest = _COMPARISON.split(text, maxsplit=1)
    one = _steps(left, whole)
    if not rest:
        return lambda value: (e for e in _children(value) if found(one, e))
    compare, right = _OPERATORS[rest[0]], rest[1].strip()
    other = _steps(right, whole) if right.startswith("@") else None
    literal = None if other is not None else _literal(right, whole)

    def holds(element: Any) -> bool:
        values = found(one, element)
        against = found(other, element) if other is not None else [literal]
        try:
            return bool(values and against) and compare(values[0], against[0])
        except TypeError:
            return False

    return lambda value: (element for element in _children(value) if holds(element))


def _literal(text: str, whole: str) -> Any:
    if quoted := _QUOTED.fullmatch(text):
        return _unquoted(quoted)
    try:
        return json.loads(text)
    except ValueError:
        raise _wrong(whole, f"{text!r} is neither a number nor a quoted text") from None


def _field(name: str) -> Step:
    return lambda value: iter([value[name]] if isinstance(value, dict) and name in value else ())


def _element(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _children(value: Any) -> Iterator[Any]:
    return iter(
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )


_all: Step = _children


def _deep(value: Any) -> Iterator[Any]:
    yield value
    for child in _children(value):
        yield from _deep(child)


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _unquoted(match: re.Match[str]) -> str:
    text = match[1] if match[1] is not None else match[2]
    return re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[1]), text)


def _wrong(template: str, problem: str) -> ConfigError:
    return ConfigError(f"the JSONPath {template!r}", [Cause("", problem)])
