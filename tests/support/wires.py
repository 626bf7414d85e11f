"""A host with workloads and an outside, all real, and what becomes of a packet that is sent there.

The calling process is in the host's network namespace (`in_fresh_namespace`). The links are made by
the agent's own kernel driver. Nothing waits for time to pass: a frame of another kind is sent after
the packet, and again from the host onwards, and what has not come before these has not come. That
is so because one processor does it all, in the order in which frames came (the backlog of
`netif_rx`, one for each processor), so the process is bound to one.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_interface
from pathlib import Path

from api.resources.net import IPAddress
from policies.nft import Nft
from routed.kernel import conntrack
from routed.kernel.linux import LinuxKernel
from routed.kernel.netlink import Netlink, message
from routed.state import HOST_MAC, HostState, host_interface_name
from support.flows import entered
from support.frames import ETHERTYPES, Heard, packet, read
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run
from support.rulesets.packets import ICMP, ICMPV6
from support.scenes import PASSING, UPLINK, Scene, Sent

Make = Callable[[str], str]

ETH_P_ALL, MARKER = 0x0003, 0x88B5  # MARKER: IEEE 802 local experimental ethertype
IP = frozenset(struct.pack("!H", kind) for kind in ETHERTYPES.values())
PACKET_OUTGOING = 4
SECONDS = 5.0  # after which a marker that has not come is an error
OUTSIDE = "outside"
HOST = ("192.0.2.1", "2001:db8::1")
GATEWAYS = ("192.0.2.254", "2001:db8::fe")
QUIET = {  # no limits on answers, and none that nobody asked for
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
}


class Wire:
    """One link: frames that are sent into it, and those that come out."""

    def __init__(self, link: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((link, 0))
        self.socket.setblocking(False)
        self.mac: bytes = self.socket.getsockname()[4]

    def send(self, to: bytes, ethertype: int, data: bytes) -> None:
        self.socket.send(to + self.mac + struct.pack("!H", ethertype) + data)

    def mark(self, number: int) -> None:
        self.send(b"\xff" * 6, MARKER, struct.pack("!Q", number) + bytes(40))

    def until(self, number: int) -> list[Heard]:
        """The packets that came before the marker of that number. AssertionError, if that does
        not come."""
        found = [read(frame[14:]) for frame in self.frames(number) if frame[12:14] in IP]
        return [one for one in found if one is not None]

    def frames(self, number: int) -> list[bytes]:
        """Likewise, whatever came."""
        found, ends = [], time.monotonic() + SECONDS
        while True:
            for frame in self.come():
                kind = struct.unpack("!H", frame[12:14])[0]
                if kind == MARKER and struct.unpack("!Q", frame[14:22])[0] == number:
                    return found
                found.append(frame)
            ready, _, _ = select.select([self.socket], [], [], max(0, ends - time.monotonic()))
            assert ready, f"marker {number} has not come"

    def come(self) -> Iterator[bytes]:
        """What has come from the other end."""
        while True:
            try:
                frame, (_, _, kind, *_) = self.socket.recvfrom(65_536)
            except BlockingIOError:
                return
            if kind != PACKET_OUTGOING:
                yield frame


class Wires:
    """`links`: the names of the links of workloads on the host's side."""

    def __init__(self, namespaces: Mapping[str, str]) -> None:
        self.links = {name: host_interface_name(f"{name}.h") for name in namespaces}
        self._far: dict[str, Wire] = {}  # by who is at the other end of the host's link
        self._near: dict[str, Wire] = {}
        self._host: list[socket.socket] = []
        self._number = 0

    @classmethod
    async def made(
        cls,
        namespaces: Mapping[str, str],
        addresses: Mapping[str, list[str]],
        outside: str,
        host: Sequence[str] = HOST,
    ) -> Wires:
        """With a workload in each namespace, by name, and all else behind the uplink; `host`: the
        host's own addresses."""
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for key, value in QUIET.items():
            Path("/proc/sys", *key.split(".")).write_text(value, encoding="ascii")
        self = cls(namespaces)
        points = {
            f"{name}.h": endpoint(f"{name}.h", netns, *addresses[name])
            for name, netns in namespaces.items()
        }
        await LinuxKernel().sync(HostState(endpoints=points))
        uplink(outside, host)
        for name, netns in namespaces.items():
            with entered(netns):
                self._far[name] = Wire("eth0")
            self._near[name] = Wire(self.links[name])
        with entered(outside):
            self._far[OUTSIDE] = Wire("far0")
        self._near[OUTSIDE] = Wire(UPLINK)
        self._host = [*listening(socket.AF_INET), *listening(socket.AF_INET6)]
        return self

    def verdict(
        self,
        scene: Scene,
        sent: Sent,
        arrives: Sent | None = None,
        extensions: Sequence[int] = (),
    ) -> str:
        """allow, deny or reject: it came, nothing came, or an answer came that refuses it.
        `arrives`: as what it should come, of which the source and its port do not matter."""
        assert sent.state not in PASSING, "is not the first of a flow"
        to = (arrives or sent).destination
        sender, receiver = self._end(scene, sent.source), self._end(scene, to)
        for wire in (*self._far.values(), *self._near.values()):
            list(wire.come())
        self._drain_host()
        if sender is None:
            _send_from_host(sent)
        else:
            mac = HOST_MAC if sender != OUTSIDE else self._near[OUTSIDE].mac
            wire, near = self._far[sender], self._near[sender]
            wire.send(mac, ETHERTYPES[sent.source.version], packet(sent, extensions))
            wire.mark(self._next())
            near.until(self._number)
        heard = {name: self._flushed(name) for name in {sender, receiver} - {None}}
        arrived = self._drain_host() if receiver is None else heard[receiver]
        if any(one.comes_as(arrives) if arrives else one.is_what_was(sent) for one in arrived):
            return "allow"
        back = self._drain_host() + arrived if sender is None else heard[sender]
        return "reject" if any(one.answers(sent) for one in back) else "deny"

    def _flushed(self, name: str) -> list[Heard]:
        self._near[name].mark(self._next())
        return self._far[name].until(self._number)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _end(self, scene: Scene, address: IPAddress) -> str | None:
        """Who has the address; None: the host."""
        if scene.takes(address):
            return None
        workload = scene.at(address)
        return OUTSIDE if workload is None else workload.metadata.name

    def _drain_host(self) -> list[Heard]:
        """What has come to the host itself, past its filters."""
        found = []
        for one in self._host:
            while True:
                try:
                    data, ancillary, _, source = one.recvmsg(65_536, 256)
                except BlockingIOError:
                    break
                if one.family == socket.AF_INET:
                    found.append(read(data))
                    continue
                (info,) = [data for _, kind, data in ancillary if kind == socket.IPV6_PKTINFO]
                ends = ip_address(source[0]), ip_address(info[:16])
                found.append(Heard(*ends, one.proto, data[:4], data[4:]))
        return [one for one in found if one is not None]

    def close(self) -> None:
        for one in (*self._far.values(), *self._near.values()):
            one.socket.close()
        for two in self._host:
            two.close()


