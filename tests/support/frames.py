"""Packets as bytes: made with the checksums that they need to be answered, and read again.

RFC 791, 8200, 9293, 768, 792, 4443, 9260 (the CRC32c of SCTP), 3828.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from support.rulesets.packets import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from support.scenes import Sent

HOP_BY_HOP, FRAGMENT, DESTINATION = 0, 44, 60  # extension headers of IPv6 (RFC 8200, 4)
OPTIONS = (HOP_BY_HOP, DESTINATION)
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
RST, UNREACHABLE, PROHIBITED = 0x04, {4: 3, 6: 1}, {4: 13, 6: 1}


@dataclass(frozen=True, slots=True)
class Heard:
    """What came: `start` are the first four bytes after the IP header, `rest` what follows."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    start: bytes
    rest: bytes

    def is_what_was(self, sent: Sent) -> bool:
        """Whether it is that packet."""
        ends = (self.source, self.destination, self.protocol)
        return ends == (sent.source, sent.destination, sent.protocol) and self.start == start(sent)

    def comes_as(self, sent: Sent) -> bool:
        """Whether it is for the same destination and port."""
        ends = (self.destination, self.protocol) == (sent.destination, sent.protocol)
        return ends and self.start[2:] == start(sent)[2:]

    def answers(self, sent: Sent) -> bool:
        """Whether it refuses that packet: a RST in the name of its destination, or an ICMP error
        of its own that says "administratively prohibited"."""
        version = sent.source.version
        if self.destination != sent.source:
            return False
        if sent.protocol == TCP:
            back = self.start == struct.pack("!HH", sent.second, sent.first)
            reset = self.protocol == TCP and bool(self.rest[9] & RST)
            return self.source == sent.destination and back and reset
        errors = {4: ICMP, 6: ICMPV6}[version]
        said = (self.start[0], self.start[1]) == (UNREACHABLE[version], PROHIBITED[version])
        if self.protocol != errors or not said:
            return False
        quoted = read(self.rest[4:])  # of ICMP's eight bytes four are `start`
        return quoted is not None and quoted.is_what_was(sent)


def start(sent: Sent) -> bytes:
    """The first four bytes after the IP header: ports, or type and code with the checksum."""
    return payload(sent)[:4]


def packet(
    sent: Sent, extensions: Sequence[int] = (), body: bytes | None = None, hops: int = 64
) -> bytes:
    """With its IP header, and in IPv6 with such extension headers, by their numbers. `body`: what
    is behind them, if it is something else than `payload`."""
    body, protocol = payload(sent) if body is None else body, sent.protocol
    for kind in reversed(extensions):
        body, protocol = struct.pack("!BBHI", protocol, 0, 0, 0) + body, kind
        if kind in OPTIONS:
            body = body[:2] + bytes([1, 4, 0, 0, 0, 0]) + body[8:]  # PadN (RFC 8200, 4.2)
    source, destination = sent.source.packed, sent.destination.packed
    if sent.source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops)
        return head + source + destination + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, hops, sent.protocol, 0)
    return headed(head + source + destination) + body


def headed(head: bytes) -> bytes:
    """A header of IPv4 with its checksum, whatever that was."""
    head = head[:10] + bytes(2) + head[12:]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def payload(sent: Sent) -> bytes:
    """What is behind the IP header: the first of a flow."""
    first, second = sent.first or 0, sent.second or 0
    if sent.protocol == TCP:
        return filled(sent, struct.pack("!HHIIBBHHH", first, second, 7, 0, 0x50, 2, 1024, 0, 0), 16)
    if sent.protocol in (UDP, UDPLITE):
        return filled(sent, struct.pack("!HHHH", first, second, 8, 0), 6)
    if sent.protocol == SCTP:
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 9, 65_536, 1, 1, 3)  # INIT
        whole = struct.pack("!HHII", first, second, 0, 0) + chunk
        return whole[:8] + struct.pack("<I", _crc32c(whole)) + whole[12:]
    if sent.protocol in (ICMP, ICMPV6):
        return filled(sent, struct.pack("!BBHHH", first, second, 0, 1, 1) + bytes(24), 2)
    return bytes(24)


def read(data: bytes) -> Heard | None:
    """An IP packet; None: it is none."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        size = (data[0] & 15) * 4
        protocol, ends = data[9], (data[12:16], data[16:20])
    elif len(data) >= 40 and data[0] >> 4 == 6:
        size, protocol, ends = 40, data[6], (data[8:24], data[24:40])
        while protocol in (*OPTIONS, FRAGMENT) and len(data) >= size + 8:
            protocol, size = data[size], size + 8  # all that are made here have eight bytes
    else:
        return None
    source, destination = (ip_address(one) for one in ends)
    return Heard(source, destination, protocol, data[size : size + 4], data[size + 4 :])


def filled(sent: Sent, body: bytes, place: int) -> bytes:
    """With the checksum in its place, which is 0."""
    false = b""
    if sent.protocol != ICMP:  # whose checksum is of itself alone
        false = sent.source.packed + sent.destination.packed
        false += struct.pack("!II", len(body), sent.protocol)
    found = checksum(false + body)
    return body[:place] + struct.pack("!H", found or 0xFFFF) + body[place + 2 :]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
