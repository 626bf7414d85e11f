"""The sets that rules ask for. Elements are texts as nftables takes them; a protocol is its number,
for which some hosts have no name. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from policies.compile import names
from policies.compile.matches import WORDS, collapsed
from policies.compile.ruleset import ADDRESSES, NETS, PORTS, Ruleset, Set
from policies.model import Members, Membership, PortMember, PortMembers

NOTE = 100  # characters of a set's comment


def sets(asked: Iterable[str], known: Membership) -> dict[str, Set]:
    """Those of the `asked` names that are of members."""
    wanted = frozenset(asked)
    found = {}
    for text, members in known.selectors.items():
        for version in WORDS:
            if (name := names.selector(text, version)) in wanted:
                found[name] = Set(ADDRESSES[version], _addresses(members)[version], note(text))
            if (name := names.nets(text, version)) in wanted:
                found[name] = Set(NETS[version], _nets(members)[version], note(text))
    for key, ports in known.ports.items():
        for version in WORDS:
            if (name := names.named(key, version)) in wanted:
                said = f"{key[0]} {key[1]}".strip()
                found[name] = Set(PORTS[version], _ports(ports)[version], note(said))
    return found


def renewed(rules: Ruleset, known: Membership) -> Ruleset:
    """The same rules, for what members are now as far as that is known."""
    return Ruleset(rules.chains, {**rules.sets, **sets(rules.sets, known)})


def port_text(member: PortMember) -> str:
    """What a port's name stands for at one address, as an element."""
    address, protocol, port = member
    return f"{address} . {protocol} . {port}"


def note(text: str) -> str:
    """A selector as a comment, in which no character means anything to nft."""
    plain = text.replace('"', "'").replace("\\", "/")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)[:NOTE]


# what was worked out before of the same members, as long as these are in use
_TEXTS: WeakKeyDictionary[Members, dict[int, frozenset[str]]] = WeakKeyDictionary()
_NETS: WeakKeyDictionary[Members, dict[int, frozenset[str]]] = WeakKeyDictionary()
_THREES: WeakKeyDictionary[PortMembers, dict[int, frozenset[str]]] = WeakKeyDictionary()


def _addresses(members: Members) -> dict[int, frozenset[str]]:
    if (found := _TEXTS.get(members)) is None:
        found = _TEXTS[members] = {
            version: frozenset(str(one) for one in members.addresses if one.version == version)
            for version in WORDS
        }
    return found


def _nets(members: Members) -> dict[int, frozenset[str]]:
    if (found := _NETS.get(members)) is None:
        found = _NETS[members] = {
            version: frozenset(map(str, collapsed(members.nets, version))) for version in WORDS
        }
    return found


def _ports(members: PortMembers) -> dict[int, frozenset[str]]:
    if (found := _THREES.get(members)) is None:
        found = _THREES[members] = {
            version: frozenset(port_text(one) for one in members if one[0].version == version)
            for version in WORDS
        }
    return found
