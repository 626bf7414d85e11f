"""Paths through the network between two ends, each in namespaces of its own and removed with them.

Every one is what a host has that uses it: `routed` is attached by our kernel driver under our
filter table, the others are built by `ip` and `nft` as their programs build them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from programs import command

from api.resources.workload import Mode
from policies.nft import Nft
from routed.kernel import netns
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint

IN_GUEST = "GUEST" in os.environ  # see scripts/guest: that kernel has ipvlan, and no nftables
NAT = """table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.66.0.0/24 oifname != "bridge" masquerade
  }
}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """From namespace `here` to `address`, which is in namespace `there`."""

    here: str
    there: str
    address: str


class Spaces:
    """Namespaces whose names begin with `mark`."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.made: list[str] = []

    def new(self, name: str) -> str:
        full = f"{self.mark}-{name}"
        command("ip", "netns", "add", full)
        self.made.append(full)
        command("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def router(self, name: str) -> str:
        space = self.new(name)
        words = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
        command("ip", "netns", "exec", space, "sysctl", "-qw", *words)
        return space

    def remove(self) -> None:
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def link(one: str, one_name: str, other: str, other_name: str) -> None:
    """A veth pair between two namespaces, up."""
    peer = ("peer", "name", other_name, "netns", other)
    command("ip", "-n", one, "link", "add", one_name, "type", "veth", *peer)
    command("ip", "-n", one, "link", "set", one_name, "up")
    command("ip", "-n", other, "link", "set", other_name, "up")


def ip(space: str, *words: str) -> None:
    command("ip", "-n", space, *words)


def loopback(spaces: Spaces) -> Way:
    space = spaces.new("lo")
    return Way(space, space, "127.0.0.1")


def direct(spaces: Spaces) -> Way:
    """A veth pair between the two, nothing else."""
    one, other = spaces.new("va"), spaces.new("vb")
    link(one, "eth0", other, "eth0")
    ip(one, "addr", "add", "10.66.0.1/24", "dev", "eth0")
    ip(other, "addr", "add", "10.66.0.2/24", "dev", "eth0")
    return Way(one, other, "10.66.0.2")


def _bridged(spaces: Spaces, name: str, count: int) -> tuple[str, list[str]]:
    host = spaces.router(name)
    ip(host, "link", "add", "bridge", "type", "bridge")
    ip(host, "addr", "add", "10.66.0.254/24", "dev", "bridge")
    ip(host, "link", "set", "bridge", "up")
    ends = []
    for number in range(1, count + 1):
        end = spaces.new(f"{name}{number}")
        link(host, f"port{number}", end, "eth0")
        ip(host, "link", "set", f"port{number}", "master", "bridge")
        ip(end, "addr", "add", f"10.66.0.{number}/24", "dev", "eth0")
        ip(end, "route", "add", "default", "via", "10.66.0.254")
        ends.append(end)
    return host, ends


def bridge(spaces: Spaces) -> Way:
    """Two containers on one bridge."""
    _, (one, other) = _bridged(spaces, "br", 2)
    return Way(one, other, "10.66.0.2")


def bridge_nat(spaces: Spaces) -> Way:
    """From a container on a bridge through masquerading to a neighbour of the host."""
    host, (one,) = _bridged(spaces, "bn", 1)
    other = spaces.new("bno")
    link(host, "up0", other, "eth0")
    ip(host, "addr", "add", "192.0.2.1/24", "dev", "up0")
    ip(other, "addr", "add", "192.0.2.2/24", "dev", "eth0")
    command("ip", "netns", "exec", host, "nft", "-f", "-", given=NAT)
    return Way(one, other, "192.0.2.2")


def macvlan(spaces: Spaces) -> Way:
    """Two macvlan links in bridge mode on one parent."""
    host = spaces.new("mv")
    link(host, "parent", spaces.new("mvp"), "eth0")
    ends = []
    for number in (1, 2):
        end = spaces.new(f"mv{number}")
        kind = ("link", "parent", "netns", end, "type", "macvlan", "mode", "bridge")
        ip(host, "link", "add", "name", "eth0", *kind)
        ip(end, "addr", "add", f"10.66.0.{number}/24", "dev", "eth0")
        ip(end, "link", "set", "eth0", "up")
        ends.append(end)
    return Way(ends[0], ends[1], "10.66.0.2")


def attach(host: str, workloads: dict[str, str], mode: Mode = Mode.VETH, parent: str = "") -> None:
    """By our driver, under our filter where the kernel has nftables: namespace to address. A child
    does it, inside `host`."""

    async def all_of_them() -> None:
        kernel = LinuxKernel()
        for space, address in workloads.items():
            end = Endpoint(f"{space}.bench", "eth0", (ip_address(address),), f"/run/netns/{space}",
                           mode=mode, parent=parent)  # fmt: skip
            await kernel.attach(end)
        await kernel.close()

    def body() -> None:
        with (
            netns.opened(f"/run/netns/{host}", None) as there,
            netns.entered(netns.open_own(), there),
        ):
            if not IN_GUEST:
                Nft().sync()
            asyncio.run(all_of_them())

    in_child(body)


def in_child(body: Callable[[], None]) -> None:
    """`body` in a forked process, which may change its namespace. RuntimeError if it fails."""
    process = os.fork()
    if not process:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f"a child failed with status {status}")


def routed(spaces: Spaces) -> Way:
    """Two workloads of one host."""
    host, one, other = spaces.router("rt"), spaces.new("rt1"), spaces.new("rt2")
    attach(host, {one: "10.66.0.1", other: "10.66.0.2"})
    return Way(one, other, "10.66.0.2")


def ipvlan(mode: Mode) -> Callable[[Spaces], Way]:
    """Two workloads on one parent."""

    def build(spaces: Spaces) -> Way:
        mark = mode.removeprefix("ipvlan-")
        host = spaces.router(mark)
        link(host, "up0", spaces.new(f"{mark}o"), "eth0")
        ip(host, "addr", "add", "192.0.2.1/24", "dev", "up0")
        one, other = spaces.new(f"{mark}a"), spaces.new(f"{mark}b")
        attach(host, {one: "10.66.0.1", other: "10.66.0.2"}, mode, "up0")
        return Way(one, other, "10.66.0.2")

    return build


def _two_hosts(spaces: Spaces, name: str) -> tuple[str, str]:
    """Two hosts and a switch that routes between them."""
    switch = spaces.router(f"{name}t")
    hosts = []
    for number in (1, 2):
        host = spaces.router(f"{name}h{number}")
        link(switch, f"h{number}", host, "up0")
        ip(switch, "addr", "add", f"192.0.{number}.1/24", "dev", f"h{number}")
        ip(host, "addr", "add", f"192.0.{number}.2/24", "dev", "up0")
        ip(host, "route", "add", "default", "via", f"192.0.{number}.1")
        hosts.append(host)
    return hosts[0], hosts[1]


def routed_two_hosts(spaces: Spaces) -> Way:
    """A workload each on two hosts, their /32s routed by the switch."""
    ends = []
    for number, host in enumerate(_two_hosts(spaces, "rr"), 1):
        end = spaces.new(f"rw{number}")
        attach(host, {end: f"10.66.0.{number}"})
        via = f"192.0.{number}.2"
        ip(f"{spaces.mark}-rrt", "route", "add", f"10.66.0.{number}/32", "via", via)
        ends.append(end)
    return Way(ends[0], ends[1], "10.66.0.2")


def vxlan_two_hosts(spaces: Spaces) -> Way:
    """The same in an overlay: a bridge and a VXLAN link on each host, no filter."""
    ends = []
    for number, host in enumerate(_two_hosts(spaces, "x"), 1):
        end = spaces.new(f"xw{number}")
        ip(host, "link", "add", "bridge", "type", "bridge")
        ip(host, "link", "set", "bridge", "up")
        ends_of = ("local", f"192.0.{number}.2", "remote", f"192.0.{3 - number}.2")
        ip(host, "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789", *ends_of)
        ip(host, "link", "set", "vx", "master", "bridge", "up")
        link(host, "port", end, "eth0")
        ip(host, "link", "set", "port", "master", "bridge")
        ip(end, "link", "set", "eth0", "mtu", "1450")
        ip(end, "addr", "add", f"10.66.0.{number}/24", "dev", "eth0")
        ends.append(end)
    return Way(ends[0], ends[1], "10.66.0.2")


PATHS: dict[str, Callable[[Spaces], Way]] = {
    "routed": routed,
    "loopback": loopback,
    "veth": direct,
    "bridge": bridge,
    "bridge-nat": bridge_nat,
    "macvlan": macvlan,
    "routed-2": routed_two_hosts,
    "vxlan-2": vxlan_two_hosts,
}
GUEST_PATHS: dict[str, Callable[[Spaces], Way]] = {
    "routed": routed,
    "veth": direct,
    "macvlan": macvlan,
    "ipvlan-l3": ipvlan(Mode.IPVLAN_L3),
    "ipvlan-l3s": ipvlan(Mode.IPVLAN_L3S),
}
