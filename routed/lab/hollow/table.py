"""The filter table of a host that is none: every transaction is made as for a kernel, and what the
table holds afterwards is kept.

What is spared is the kernel's part, and reading back, which finds what was put there. How a change
is carried out is chosen as `policies/nft.py` does: elements alone where they are all that differs,
else what differs of chains and sets, else the whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies import base
from policies.compile.ruleset import NO_POLICIES, Delta, Ruleset
from policies.elements import batch
from policies.nat import Nat
from routed.lab.hollow.host import HollowFilter


@dataclass(frozen=True, slots=True)
class Altered:
    """Elements that came to a set and went, or (neither) a chain that was written anew; `at`:
    CLOCK_MONOTONIC, when the transaction was over."""

    at: float
    name: str
    add: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


class HollowTable(HollowFilter):
    """`sets` and `chains` (marks of rules) are what it holds, `news` what was altered and nobody
    has taken yet; `written` counts characters of commands, of which elements alone need none."""

    def __init__(self) -> None:
        self.sets: dict[str, frozenset[str]] = {}
        self.chains: dict[str, tuple[str, ...]] = {}
        self.news: deque[Altered] = deque()
        self.written = 0
        self._made: tuple[Nat | None, Ruleset] | None = None

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        made = self._made
        if rules is None:
            rules = NO_POLICIES if made is None else made[1]
        wanted = nat if nat is not None else (made[0] if made is not None else None)
        self._made = wanted, rules
        if made is not None:
            deltas = rules.since(made[1]) if wanted == made[0] else None
            if deltas is not None and batch(deltas) is not None:
                self._move(deltas)
                return any(delta.add or delta.gone for delta in deltas)
        commands = base.changes(made, wanted, rules) if made is not None else None
        if commands is None:
            commands = base.commands(None, wanted, rules)
        if commands:
            self.written += len("\n".join(commands))
            self._take(rules)
        return bool(commands)

    def policed(self) -> bool:
        return bool(self.chains)

    def _move(self, deltas: Iterable[Delta]) -> None:
        at = time.monotonic()
        for delta in deltas:
            self.sets[delta.name] = self.sets[delta.name] - delta.gone | delta.add
            self.news.append(Altered(at, delta.name, delta.add, delta.gone))

    def _take(self, rules: Ruleset) -> None:
        at = time.monotonic()
        chains = {name: one.marks for name, one in rules.chains.items()}
        sets: Mapping[str, frozenset[str]] = {n: one.elements for n, one in rules.sets.items()}
        nothing = frozenset[str]()
        for name in sets.keys() | self.sets.keys():
            before, after = self.sets.get(name, nothing), sets.get(name, nothing)
            if before != after:
                self.news.append(Altered(at, name, after - before, before - after))
        for name, marks in chains.items():
            if marks != self.chains.get(name):
                self.news.append(Altered(at, name))
        self.sets, self.chains = dict(sets), chains
