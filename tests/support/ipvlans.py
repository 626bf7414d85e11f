"""A host of namespaces whose workloads are slaves of its uplink, as the agent has them, with one
outside; for kernels that have ipvlan and nftables (tests/guest)."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

from api.resources.net import IPAddress
from api.resources.policy import NetworkPolicy
from policies.compile import ipvlan
from policies.compile.closed import closed
from policies.compile.compiler import compiled
from policies.failsafe import failsafe
from policies.marks import LINK_GROUP, SLAVE_GROUP
from policies.model import NOTHING_TOLD, Endpoint, HostInterface, Ipvlan
from policies.nft import Nft
from policies.plan import plan
from support.flows import Outside, entered
from support.frames import ETHERTYPES, packet
from support.netns import in_fresh_namespace, run
from support.scenes import Sent

HOST, FAR = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
DB, OTHER, VETH = (
    (f"10.65.0.{number}", f"fd00:65::{number}") for number in (1, 2, 9)
)  # both slaves are of up0
LABELS = {"db": {"app": "db"}, "other": {"app": "other"}, "veth": {"app": "veth"}}
SECONDS = 0.5  # after which what has not come does not


class Rig:
    """In the namespace of the caller. `spaces` by name: db and other (ipvlan-l3s), veth, far."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self.spaces = {name: make(name) for name in ("db", "other", "veth", "far")}
        Outside(self.spaces["far"])
        run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        inside = ("ip", "netns", "exec", self.spaces["far"])  # it is the switch, too
        run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "route", "add", "default", "via", FAR[0])
        run("ip", "-6", "route", "add", "default", "via", FAR[1])
        self.table = Nft()
        self.table.sync()
        self._slave("rtv0", group=SLAVE_GROUP)
        for name, addresses in (("db", DB), ("other", OTHER)):
            self._slave("eth0", self.spaces[name])
            self._addressed(name, addresses, "rtv0")
            for family in ("-4", "-6"):
                self.ip(name, family, "route", "add", "default", "dev", "eth0")
        self._veth()
        self.put()

    def ip(self, name: str, *words: str) -> str:
        return run("ip", "-n", self.spaces[name], *words)

    def _slave(self, name: str, netns: str = "", group: int = LINK_GROUP) -> None:
        inside = ("netns", netns) if netns else ()
        run("ip", "link", "add", "link", "up0", "name", name, "group", str(group), *inside,
            "type", "ipvlan", "mode", "l3s")  # fmt: skip
        run("ip", *(("-n", netns) if netns else ()), "link", "set", name, "up")

    def _addressed(self, name: str, addresses: tuple[str, str], link: str) -> None:
        self.ip(name, "link", "set", "lo", "up")
        for address, length in zip(addresses, (32, 128), strict=True):
            more = ("nodad",) if length == 128 else ()
            self.ip(name, "addr", "add", f"{address}/{length}", "dev", "eth0", *more)
            run("ip", "route", "add", f"{address}/{length}", "dev", link)

    def _veth(self) -> None:
        inner = self.spaces["veth"]
        run("ip", "link", "add", "rtx", "group", str(LINK_GROUP), "type", "veth",
            "peer", "name", "eth0", "netns", inner)  # fmt: skip
        run("ip", "link", "set", "rtx", "up")
        self.ip("veth", "link", "set", "eth0", "up")
        run("ip", "addr", "add", "169.254.1.1/32", "dev", "rtx")
        run("ip", "addr", "add", "fe80::1/64", "dev", "rtx", "nodad")
        self._addressed("veth", VETH, "rtx")
        self.ip("veth", "route", "add", "169.254.1.1", "dev", "eth0")
        self.ip("veth", "route", "add", "default", "via", "169.254.1.1")
        self.ip("veth", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")

    def put(self, *policies: NetworkPolicy, host: bool = False) -> None:
        """Have these in effect; `host`: and a HostEndpoint of every interface, `role: edge`."""

        def addresses(*texts: str) -> frozenset[IPAddress]:
            return frozenset(map(ip_address, texts))

        ends = [
            Endpoint("db", LABELS["db"], addresses(*DB)),
            Endpoint("other", LABELS["other"], addresses(*OTHER)),
            Endpoint("veth", LABELS["veth"], addresses(*VETH), link="rtx"),
        ]
        hosts = [HostInterface("edge", {"role": "edge"}, "*")] if host else []
        slaves = Ipvlan(addresses(*DB, *OTHER), parents=frozenset(["up0"]))
        made = plan([], policies, ends, "Allow", hosts, failsafe(), slaves)
        self.table.sync(None, compiled(made, NOTHING_TOLD))

    def close(self, *spared: str) -> None:
        """Have in effect what holds where nobody knows the policies; none is for `spared`."""
        every = frozenset(map(ip_address, (*DB, *OTHER)))
        free = frozenset(map(ip_address, spared))
        slaves = Ipvlan(every, unjudged=free, parents=frozenset(["up0"]))
        self.table.sync(None, closed(ipvlan.sets(slaves)))

    def flush(self) -> None:
        """As somebody does: what is denied passes then, which shows that it was the rules."""
        run("nft", "flush", "ruleset")

    @contextmanager
    def space(self, name: str) -> Iterator[None]:
        """Sockets made meanwhile are there; "" is the host."""
        if not name:
            yield
            return
        with entered(self.spaces[name]):
            yield

    def passes(self, sender: str, receiver: str, address: str, port: int) -> bool:
        """Whether a datagram gets to a socket there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.space(receiver):
            listening = socket.socket(family, socket.SOCK_DGRAM)
        with self.space(sender):
            sending = socket.socket(family, socket.SOCK_DGRAM)
        with listening, sending:
            listening.bind((address, port))
            listening.settimeout(SECONDS)
            try:
                sending.sendto(b"x", (address, port))
                return listening.recv(1) == b"x"
            except (PermissionError, TimeoutError):  # dropped at OUTPUT is told to processes
                return False

    def pings(self, sender: str, address: str) -> bool:
        inside = ["ip", "netns", "exec", self.spaces[sender]] if sender else []
        words = [*inside, "ping", "-n", "-c1", "-W1", address]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def forge(self, sender: str, *packets: Sent) -> int:
        """Send them as they are; how many of them the one outside sees, which hears all up to a
        last one, of db's own address, that is let pass."""
        with self.space("far"):
            hearing = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        hearing.bind(("far0", 3))
        hearing.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        with self.space(sender):
            slave = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        slave.bind(("eth0", 0))
        wanted = {packet(one) for one in packets}
        with hearing, slave:
            mac = slave.getsockname()[4]
            for one in packets:
                kind = ETHERTYPES[one.source.version]
                with suppress(OSError):  # ENOBUFS tells the sender that it was dropped
                    slave.sendto(mac + mac + kind.to_bytes(2) + packet(one), ("eth0", kind))
            last, kind = Sent(ip_address(DB[0]), ip_address(FAR[0]), 17, 9, 2000), ETHERTYPES[4]
            slave.sendto(mac + mac + kind.to_bytes(2) + packet(last), ("eth0", kind))
            hearing.settimeout(5)
            count = 0
            while (heard := hearing.recv(65536)) != packet(last):
                count += heard in wanted
        return count


def play(make: Callable[[str], str], body: Callable[[Rig], Any]) -> None:
    """In a namespace of its own."""

    async def whole() -> None:
        body(Rig(make))

    in_fresh_namespace(whole)
