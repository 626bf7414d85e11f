"""Address translation on one host, as a value and as a part of the base table.

Source NAT: what leaves a pool with `natOutgoing` for an address that is in no pool is masqueraded:
it gets the address of this host's link that it leaves by; or the one that is set, which is better
where there are several uplinks, or only such that nobody beyond the switch has a way back to.
Between pools nothing is translated, nor is what the host itself sends, whose source is in no pool:
sessions with the switches stay as they are.

Port mapping: what comes for a port of the host's own addresses, or is sent there by the host itself
or by one of its workloads, goes to a workload. A workload that comes to itself that way would see a
packet of its own address, so its source is masqueraded, and only then. To loopback addresses
nothing is mapped: the packet would leave `lo` with a source that no link may have without
`route_localnet`, which opens the host's loopback to its neighbours (CVE-2020-8558). An address of a
pool that is on a link of the host (mode host) is its workload's, and has no ports of the host's,
unless a mapping names it.

Everything that comes and goes is an element of a set, never a rule. The chains are there only
while there is something to translate: a `nat` chain costs each new connection of the host. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.net import IPAddress, IPNetwork

VERSIONS = {4: "ip", 6: "ip6"}
INTERVALS = ("pools", "outgoing")  # sets of prefixes
MAPS = ("ports", "hostports")
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # nft has names for them on some hosts only
ODD = "?"  # an element that is none of ours, whatever it is

Elements = Mapping[str, frozenset[str]]  # by the name of a set


@dataclass(frozen=True, slots=True)
class PortMapping:
    """`host_port` of the host goes to `port` of `address`. `protocol` is tcp, udp or sctp;
    `host_ip` None: at every address of the host of that family."""

    protocol: str
    host_port: int
    address: IPAddress
    port: int
    host_ip: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Nat:
    """`pools` are the prefixes of all pools, `outgoing` those that are hidden behind hosts, by
    `sources`, of which there is at most one a family. `ports` are mapped."""

    pools: frozenset[IPNetwork] = frozenset()
    outgoing: frozenset[IPNetwork] = frozenset()
    sources: tuple[IPAddress, ...] = ()
    ports: frozenset[PortMapping] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.outgoing or self.ports)


def body(nat: Nat) -> str:
    """Sets, empty, and chains."""
    sources: dict[int, str] = {
        source.version: f"snat {VERSIONS[source.version]} to {source}" for source in nat.sources
    }
    text = "".join(_sets(version) for version in VERSIONS)
    for name, hook in (("arriving", "prerouting"), ("of-host", "output")):
        text += f"  chain {name} {{\n    type nat hook {hook} priority -100; policy accept;\n"
        # what ipvlan workloads send to their host passes output too, with sources of their own
        of_host = "fib saddr type local " if hook == "output" else ""
        text += f"    {of_host}fib daddr type local jump mapped\n  }}\n"
    text += "  chain mapped {\n    ip daddr 127.0.0.0/8 return\n    ip6 daddr ::1 return\n"
    for version, word in VERSIONS.items():
        only = f"meta nfproto ipv{version} dnat {word} to"
        text += f"    {only} {word} daddr . meta l4proto . th dport map @hostports{version}\n"
        text += f"    {word} daddr @pools{version} return\n"
        text += f"    {only} meta l4proto . th dport map @ports{version}\n"
    text += "  }\n  chain masquerading {\n"
    text += "    type nat hook postrouting priority srcnat; policy accept;\n"
    for version, word in VERSIONS.items():
        text += f"    {word} saddr . {word} daddr @looped{version} masquerade\n"
        hidden = f"{word} saddr @outgoing{version} {word} daddr != @pools{version}"
        text += f"    {hidden} {sources.get(version, 'masquerade')}\n"
    return text + "  }\n"


def _sets(version: int) -> str:
    address = f"ipv{version}_addr"
    port, target = "inet_proto . inet_service", f"{address} . inet_service"
    kinds = {
        "set pools": f"{address}; flags interval",
        "set outgoing": f"{address}; flags interval",
        "set looped": f"{address} . {address}",
        "map ports": f"{port} : {target}",
        "map hostports": f"{address} . {port} : {target}",
    }
    return "".join(f"  {name}{version} {{ type {kind}; }}\n" for name, kind in kinds.items())


def elements(nat: Nat) -> Elements:
    """What each set has to hold."""
    found = {}
    for version in VERSIONS:
        found[f"pools{version}"] = _prefixes(nat.pools, version)
        found[f"outgoing{version}"] = _prefixes(nat.outgoing, version)
    return {**found, **mapped(nat.ports)}


def mapped(ports: Iterable[PortMapping]) -> Elements:
    """What `ports` have in each set. An element of a map is its key, a colon, what it leads to."""
    found: dict[str, set[str]] = {
        f"{name}{version}": set()
        for name in ("looped", "ports", "hostports")
        for version in VERSIONS
    }
    for one in ports:
        version = one.address.version
        found[f"looped{version}"].add(f"{one.address} . {one.address}")
        key, target = f"{PROTOCOLS[one.protocol]} . {one.host_port}", f"{one.address} . {one.port}"
        if one.host_ip is None:
            found[f"ports{version}"].add(f"{key} : {target}")
        else:
            found[f"hostports{version}"].add(f"{one.host_ip} . {key} : {target}")
    return {name: frozenset(some) for name, some in found.items()}


def held(entries: Iterable[Mapping[str, Any]]) -> Elements:
    """What each set of a listed table holds, in the words of `elements`; `ODD` for whatever
    somebody added that these have no words for (ranges, comments, timeouts)."""
    found = {}
    for entry in entries:
        one = entry.get("set") or entry.get("map")
        if one is not None:
            text = _prefix if one["name"][:-1] in INTERVALS else _text
            found[one["name"]] = frozenset(text(element) or ODD for element in one.get("elem", []))
    return found


def filling(table: str, wanted: Elements, now: Elements) -> list[str]:
    """The commands that make sets hold what is `wanted`. A set of prefixes is filled anew, within
    the transaction: two that overlap cannot take turns in it. So is one that holds what is `ODD`,
    which cannot be named."""
    commands = []
    for name, want in wanted.items():
        have = now.get(name, frozenset())
        add, gone = want - have, have - want
        if ODD in gone or (gone and name[:-1] in INTERVALS):
            commands.append(f"flush {'map' if name[:-1] in MAPS else 'set'} {table} {name}")
            add = want
        elif gone:
            keys = sorted(one.partition(" : ")[0] for one in gone)
            commands.append(f"delete element {table} {name} {{ {', '.join(keys)} }}")
        if add:
            commands.append(f"add element {table} {name} {{ {', '.join(sorted(add))} }}")
    return commands


def _prefixes(prefixes: Iterable[IPNetwork], version: int) -> frozenset[str]:
    return frozenset(str(one) for one in prefixes if one.version == version)


def _prefix(element: Any) -> str | None:
    """A prefix of nft's JSON, which has addresses beside them; None: it is something else."""
    match element:
        case str():
            return f"{element}/{128 if ':' in element else 32}"
        case {"prefix": {"addr": address, "len": length}, **more} if not more:
            return f"{address}/{length}"
    return None


def _text(element: Any) -> str | None:
    """An element of nft's JSON as one of `mapped`; None: it is something else."""
    sides = element if isinstance(element, list) else [element]
    if any(not isinstance(side, dict) or side.keys() != {"concat"} for side in sides):
        return None
    return " : ".join(" . ".join(map(str, side["concat"])) for side in sides)
