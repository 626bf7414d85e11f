"""A tap as a virtual machine has it: frames in and out of the descriptor that it opens."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import pytest

from api.resources.net import IPAddress
from routed.kernel import tap
from routed.lab.processes import wait_for
from routed.state import HOST_MAC
from support.netns import run

ECHO = {4: 8, 6: 128}  # ICMP types, by IP version
ECHO_REPLY = {4: 0, 6: 129}
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
ETHERTYPE = {b"\x08\0": 4, b"\x86\xdd": 6}
SOLICITATION, ADVERTISEMENT = 135, 136  # RFC 4861, sections 4.3 and 4.4


def check_taps() -> None:
    """The test is skipped where they cannot be made: in a container there may be no device."""
    try:
        os.close(os.open(tap.DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        pytest.skip(f"no tap can be made here: {tap.DEVICE}: {error.strerror}")


@dataclass(frozen=True, slots=True)
class Packet:
    """One that came out of a tap, without IPv4 options or IPv6 extension headers."""

    mac: bytes
    source: IPAddress
    target: IPAddress
    protocol: int
    body: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """Of a datagram: its source's and its target's."""
        source, target = struct.unpack_from("!HH", self.body)
        return source, target

    @property
    def data(self) -> bytes:
        """Of a datagram."""
        return self.body[8:]


class Machine:
    """As much of one as answers and asks echoes, says datagrams and looks for its gateway. It has
    one address a family."""

    def __init__(self, name: str, mac: bytes, *addresses: IPAddress) -> None:
        self.mac = mac
        self.own = {address.version: address for address in addresses}
        self._asked = 0
        self.open(name)

    def open(self, name: str) -> None:
        """Take the tap, as a hypervisor does; the kernel sends on it once it has seen that."""
        self.descriptor = os.open(tap.DEVICE, os.O_RDWR | os.O_NONBLOCK)
        flags = tap.IFF_TAP | tap.IFF_NO_PI
        fcntl.ioctl(self.descriptor, tap.TUNSETIFF, struct.pack("=16sH22x", name.encode(), flags))
        wait_for("the tap being up", lambda: " state UP " in run("ip", "link", "show", name), 10)

    def ask(self, target: str, source: str = "") -> None:
        """An echo request."""
        to = ip_address(target)
        self._asked += 1
        body = struct.pack("!BBHHH", ECHO[to.version], 0, 0, 7, self._asked) + b"ping"
        self.put(to, ICMP[to.version], body, 2, source)

    async def reaches(self, target: str, seconds: float = 10.0) -> bool:
        """Whether an echo request is answered in time; it is sent more than once, as links just
        made lose what comes before the kernel has seen their carrier."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.ask(target)
            if await self.answered(target, 0.5):
                return True
        return False

    def say(self, target: str, port: int, own_port: int, data: bytes) -> None:
        """A datagram."""
        body = struct.pack("!HHHH", own_port, port, 8 + len(data), 0) + data
        self.put(ip_address(target), socket.IPPROTO_UDP, body, 6)

    def solicit(self, target: str) -> None:
        """Ask all who listen for it for the MAC of an IPv6 address (RFC 4861, section 7.2.2)."""
        wanted = ip_address(target).packed
        body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + wanted + b"\1\1" + self.mac
        group = IPv6Address(b"\xff\2" + bytes(9) + b"\1\xff" + wanted[13:])
        mac = b"\x33\x33" + group.packed[12:]
        self.put(group, socket.IPPROTO_ICMPV6, body, 2, hops=255, mac=mac)

    def put(
        self,
        target: IPAddress,
        protocol: int,
        body: bytes,
        sum_at: int,
        source: str = "",
        *,
        hops: int = 64,
        mac: bytes = HOST_MAC,
    ) -> None:
        """Send `body`, whose checksum is to stand at `sum_at`."""
        own = ip_address(source).packed if source else self.own[target.version].packed
        ends, six = own + target.packed, target.version == 6
        pseudo = b"" if protocol == ICMP[4] else ends + struct.pack("!II", len(body), protocol)
        body = body[:sum_at] + _checksum(pseudo + body) + body[sum_at + 2 :]
        if six:
            head = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + ends
        else:
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, hops, protocol, 0) + ends
            head = head[:10] + _checksum(head) + head[12:]
        os.write(
            self.descriptor, mac + self.mac + (b"\x86\xdd" if six else b"\x08\0") + head + body
        )

    async def answered(self, source: str, seconds: float = 5.0) -> bool:
        """Whether the last echo request is answered by `source` in time."""
        return await self._echo(source, ECHO_REPLY, struct.pack("!HH", 7, self._asked), seconds)

    async def asked(self, source: str, seconds: float = 5.0) -> bool:
        """Whether an echo request comes from `source` in time."""
        return await self._echo(source, ECHO, b"", seconds)

    async def _echo(self, source: str, kind: dict[int, int], mark: bytes, seconds: float) -> bool:
        wanted = ip_address(source)

        def right(got: Packet) -> bool:
            version = wanted.version
            found = (got.source, got.protocol, got.body[0])
            return found == (wanted, ICMP[version], kind[version]) and mark in got.body[4:8]

        try:
            got = await self._next(right, seconds)
        except TimeoutError:
            return False
        assert got.mac == self.mac
        return True

    async def datagram(self, seconds: float = 5.0) -> Packet:
        """The next one. TimeoutError."""
        return await self._next(lambda got: got.protocol == socket.IPPROTO_UDP, seconds)

    async def advertised(self, target: str, seconds: float = 5.0) -> bytes:
        """The MAC that is told of an IPv6 address. TimeoutError."""
        wanted = bytes([ADVERTISEMENT]), ip_address(target).packed

        def right(got: Packet) -> bool:
            return got.protocol == ICMP[6] and (got.body[:1], got.body[8:24]) == wanted

        return (await self._next(right, seconds)).body[26:32]

    async def _next(self, right: Callable[[Packet], bool], seconds: float) -> Packet:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    got = _packet(os.read(self.descriptor, 2048))
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                    continue
                if got is not None and right(got):
                    return got

    def close(self) -> None:
        os.close(self.descriptor)


def _packet(frame: bytes) -> Packet | None:
    """None for what is neither IPv4 nor IPv6."""
    version = ETHERTYPE.get(frame[12:14])
    if version is None:
        return None
    size, start, protocol, end = (4, 26, 23, 34) if version == 4 else (16, 22, 20, 54)
    source, target = frame[start : start + size], frame[start + size : start + 2 * size]
    return Packet(frame[:6], ip_address(source), ip_address(target), frame[protocol], frame[end:])


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
