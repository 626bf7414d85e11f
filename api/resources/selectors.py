"""Selectors: Calico's language over labels, parsed with positions.

    expression = and-term { "||" and-term }
    and-term   = not-term { "&&" not-term }
    not-term   = "!" not-term | "(" expression ")" | operation
    operation  = "all()" | "global()" | "has(" label ")"
               | label ("==" | "!=" | "contains" | "starts with" | "ends with") string
               | label ("in" | "not in") "{" [ string { "," string } ] "}"

A label that is absent equals nothing: `==`, `in`, `contains`, ... are false, `!=` and `not in` are
true. The empty selector means `all()`. `parse` raises SelectorError (a ValueError) with the column,
counted from 1. `global()` is accepted where Calico's users write it and matches everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

Labels = Mapping[str, str]
Matcher = Callable[[Labels], bool]

MAX_LENGTH = 4096
MAX_DEPTH = 64
SUBJECTS_MOST = 2000  # selectors and names of ports that a service tells one reader of

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<op>==|!=|&&|\|\||[!(){},])
      | (?P<string>"[^"]*"|'[^']*')
      | (?P<word>[A-Za-z0-9][-A-Za-z0-9_./]*)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)


class SelectorError(ValueError):
    """A selector that cannot be read; `column` counts from 1."""

    def __init__(self, text: str, column: int, message: str) -> None:
        self.column = column
        super().__init__(f"cannot read selector {text!r}: column {column}: {message}")


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector; equal when written alike."""

    text: str
    matcher: Matcher

    def matches(self, labels: Labels) -> bool:
        """Whether an object with `labels` is selected."""
        return self.matcher(labels)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """Parse `text`; SelectorError names the column of the first mistake."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(text[:40], MAX_LENGTH, f"longer than {MAX_LENGTH} characters")
    if not text.strip():
        return Selector(text, lambda labels: True)
    parser = _Parser(text)
    matcher = parser.expression(0)
    parser.expect_end()
    return Selector(text, matcher)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            rest = len(text) - len(text[position:].lstrip())
            raise SelectorError(text, rest + 1, f"cannot begin anything with {text[rest]!r}")
        kind = match.lastgroup or "end"
        found.append(_Token(kind, match.group(kind), match.start(kind) + 1))
        if kind == "end":
            return found
        position = match.end()


class _Parser:
    """Recursive descent; each method returns a matcher and leaves the position after it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.position]

    def take(self, text: str) -> bool:
        if self.now.kind != "string" and self.now.text == text:
            self.position += 1
            return True
        return False

    def fail(self, wanted: str) -> SelectorError:
        said = repr(self.now.text) if self.now.kind != "end" else "the end"
        return SelectorError(self.text, self.now.column, f"{wanted} expected, {said} found")

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise self.fail(repr(text))

    def expect_end(self) -> None:
        if self.now.kind != "end":
            raise self.fail("'&&', '||' or the end")

    def expression(self, depth: int) -> Matcher:
        terms = [self.and_term(depth)]
        while self.take("||"):
            terms.append(self.and_term(depth))
        return terms[0] if len(terms) == 1 else lambda labels: any(t(labels) for t in terms)

    def and_term(self, depth: int) -> Matcher:
        terms = [self.not_term(depth)]
        while self.take("&&"):
            terms.append(self.not_term(depth))
        return terms[0] if len(terms) == 1 else lambda labels: all(t(labels) for t in terms)

    def not_term(self, depth: int) -> Matcher:
        if depth > MAX_DEPTH:
            raise SelectorError(self.text, self.now.column, f"nested deeper than {MAX_DEPTH}")
        if self.take("!"):
            inner = self.not_term(depth + 1)
            return lambda labels: not inner(labels)
        if self.take("("):
            inner = self.expression(depth + 1)
            self.expect(")")
            return inner
        return self.operation()

    def operation(self) -> Matcher:
        label = self.word("a label")
        if label in ("all", "global") and self.take("("):
            self.expect(")")
            return lambda labels: True
        if label == "has" and self.take("("):
            wanted = self.word("a label")
            self.expect(")")
            return lambda labels: wanted in labels
        return self.comparison(label)

    def comparison(self, label: str) -> Matcher:
        if self.take("=="):
            value = self.string()
            return lambda labels: labels.get(label) == value
        if self.take("!="):
            value = self.string()
            return lambda labels: labels.get(label) != value
        if self.take("contains"):
            value = self.string()
            return lambda labels: label in labels and value in labels[label]
        if self.take("starts"):
            self.expect("with")
            value = self.string()
            return lambda labels: label in labels and labels[label].startswith(value)
        if self.take("ends"):
            self.expect("with")
            value = self.string()
            return lambda labels: label in labels and labels[label].endswith(value)
        if self.take("in"):
            values = self.strings()
            return lambda labels: labels.get(label) in values
        if self.take("not"):
            self.expect("in")
            values = self.strings()
            return lambda labels: labels.get(label) not in values
        raise self.fail("'==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with'")

    def word(self, wanted: str) -> str:
        if self.now.kind != "word":
            raise self.fail(wanted)
        self.position += 1
        return self.tokens[self.position - 1].text

    def string(self) -> str:
        if self.now.kind != "string":
            raise self.fail("a quoted string")
        self.position += 1
        return self.tokens[self.position - 1].text[1:-1]

    def strings(self) -> frozenset[str]:
        self.expect("{")
        values: list[str] = []
        if not self.take("}"):
            values.append(self.string())
            while self.take(","):
                values.append(self.string())
            self.expect("}")
        return frozenset(values)


def _checked(text: str) -> str:
    parse(text)
    return text


SelectorText = Annotated[str, AfterValidator(_checked)]
