"""What `policy test` and `trace` ask about, from a user's words to packets.

An end is the name of a workload (or what comes before the first dot of it, if that says which) or
of a node, an address, KIND/NAME of a workload, node, host endpoint or network set (a set: the
first address of each of its prefixes), or a selector: all workloads that it selects. What is sent
is a port such as 443, 53/udp or the name of one of the receiver's, or a protocol such as icmp,
icmp/3.4, 47, or ping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from api.resources import selectors
from api.resources.errors import none_such
from api.resources.net import IPAddress, parse_address
from api.resources.policy import NAMES, NUMBERS
from api.resources.workload import Mode, Workload
from policies.reference import Packet, World

SOURCE_PORT = 40_000
PROTOCOLS = {name.lower(): number for name, number in NUMBERS.items()}
PORTED = ("tcp", "udp", "sctp", "udplite")
ECHO = {4: (NUMBERS["ICMP"], 8), 6: (NUMBERS["ICMPv6"], 128)}


@dataclass(frozen=True, slots=True)
class End:
    """An address, and whose it is: `called` as it is told to people, `workload` its name or ""."""

    called: str
    address: IPAddress
    workload: str = ""


@dataclass(frozen=True, slots=True)
class What:
    """`protocol` 0: the one of the receiver's port `name`, or ping."""

    text: str
    protocol: int = 0
    port: int | None = None
    name: str = ""
    icmp: tuple[int, int] | None = None


def port(text: object) -> What:
    """443, 443/tcp, 53/udp, or a port's name; ValueError."""
    found = re.fullmatch(r"(\d{1,5})(?:/(\w+))?", str(text))
    if found is None:
        if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", str(text)):
            return What(str(text), name=str(text))
        raise ValueError(f"{text!r} is not like 443, 53/udp, or the name of a port")
    name = (found[2] or "tcp").lower()
    if name not in PORTED or not 1 <= int(found[1]) <= 65_535:
        raise ValueError(f"{text!r} is not PORT[/PROTOCOL], 1 to 65535, {', '.join(PORTED)}")
    return What(f"{found[1]}/{name}", PROTOCOLS[name], int(found[1]))


def protocol(text: object) -> What:
    """ping, icmp, icmpv6, icmp/TYPE[.CODE], or a number; ValueError."""
    said = str(text).lower()
    if said == "ping":
        return What("ping")
    found = re.fullmatch(r"(icmp|icmpv6)(?:/(\d{1,3})(?:\.(\d{1,3}))?)?", said)
    if found is not None:
        echo = 8 if found[1] == "icmp" else 128
        kind = int(found[2] or echo), int(found[3] or 0)
        if max(kind) > 255:
            raise ValueError(f"{text!r}: types and codes go to 255")
        return What(said, PROTOCOLS[found[1]], icmp=kind)
    if said in PORTED:
        raise ValueError(f"{text!r} needs a port: say port: 443/{said}")
    if not said.isdigit() or not 1 <= int(said[:4]) <= 255:
        raise ValueError(
            f"{text!r} is no protocol: ping, icmp, icmp/TYPE.CODE, icmpv6, or a number"
        )
    if NAMES.get(int(said), "").lower() in PORTED:
        raise ValueError(f"{text!r} needs a port: say port: 443/{NAMES[int(said)].lower()}")
    return What(said, int(said))


def ends(world: World, word: str) -> list[End]:
    """Those that a word means; ValueError if it means none."""
    try:
        return [_known(world, parse_address(word))]
    except ValueError:
        pass
    if re.search(r"[\s()=!{]", word):
        chosen = selectors.parse(word)
        held = [one for one in world.workloads if chosen.matches(one.metadata.labels)]
        found = [end for one in held if one.spec.mode is not Mode.NONE for end in _of(world, one)]
        if not found:
            raise ValueError(f"{word!r} selects no workload that has an address")
        return found
    kind, slash, name = word.rpartition("/")
    if not slash and (name not in world.nodes or any(_is(one, name) for one in world.workloads)):
        return _of(world, _workload(world, name))
    return list(_of_kind(world, kind.lower() or "node", name))


def _known(world: World, address: IPAddress) -> End:
    for one in world.workloads:
        if address in one.status.addresses:
            return End(one.metadata.name, address, one.metadata.name)
    return End(str(address), address)


