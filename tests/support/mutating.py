"""How a mutator is made: a function that changes what was compiled, everywhere, as a mistake of the
compiler would (support/mutators.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from policies.compile.ruleset import Chain, Ruleset, Set, chain, label_of

Mutator = Callable[[Ruleset], Ruleset]
Line = tuple[str, str]  # a rule's text, and what its comment says
Lines = list[Line]


def _lines(one: Chain) -> Lines:
    """The rules without their comments, which have a digest of the text."""
    return [
        (text.removesuffix(f' comment "{mark}"'), label_of(mark))
        for text, mark in zip(one.rules, one.marks, strict=True)
    ]


def chains(change: Callable[[Lines], Iterable[Line]], names: str = "") -> Mutator:
    """A mutator of the chains whose names match."""

    def mutate(ruleset: Ruleset) -> Ruleset:
        found = dict(ruleset.chains)
        for name, one in ruleset.chains.items():
            lines = _lines(one)
            after = list(change(list(lines)))
            if re.match(names, name) and after != lines:
                found[name] = chain(after, one.hook)
        return replace(ruleset, chains=found)

    return mutate


def texts(pattern: str, to: str | Callable[[re.Match[str]], str], names: str = "") -> Mutator:
    """A mutator of rules in which `pattern` is, as a whole word."""
    found = re.compile(rf"(?<!\S){pattern}(?!\S)")

    def change(lines: Lines) -> Iterator[Line]:
        for text, label in lines:
            yield " ".join(found.sub(to, text).split()), label

    return chains(change, names)


def without(pattern: str, names: str = "") -> Mutator:
    """Rules in which `pattern` is are lost."""
    found = re.compile(rf"(?<!\S){pattern}(?!\S)")
    return chains(lambda lines: [one for one in lines if not found.search(one[0])], names)


def sets(change: Callable[[str, Set], Iterable[str]], names: str) -> Mutator:
    """A mutator of the elements of the sets whose names match."""

    def mutate(ruleset: Ruleset) -> Ruleset:
        return replace(
            ruleset,
            sets={
                name: replace(one, elements=frozenset(change(name, one)))
                if re.match(names, name)
                else one
                for name, one in ruleset.sets.items()
            },
        )

    return mutate


def first_of(match: re.Match[str]) -> str:
    """Of an anonymous set only the first element."""
    return re.sub(r"\{ ([^,}]+),[^}]*\}", r"\1", match[0])


def last_of(match: re.Match[str]) -> str:
    return re.sub(r"\{[^}]*, ([^,}]+) \}", r"\1", match[0])


def swapped(lines: Lines) -> Lines:
    """Neighbours change places."""
    for place in range(0, len(lines) - 1, 2):
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return lines


def without_first(_: str, one: Set) -> list[str]:
    return sorted(one.elements)[1:]


def without_last(_: str, one: Set) -> list[str]:
    return sorted(one.elements)[:-1]
