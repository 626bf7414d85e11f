"""Address translation on one host, as a value and as a part of the base table.

Source NAT: what leaves a pool with `natOutgoing` for an address that is in no pool is masqueraded:
it gets the address of this host's link that it leaves by; or the one that is set, which is better
where there are several uplinks, or only such that nobody beyond the switch has a way back to.
Between pools nothing is translated, nor is what the host itself sends, whose source is in no pool:
sessions with the switches stay as they are.

Everything that comes and goes is an element of a set, never a rule. The chains are there only
while there is something to translate: a `nat` chain costs each new connection of the host. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.net import IPAddress, IPNetwork

VERSIONS = {4: "ip", 6: "ip6"}
SETS = {"pools": "flags interval;", "outgoing": "flags interval;"}

Elements = Mapping[str, frozenset[str]]  # by the name of a set


@dataclass(frozen=True, slots=True)
class Nat:
    """`pools` are the prefixes of all pools, `outgoing` those that are hidden behind hosts, by
    `sources`, of which there is at most one a family."""

    pools: frozenset[IPNetwork] = frozenset()
    outgoing: frozenset[IPNetwork] = frozenset()
    sources: tuple[IPAddress, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.outgoing)


def body(nat: Nat) -> str:
    """Sets, empty, and chains."""
    sources: dict[int, str] = {
        source.version: f"snat {VERSIONS[source.version]} to {source}" for source in nat.sources
    }
    text = ""
    for version, word in VERSIONS.items():
        kind = f"type ip{'v4' if word == 'ip' else 'v6'}_addr;"
        for name, flags in SETS.items():
            text += f"  set {name}{version} {{ {kind} {flags} }}\n"
    text += "  chain masquerading {\n"
    text += "    type nat hook postrouting priority srcnat; policy accept;\n"
    for version, word in VERSIONS.items():
        hidden = f"{word} saddr @outgoing{version} {word} daddr != @pools{version}"
        text += f"    {hidden} {sources.get(version, 'masquerade')}\n"
    return text + "  }\n"


def elements(nat: Nat) -> Elements:
    """What each set has to hold."""
    found = {}
    for version in VERSIONS:
        found[f"pools{version}"] = _prefixes(nat.pools, version)
        found[f"outgoing{version}"] = _prefixes(nat.outgoing, version)
    return found


def held(entries: Iterable[Mapping[str, Any]]) -> Elements:
    """What each set of a listed table holds, in the words of `elements`."""
    found = {}
    for entry in entries:
        one = entry.get("set") or entry.get("map")
        if one is not None:
            found[one["name"]] = frozenset(_text(element) for element in one.get("elem", []))
    return found


def filling(table: str, wanted: Elements, now: Elements) -> list[str]:
    """The commands that make sets hold what is `wanted`. A set of prefixes is filled anew, within
    the transaction: two that overlap cannot take turns in it."""
    commands = []
    for name, want in wanted.items():
        have = now.get(name, frozenset())
        if want == have:
            continue
        if have:
            commands.append(f"flush set {table} {name}")
        if want:
            commands.append(f"add element {table} {name} {{ {', '.join(sorted(want))} }}")
    return commands


def _prefixes(prefixes: Iterable[IPNetwork], version: int) -> frozenset[str]:
    return frozenset(str(one) for one in prefixes if one.version == version)


def _text(element: Any) -> str:
    """One of nft's JSON as one of `elements`."""
    if isinstance(element, str):
        return f"{element}/{128 if ':' in element else 32}"
    prefix = element["prefix"]
    return f"{prefix['addr']}/{prefix['len']}"