def _of_kind(world: World, kind: str, name: str) -> Iterator[End]:
    held: dict[str, Iterable[IPAddress]]
    if kind in ("workload", "workloads", "wl"):
        yield from _of(world, _workload(world, name))
        return
    if kind in ("node", "nodes", "no"):
        held = dict(world.nodes)
    elif kind in ("hostendpoint", "hostendpoints", "hep"):
        held = {one.metadata.name: one.spec.expected_ips for one in world.host_endpoints}
    elif kind in ("networkset", "networksets", "netset"):
        held = {
            one.metadata.name: [net.network_address for net in one.spec.nets]
            for one in world.network_sets
        }
    else:
        raise ValueError(f"{kind!r} is none of workload, node, hostendpoint, networkset")
    if name not in held:
        raise ValueError(none_such(kind, name, sorted(held)))
    if not held[name]:
        raise ValueError(f"{kind} {name} has no address")
    for address in sorted(held[name], key=lambda one: (one.version, int(one))):
        yield End(f"{kind}/{name}", address)


def _is(one: Workload, name: str) -> bool:
    return name in (one.metadata.name, one.metadata.name.partition(".")[0])


def _workload(world: World, name: str) -> Workload:
    named = {one.metadata.name: one for one in world.workloads}
    short = [one for one in named.values() if _is(one, name)]
    if name in named or len(short) == 1:
        return named.get(name) or short[0]
    if short:
        said = ", ".join(sorted(one.metadata.name for one in short))
        raise ValueError(f"{name!r} may be each of {said}")
    raise ValueError(none_such("workload", name, sorted(named)))


def _of(world: World, one: Workload) -> list[End]:
    """The addresses of a workload; of one in mode shared its holder's."""
    if one.spec.mode is Mode.SHARED:
        one = _workload(world, one.spec.shared_with)
    name = one.metadata.name
    if not one.status.addresses:
        raise ValueError(f"workload {name} has no address")
    return [End(name, address, name) for address in one.status.addresses]


def packets(
    world: World, sources: list[End], destinations: list[End], what: What, source_port: int
) -> list[tuple[End, End, Packet]]:
    """A packet for each two of one family; ValueError if there are none. What a workload sends to
    itself is seen by nobody."""
    found = []
    for source in sources:
        for destination in destinations:
            if source.address.version != destination.address.version:
                continue
            if source.workload and source.workload == destination.workload:
                continue
            sent = _packet(world, source, destination, what, source_port)
            if sent is not None:
                found.append((source, destination, sent))
    if not found:
        raise ValueError(
            f"nothing to ask: the two ends are one workload, or have no family for {what.text} in "
            "common"
        )
    return found


def _packet(
    world: World, source: End, destination: End, what: What, source_port: int
) -> Packet | None:
    version = source.address.version
    more: dict[str, Any] = {"sender": source.workload, "receiver": destination.workload}
    number = what.protocol
    if what.icmp is not None:
        if {NUMBERS["ICMP"]: 4, NUMBERS["ICMPv6"]: 6}[number] != version:
            return None
        more |= {"icmp_type": what.icmp[0], "icmp_code": what.icmp[1]}
    elif what.name:
        number, port_number = _named(world, destination, what.name)
        more |= {"source_port": source_port, "destination_port": port_number}
    elif what.port is not None:
        more |= {"source_port": source_port, "destination_port": what.port}
    elif not number:
        number, kind = ECHO[version]
        more |= {"icmp_type": kind, "icmp_code": 0}
    return Packet(source.address, destination.address, number, **more)


def _named(world: World, end: End, name: str) -> tuple[int, int]:
    for one in world.workloads:
        for held in one.spec.ports if one.metadata.name == end.workload else ():
            if held.name == name:
                return NUMBERS[held.protocol], held.port
    raise ValueError(f"{end.called} has no port that is called {name!r}")


def told(packet: Packet) -> str:
    """TCP/443, ICMP/8.0, protocol 47."""
    name = NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    if packet.icmp_type is not None:
        return f"{name}/{packet.icmp_type}.{packet.icmp_code}"
    return name if packet.destination_port is None else f"{name}/{packet.destination_port}"
