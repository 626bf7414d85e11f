"""Frames by which a workload would pass for somebody else, or for a router or a DHCP server.

Each carries TAG, by which it is told wherever it comes out. RFC 791, 8200, 4861, 2131, 8415, 826.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from support.frames import (
    DESTINATION,
    ETHERTYPES,
    FRAGMENT,
    HOP_BY_HOP,
    filled,
    headed,
    packet,
)
from support.rulesets.packets import ICMP, ICMPV6, TCP, UDP
from support.scenes import Sent

TAG = b"not who it says"  # 15 octets
ARP, VLAN = 0x0806, 0x8100
OWN, SIX = "10.65.0.9", "fd00:65::9"  # the workload's
WEB, WEB_SIX = "10.65.0.1", "fd00:65::1"  # another's on the same host
FAR, FAR_SIX = "203.0.113.9", "2001:db8:9::9"  # outside
LINK_LOCAL = "fe80::bad"
ALL_NODES, BROADCAST = "ff02::1", "255.255.255.255"


@dataclass(frozen=True, slots=True)
class Spoof:
    """`frames`: each without its MACs. `loose`: without the filter it gets somewhere; of the
    others the kernel's own checks are enough, whatever the filter does."""

    name: str
    frames: tuple[bytes, ...]
    loose: bool = True


def spoofs(host: str, host_six: str) -> Iterator[Spoof]:
    """All kinds. `host`, `host_six`: the host's own addresses."""
    yield Spoof("another workload's address", (datagram(WEB, FAR),))
    yield Spoof("an address of the pool that nobody has", (datagram("10.65.0.77", WEB),))
    yield Spoof("an address outside", (datagram("198.51.100.7", WEB),))
    yield Spoof("the default route's side", (datagram("198.51.100.7", FAR),))
    yield Spoof("an address outside, to the host", (datagram("198.51.100.7", host),))
    yield Spoof("a SYN from an address outside", (_syn("198.51.100.7", WEB),))
    yield Spoof("a ping from an address outside", (_ping("198.51.100.7", WEB),))
    yield Spoof("the host's address", (datagram(host, WEB),), loose=False)
    yield Spoof("the gateway's address", (datagram("169.254.1.1", WEB),), loose=False)
    yield Spoof("no address", (datagram("0.0.0.0", WEB),), loose=False)
    yield Spoof("a loopback address", (datagram("127.0.0.1", WEB),), loose=False)
    yield Spoof("a multicast address", (datagram("224.0.0.9", WEB),), loose=False)
    yield Spoof("in fragments", _cut(datagram("198.51.100.7", WEB)))
    yield Spoof("with a priority tag", (_tagged(0, datagram("198.51.100.7", WEB)),))
    yield Spoof("in a VLAN", (_tagged(7, datagram("198.51.100.7", WEB)),), loose=False)
    yield Spoof("a DHCP server", (datagram(OWN, host, 67, 68),))
    yield Spoof("a DHCP server that tells all", (datagram(OWN, BROADCAST, 67, 68),))
    yield Spoof("a DHCP server in fragments", _cut(datagram(OWN, host, 67, 68)))
    yield Spoof("ARP in another's name", (_arp(WEB),), loose=False)

    yield Spoof("another workload's address, IPv6", (datagram(WEB_SIX, FAR_SIX),))
    yield Spoof("an address of the pool, IPv6", (datagram("fd00:65::77", WEB_SIX),))
    yield Spoof("an address outside, IPv6", (datagram("2001:db8:7::7", WEB_SIX),))
    yield Spoof("a ping from an address outside, IPv6", (_ping("2001:db8:7::7", WEB_SIX),))
    yield Spoof("the host's address, IPv6", (datagram(host_six, WEB_SIX),))
    yield Spoof("behind a header, IPv6", (datagram("2001:db8:7::7", WEB_SIX, more=(DESTINATION,)),))
    yield Spoof("a fragment, IPv6", (datagram("2001:db8:7::7", WEB_SIX, more=(FRAGMENT,)),))
    yield Spoof("a link-local address", (datagram(LINK_LOCAL, WEB_SIX),), loose=False)
    yield Spoof("no address, IPv6", (datagram("::", WEB_SIX),), loose=False)
    yield Spoof("a loopback address, IPv6", (datagram("::1", WEB_SIX),), loose=False)
    yield Spoof("a multicast address, IPv6", (datagram(ALL_NODES, WEB_SIX),), loose=False)
    yield Spoof("an IPv4 address in IPv6", (datagram("::ffff:10.65.0.1", WEB_SIX),))
    yield Spoof("a router", (_advert(),))
    yield Spoof("a router behind a header", (_advert(HOP_BY_HOP),))
    yield Spoof("a router in a fragment", (_advert(FRAGMENT),))
    yield Spoof("a redirect", (_discovery(137, bytes(4) + _six(FAR_SIX) + _six(WEB_SIX)),))
    yield Spoof("a DHCP server, IPv6", (datagram(LINK_LOCAL, ALL_NODES, 547, 546),))


