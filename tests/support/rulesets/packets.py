"""A packet as a rule of nftables sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

ICMP, TCP, UDP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 58, 132, 136
PORTED = {TCP: "tcp", UDP: "udp", SCTP: "sctp", UDPLITE: "udplite"}
PINGED = {ICMP: "icmp", ICMPV6: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Packet:
    """`protocol` is a number of the IANA's. Ports where the protocol has them, `type` and `code`
    where it is ICMP of its family. `iifgroup`, `oifgroup`: None where there is no such link (input
    has no outgoing one). `state` and `status` are conntrack's. `routed_back`: whether the way to
    the source leads out of the link that it came in by; `saddr_type`, `daddr_type`: those of source
    and destination in the routing table; None: not said. `skuid`: whose process has sent it; None:
    no process of this namespace."""

    saddr: IPv4Address | IPv6Address
    daddr: IPv4Address | IPv6Address
    protocol: int
    sport: int | None = None
    dport: int | None = None
    type: int | None = None
    code: int | None = None
    iifname: str = ""
    oifname: str = ""
    iifgroup: int | None = 0
    oifgroup: int | None = 0
    state: str = "new"
    status: frozenset[str] = field(default_factory=frozenset)
    mark: int = 0
    routed_back: bool | None = None
    saddr_type: str | None = None
    daddr_type: str | None = None
    skuid: int | None = None

    def __post_init__(self) -> None:
        if self.saddr.version != self.daddr.version:
            raise ValueError(f"{self.saddr} and {self.daddr} are of two families")
        if (self.protocol in PORTED) != (self.sport is not None and self.dport is not None):
            raise ValueError(f"protocol {self.protocol}: ports are {self.sport}, {self.dport}")
        pinged = self.protocol == {4: ICMP, 6: ICMPV6}[self.version]
        if pinged != (self.type is not None and self.code is not None):
            raise ValueError(f"protocol {self.protocol}: of ICMP are {self.type}, {self.code}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.saddr.version
