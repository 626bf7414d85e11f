"""What comes and goes with every workload, in a ruleset that is there: elements of sets, as far as
that is all. It ends in what would be compiled anew. Pure.

An endpoint is an element of its group's set and of those of the bits that its group is told by: its
link, or, of the ipvlan modes, which have none, its addresses. Those are also among the addresses of
all of these modes, and their parents. Where the set of its group is not there yet, or would be left
with nothing in it, chains come and go as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from api.resources.net import IPAddress
from policies.compile import dispatch, ipvlan, members, names
from policies.compile.chains import Place, Walk
from policies.compile.matches import WORDS
from policies.compile.ruleset import Ruleset
from policies.model import NO_IPVLAN, Direction, Ipvlan, Placed, PortKey, PortMember

# where links, or addresses, are sent on to their chains: what is there if workloads are judged
ROOTS = ("links", *(names.slaves(version) for version in WORDS))
DISPATCHING = frozenset(Place(way, Walk.REAL).name(root) for way in Direction for root in ROOTS)


@dataclass(frozen=True, slots=True)
class _Part:
    """The elements of one endpoint by set, and the sets of which one has to keep some of others."""

    elements: Mapping[str, frozenset[str]]
    kept: tuple[str, ...]


def joined(ruleset: Ruleset, placed: Placed, beside: Ipvlan = NO_IPVLAN) -> Ruleset | None:
    """`ruleset` with one more endpoint; None: it has to be compiled anew, also where one of its
    addresses is there already, as somebody else's. `beside`: what comes with one of the ipvlan
    modes."""
    parts = _parts(ruleset, placed, beside)
    if parts is None or _is_there(ruleset, beside):
        return None
    return ruleset.altered(
        {name: (some, ()) for part in parts for name, some in part.elements.items()}
    )


def parted(ruleset: Ruleset, placed: Placed, beside: Ipvlan = NO_IPVLAN) -> Ruleset | None:
    """`ruleset` without an endpoint; None: it has to be compiled anew. `beside`: what goes with one
    of the ipvlan modes; its parent does not while others are on it."""
    parts = _parts(ruleset, placed, beside)
    if parts is None or any(_is_last(ruleset, part) for part in parts):
        return None
    return ruleset.altered(
        {name: ((), some) for part in parts for name, some in part.elements.items()}
    )


def moved(
    ruleset: Ruleset,
    subject: str | PortKey,
    add: Iterable[IPAddress | PortMember] = (),
    gone: Iterable[IPAddress | PortMember] = (),
) -> Ruleset:
    """`ruleset` after addresses have come to what a selector stands for, or gone, or ports to what
    the name of one does. Where nets have, it has to be compiled anew."""
    come, left = [list(map(_element, some)) for some in (add, gone)]
    found = {}
    for version in WORDS:
        if isinstance(subject, str):
            name = names.selector(subject, version)
        else:
            name = names.named(subject, version)
        some = [text for of, text in come if of == version]
        rest = [text for of, text in left if of == version]
        if (some or rest) and name in ruleset.sets:
            found[name] = some, rest
    return ruleset.altered(found)


def _parts(ruleset: Ruleset, placed: Placed, beside: Ipvlan) -> list[_Part] | None:
    """What an endpoint is in the sets that tell of it; None: some of them are not there."""
    found = [_beside(beside)] if beside else []
    free = not (placed.ingress or placed.egress)
    if not beside.unjudged and not (free and DISPATCHING.isdisjoint(ruleset.chains)):
        found.append(_grouped(ruleset, placed, beside))
    there = all(part.elements.keys() <= ruleset.sets.keys() for part in found)
    return found if there else None


def _beside(one: Ipvlan) -> _Part:
    elements = {name: held.elements for name, held in ipvlan.sets(one).items()}
    return _Part(elements, tuple(names.slaves(version) for version in WORDS))


def _grouped(ruleset: Ruleset, placed: Placed, beside: Ipvlan) -> _Part:
    group = names.group(placed.ingress, placed.egress)
    bys = dispatch.ADDRESSES if beside else (dispatch.LINKS,)
    elements: dict[str, frozenset[str]] = {}
    for by in bys:
        bits = 0
        while by.bit_set(bits) in ruleset.sets:
            bits += 1
        mine = {str(one) for one in placed.addresses if one.version == by.version}
        elements |= dict.fromkeys(by.sets_of(group, bits), frozenset(mine or {placed.link} - {""}))
    return _Part(elements, tuple(by.group_set(group) for by in bys))


def _is_there(ruleset: Ruleset, beside: Ipvlan) -> bool:
    sets = {one: ruleset.sets[names.slaves(one.version)] for one in beside.addresses}
    return any(str(one) in held.elements for one, held in sets.items())


def _is_last(ruleset: Ruleset, part: _Part) -> bool:
    return all(ruleset.sets[name].elements <= part.elements[name] for name in part.kept)


def _element(member: IPAddress | PortMember) -> tuple[int, str]:
    """Its version of IP, and what it is in a set."""
    if isinstance(member, tuple):
        return member[0].version, members.port_text(member)
    return member.version, str(member)
