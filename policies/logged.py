"""What the kernel tells of a packet that a rule logged, and what can be read off its first bytes.

Messages: include/uapi/linux/netfilter/nfnetlink_log.h. Headers: RFC 791, RFC 8200 (4), RFC 9293,
RFC 768. What is not whole says only what is there. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from api.resources.net import IPAddress
from api.resources.policy import NUMBERS
from policies import nfnetlink as nl

PACKET = 0  # of the types of messages
IN, OUT, PAYLOAD, PREFIX, SEQUENCE = 4, 5, 9, 10, 12
PORTED = {NUMBERS[name] for name in ("TCP", "UDP", "SCTP", "UDPLite")}
TYPED = {NUMBERS["ICMP"], NUMBERS["ICMPv6"]}
FRAGMENT, AUTHENTICATION = 44, 51
EXTENSIONS = {0, 43, FRAGMENT, AUTHENTICATION, 60}  # headers before the last one

_U32 = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Flow:
    """Of the first packet. None: it has none, or it cannot be read."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """One message. `sequence` is one more with every message of a listener, also of those that did
    not fit into its socket; None: it has just begun. Indices of interfaces: 0 if there is none."""

    prefix: str
    sequence: int | None
    came_by: int
    leaves_by: int
    packet: bytes


def logged(data: bytes) -> Iterator[Logged]:
    """The messages of one datagram."""
    for one in nl.messages(data):
        if one.kind != nl.NFNL_SUBSYS_ULOG << 8 | PACKET:
            continue
        held = {
            name: data[at:to]
            for name, at, to in nl.attributes(data, one.place + nl.START, one.end)
            if name in (IN, OUT, PAYLOAD, PREFIX, SEQUENCE)
        }
        prefix = held.get(PREFIX, b"").rstrip(b"\0").decode(errors="replace")
        sequence, came, leaves = (_number(held.get(name)) for name in (SEQUENCE, IN, OUT))
        yield Logged(prefix, sequence, came or 0, leaves or 0, held.get(PAYLOAD, b""))


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(_U32.unpack(value)[0])


def flow(packet: bytes) -> Flow | None:
    """None: it is no packet of IP."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        whole = not struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
        ends = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        return _flow(*ends, packet[9], packet[4 * (packet[0] & 0xF) :] if whole else b"")
    if version == 6 and len(packet) >= 40:
        protocol, rest = _last(packet[6], packet[40:])
        return _flow(IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), protocol, rest)
    return None


def _last(kind: int, rest: bytes) -> tuple[int, bytes]:
    """The last header of IPv6, and what it begins with; b"" where that is in another fragment."""
    while kind in EXTENSIONS and len(rest) >= 8:
        if kind == FRAGMENT:
            later, length = struct.unpack_from("!H", rest, 2)[0] & 0xFFF8, 8
            if later:
                return rest[0], b""
        else:
            length = 4 * (rest[1] + 2) if kind == AUTHENTICATION else 8 * (rest[1] + 1)
        kind, rest = rest[0], rest[length:]
    return kind, rest


def _flow(source: IPAddress, destination: IPAddress, protocol: int, rest: bytes) -> Flow:
    if protocol in PORTED and len(rest) >= 4:
        return Flow(source, destination, protocol, *struct.unpack_from("!HH", rest))
    if protocol in TYPED and len(rest) >= 2:
        return Flow(source, destination, protocol, icmp_type=rest[0], icmp_code=rest[1])
    return Flow(source, destination, protocol)
