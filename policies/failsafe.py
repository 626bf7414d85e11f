"""Failsafe ports: what a host lets pass before any policy of a HostEndpoint.

A port is written as 22/tcp or 68/udp. What the node itself cannot live without is always among
them: BGP and BFD of its own speaker, and the control plane that it is told to reach. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}
NAMES = {number: name for name, number in PROTOCOLS.items()}

FailsafePort = tuple[int, int]  # protocol (IANA), destination port

INBOUND = (
    "22/tcp",  # SSH
    "68/udp",  # answers of DHCP servers, which need not be to what was sent (RFC 2131, 4.1)
    "179/tcp",  # BGP
    "546/udp",  # likewise of DHCPv6
    "2379/tcp",  # etcd, where the control plane is here
    "2380/tcp",
    "3784/udp",  # BFD
    "6780/tcp",  # the control plane
)
OUTBOUND = (
    "53/tcp",  # DNS, which the control plane may be found by
    "53/udp",
    "67/udp",  # DHCP
    "123/udp",  # NTP, without which certificates are not good
    "179/tcp",
    "547/udp",  # DHCPv6
    "2379/tcp",
    "2380/tcp",
    "3784/udp",
    "6780/tcp",
)
ALWAYS = ("179/tcp", "3784/udp")  # the node's own routes
_FORM = re.compile(r"(\d{1,5})/(tcp|udp|sctp|udplite)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failsafe:
    """Destination ports that pass, towards the host itself and from it."""

    inbound: frozenset[FailsafePort] = frozenset()
    outbound: frozenset[FailsafePort] = frozenset()


NO_FAILSAFE = Failsafe()


def port(text: str) -> FailsafePort:
    """ValueError, of what is not PORT/PROTOCOL."""
    found = _FORM.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise ValueError(f"{text!r} is not PORT/PROTOCOL, such as 22/tcp")
    return PROTOCOLS[found[2].lower()], int(found[1])


def failsafe(
    inbound: Iterable[str] = INBOUND,
    outbound: Iterable[str] = OUTBOUND,
    control_plane: Iterable[int] = (),
) -> Failsafe:
    """`control_plane`: the TCP ports at which this node reaches it. ValueError."""
    to_us, from_us = (frozenset(map(port, (*some, *ALWAYS))) for some in (inbound, outbound))
    return Failsafe(to_us, from_us | {(PROTOCOLS["tcp"], number) for number in control_plane})