def datagram(
    source: str, to: str, first: int = 4000, second: int = 53, more: tuple[int, ...] = ()
) -> bytes:
    """With the tag, and in IPv6 with `more` extension headers."""
    head = struct.pack("!HHHH", first, second, 8 + len(TAG), 0)
    return _whole(Sent(ip_address(source), ip_address(to), UDP), head + TAG, 6, more)


def _syn(source: str, to: str) -> bytes:
    head = struct.pack("!HHIIBBHHH", 4000, 80, 7, 0, 0x50, 2, 1024, 0, 0)
    return _whole(Sent(ip_address(source), ip_address(to), TCP), head + TAG, 16)


def _ping(source: str, to: str) -> bytes:
    sent = Sent(ip_address(source), ip_address(to), ICMP)
    if sent.source.version == 6:
        return _discovery(128, struct.pack("!HH", 1, 1), source, to)
    return _whole(sent, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + TAG, 2)


def _advert(*more: int) -> bytes:
    """A router that wants to be the default one (RFC 4861, section 4.2)."""
    return _discovery(134, struct.pack("!BBHII", 64, 0, 1800, 0, 0), more=more)


def _discovery(
    kind: int,
    body: bytes,
    source: str = LINK_LOCAL,
    to: str = ALL_NODES,
    more: tuple[int, ...] = (),
) -> bytes:
    """With the tag as an option that nobody knows: type 253 (RFC 4727), 24 octets."""
    option = struct.pack("!BB", 253, 3) + TAG
    sent = Sent(ip_address(source), ip_address(to), ICMPV6)
    whole = struct.pack("!BBH", kind, 0, 0) + body + option + bytes(24 - len(option))
    return _whole(sent, whole, 2, more, hops=255)


def _whole(
    sent: Sent, body: bytes, sum_at: int, more: tuple[int, ...] = (), hops: int = 64
) -> bytes:
    kind = struct.pack("!H", ETHERTYPES[sent.source.version])
    return kind + packet(sent, more, filled(sent, body, sum_at), hops)


def _cut(frame: bytes) -> tuple[bytes, ...]:
    """Of IPv4, in two: the UDP header, and what is behind it."""
    head, body = frame[2:22], frame[22:]
    parts = ((body[:8], 0x2000), (body[8:], 1))  # more to come; the second, at its eighth octet
    whole = [struct.pack("!HHH", 20 + len(part), 1, field) + head[8:] for part, field in parts]
    return tuple(
        frame[:2] + headed(head[:2] + rest) + part
        for rest, (part, _) in zip(whole, parts, strict=True)
    )


def _tagged(vlan: int, frame: bytes) -> bytes:
    """IEEE 802.1Q."""
    return struct.pack("!HH", VLAN, vlan) + frame


def _arp(owner: str) -> bytes:
    """An answer that nobody asked for: `owner` is at a MAC of this workload's (RFC 826)."""
    here = b"\2\0\0\0\0\x66" + ip_address(owner).packed
    return struct.pack("!HHHBBH", ARP, 1, 0x0800, 6, 4, 2) + here + here + TAG


def _six(address: str) -> bytes:
    return ip_address(address).packed
