"""HostEndpoints of this node: which interface of the host each is for.

One that names its interface is of that one, whether it is there or not; one that has only addresses
is of the interface that has one of these now. Loopback is never filtered, so it is never meant.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from api.resources import HostEndpoint
from api.resources.net import IPAddress
from policies.model import EVERY, HostInterface
from routed.addressing import Interface

LOOPBACK = "lo"
_PLAIN = re.compile(r"[-\w.@+=~^%,#]{1,15}", re.ASCII)  # of which nft takes nothing for a pattern


def by_address(interfaces: Iterable[Interface]) -> dict[IPAddress, str]:
    """The interface that has each address of the host, workloads' links and loopback aside; of
    several the first by name."""
    found: dict[IPAddress, str] = {}
    for one in sorted(interfaces, key=lambda one: one.name):
        if not one.ours and one.name != LOOPBACK:
            for held in one.addresses:
                found.setdefault(held.address, one.name)
    return found


def needs_addresses(endpoints: Iterable[HostEndpoint]) -> bool:
    """Whether any is told by its addresses alone."""
    return any(one.spec.interface_name is None for one in endpoints)


def named(endpoints: Iterable[HostEndpoint]) -> set[str]:
    """The interfaces that they name."""
    return {one.spec.interface_name for one in endpoints if one.spec.interface_name} - {EVERY}


def placed(
    endpoints: Mapping[str, HostEndpoint], names: Mapping[IPAddress, str]
) -> tuple[list[HostInterface], dict[str, str]]:
    """Those that have an interface, of each the first by name, and why others have none, by name.
    `names`: the interface that has an address."""
    found: dict[str, HostInterface] = {}
    without = {}
    for name, one in sorted(endpoints.items()):
        interface = one.spec.interface_name or next(
            (names[address] for address in one.spec.expected_ips if address in names), ""
        )
        if not interface:
            said = ", ".join(map(str, one.spec.expected_ips))
            without[name] = f"no interface but loopback has {said}"
        elif interface == LOOPBACK:
            without[name] = "loopback is never filtered"
        elif interface != EVERY and not _PLAIN.fullmatch(interface):
            without[name] = f"nftables takes {interface!r} for no name of an interface"
        elif interface in found:
            without[name] = f"{interface} is that of HostEndpoint {found[interface].name}"
        else:
            found[interface] = HostInterface(name, one.metadata.labels, interface)
    return list(found.values()), without