def listening(family: int) -> Iterator[socket.socket]:
    """Raw sockets get what is for the host itself and has passed its filters (raw(7))."""
    for protocol in (ICMPV6 if family == socket.AF_INET6 else ICMP, 6, 17, 47, 132, 136):
        one = socket.socket(family, socket.SOCK_RAW, protocol)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        one.setblocking(False)
        yield one


def _send_from_host(sent: Sent) -> None:
    family = socket.AF_INET if sent.source.version == 4 else socket.AF_INET6
    one = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with one, suppress(PermissionError):  # what is dropped on its way out is told to the sender
        one.sendto(packet(sent), (str(sent.destination), 0))


def uplink(netns: str, host: Sequence[str] = HOST) -> None:
    """A link to far0 of another namespace, with all addresses that are nowhere else behind it."""
    run("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "far0", "netns", netns)
    run("ip", "-n", netns, "link", "set", "far0", "up")
    for own in host:
        more = ("nodad",) if ":" in own else ()
        run("ip", "addr", "add", str(ip_interface(own)), "dev", UPLINK, *more)
    run("ip", "link", "set", UPLINK, "up")
    mac = run("ip", "-n", netns, "-br", "link", "show", "far0").split()[2]
    for via in GATEWAYS:
        six = ("-6",) if ":" in via else ()
        run("ip", *six, "neigh", "add", via, "lladdr", mac, "dev", UPLINK, "nud", "permanent")
        run("ip", *six, "route", "add", "default", "via", via, "dev", UPLINK, "onlink")


def forget_flows() -> None:
    """Every packet is the first of its flow again: a deletion that names none is of all."""
    with Netlink(protocol=conntrack.NETLINK_NETFILTER) as netlink:
        failed = netlink.transact([message(conntrack.CT_DELETE, 0, bytes(4))])
    assert not failed, failed


def play(
    namespaces: Make,
    addresses: dict[str, list[str]],
    host: tuple[str, str],
    body: Callable[[Wires, Nft], Counter[str]],
) -> str:
    """Run `body` on a host with such workloads; what it counted."""
    spaces = {name: namespaces(name) for name in addresses}
    outside = namespaces("outside")
    read, write = os.pipe()

    async def whole() -> None:
        wires, table = await Wires.made(spaces, addresses, outside, host), Nft()
        counts = body(wires, table)
        os.write(write, f"{sum(counts.values())} packets: {dict(counts)}".encode())
        wires.close()
        table.close()

    in_fresh_namespace(whole)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode()
