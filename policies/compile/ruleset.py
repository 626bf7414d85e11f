"""The part of the table that is of policies, as a value: chains and sets by name.

A rule is its text, and ends in a comment that names it and has a digest of the text before it. So
what nft lists of a chain says whether it holds the rules that it should, in this order, without
that texts were compared which nft writes in its own way; also to an agent that has just started.
Somebody who changes a rule by hand changes or loses its comment. Elements of sets are compared as
they are. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from weakref import ref

from policies.compile.names import digest

LINKS = "type ifname"
ADDRESSES = {4: "type ipv4_addr", 6: "type ipv6_addr"}
NETS = {version: f"{kind}; flags interval" for version, kind in ADDRESSES.items()}
PORTS = {version: f"{kind} . inet_proto . inet_service" for version, kind in ADDRESSES.items()}
ORIGINS = 16  # others that a ruleset remembers to be made of
# what the names of our chains and sets begin with; the base table has no such names
CHAIN_NAMES = ("policy-", "trial-", "egress-", "ingress-", "slaves-")
SET_NAMES = (
    "links-", "bit-", "selector4-", "selector6-", "nets4-", "nets6-", "named4-", "named6-",
    "slaves",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chain:
    """`rules` are texts, `marks` their comments; of a chain that was listed only these are known.
    `hook`: of a base chain, as in its definition."""

    rules: tuple[str, ...]
    marks: tuple[str, ...]
    hook: str = ""

    def same(self, other: Chain | None) -> bool:
        """Whether both hold the same rules."""
        return self is other or (
            other is not None and (self.hook, self.marks) == (other.hook, other.marks)
        )


@dataclass(frozen=True, slots=True)
class Set:
    """`kind` as in its definition; `elements` as texts. `note` is for people."""

    kind: str
    elements: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """Elements that come to a set, which are not in it, and those that go, which are."""

    name: str
    kind: str
    add: frozenset[str]
    gone: frozenset[str]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Ruleset:
    """All chains and sets of policies; none at all: there are no policies for anybody here.

    One that differs from another by elements remembers by which, so that a change costs what
    changes and not what there is (`since`). It does not keep the other alive.
    """

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    origins: tuple[tuple[ref[Ruleset], tuple[Delta, ...]], ...] = field(
        default=(), compare=False, repr=False
    )

    def __bool__(self) -> bool:
        return bool(self.chains)

    def changed(self, name: str, add: Iterable[str] = (), gone: Iterable[str] = ()) -> Ruleset:
        """The same with other elements in one set."""
        return self.altered({name: (add, gone)})

    def altered(self, changes: Mapping[str, tuple[Iterable[str], Iterable[str]]]) -> Ruleset:
        """The same with other elements in some sets: by their names, those that come and go."""
        deltas: list[Delta] = []
        sets: dict[str, Set] = {}
        for name, (add, gone) in changes.items():
            one = self.sets[name]
            elements = one.elements
            delta = Delta(name, one.kind, frozenset(add) - elements, elements & frozenset(gone))
            if not delta.add and not delta.gone:
                continue
            if delta.add:
                elements |= delta.add
            if delta.gone:
                elements -= delta.gone
            deltas.append(delta)
            sets[name] = replace(one, elements=elements)
        if not deltas:
            return self
        before = ((other, (*some, *deltas)) for other, some in self.origins[: ORIGINS - 1])
        return Ruleset(self.chains, {**self.sets, **sets}, ((ref(self), tuple(deltas)), *before))

    def since(self, other: Ruleset) -> tuple[Delta, ...] | None:
        """What makes this of the other, one after the other; None: it is not known by that."""
        if other is self:
            return ()
        for origin, deltas in self.origins:
            if origin() is other:
                return deltas
        return None


NO_POLICIES = Ruleset()


def chain(rules: Iterable[tuple[str, str]], hook: str = "") -> Chain:
    """Of (text, what its comment says) each."""
    texts, marks = [], []
    for text, label in rules:
        mark = f"{label} #{digest(text)[:8]}"
        texts.append(f'{text} comment "{mark}"')
        marks.append(mark)
    return Chain(tuple(texts), tuple(marks), hook)


def address(text: str) -> str:
    """An address as an element: in the words of Python, where nft's differ (`::ffff:1.2.3.4`)."""
    return str(IPv6Address(text)) if ":" in text and "." in text else text


def label_of(mark: str) -> str:
    """What a rule's comment says beside the digest."""
    return mark.rpartition(" #")[0]
