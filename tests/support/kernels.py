"""Two worlds in which the same tests of `Kernel` run: the fake one and the real one.

A world has a kernel, namespaces, the ways in which somebody damages them, and ways to look.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from policies.nft import Nft
from routed.kernel.fake import FakeKernel
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint, HostState, host_interface_name, slave_name
from support.conntrack import entries
from support.netns import in_fresh_namespace, run

Body = Callable[[Any], Awaitable[None]]


def endpoint(name: str, netns: str, *addresses: str) -> Endpoint:
    return Endpoint(name, "eth0", tuple(ip_address(a) for a in addresses), f"/run/netns/{netns}")


async def quiet_watcher(kernel: Any, desired: HostState, seconds: float) -> AsyncIterator[None]:
    """What wakes when something changes from now on: all is as desired, and is known to be. The
    first news, of what has changed so far, come in `seconds`."""
    woken: AsyncIterator[None] = aiter(kernel.watch())
    await asyncio.wait_for(anext(woken), seconds)
    while (await kernel.sync(desired)).changed:
        pass
    return woken


class FakeWorld:
    """Everything is a line of the fake kernel."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()

    @classmethod
    def play(cls, body: Body) -> None:
        async def whole() -> None:
            await body(cls())

        asyncio.run(whole())

    def new_kernel(self) -> FakeKernel:
        return self.kernel  # it has no memory but the host's

    def netns(self, label: str) -> str:
        self.kernel.add_namespace(label)
        return label

    def delete_netns(self, name: str) -> None:
        self.kernel.delete_namespace(name)

    def delete_route(self, prefix: str) -> None:
        self.kernel.remove(f"route {prefix} ")

    def delete_blackhole(self, prefix: str) -> None:
        self.kernel.remove(f"route blackhole {prefix} ")

    def delete_gateway(self, workload: str) -> None:
        self.kernel.remove(f"address 169.254.1.1/32 dev {host_interface_name(workload)} ")

    def delete_neighbour(self, workload: str, address: str) -> None:
        self.kernel.remove(f"neighbour {address} dev {host_interface_name(workload)} ")

    def delete_link(self, workload: str) -> None:
        self.kernel.delete_link(host_interface_name(workload))

    def link_down(self, workload: str) -> None:
        self.kernel.set_down(host_interface_name(workload))

    def inner_link_down(self, netns: str) -> None:
        self.kernel.set_down("eth0", netns)

    def inner_address_gone(self, netns: str, address: str) -> None:
        self.kernel.remove(f"address {address}/32 ", netns)

    def inner_routes_gone(self, netns: str) -> None:
        self.kernel.remove("route ", netns)

    def foreign_route(self, prefix: str, metric: int = 0) -> None:
        last = f" metric {metric}" if metric else ""
        self.kernel.add(f"route {prefix} via 192.0.2.99 dev up0 proto static{last}")

    def foreign_inner_link(self, netns: str, name: str) -> None:
        self.kernel.add(f"link {name} peer elsewhere down", netns)

    def carrier(self, name: str, *, on: bool) -> None:
        self.kernel.set_carrier(name, on=on)

    def has_carrier(self, name: str) -> bool:
        return f"link {name} mtu 1500 up" in self.kernel.host

    def uplink_down(self, name: str) -> None:
        self.kernel.set_down(name)

    def uplink_up(self, name: str) -> None:
        self.kernel.set_carrier(name, on=True)

    def add_address(self, address: str, name: str) -> None:
        self.kernel.add(f"address {address} dev {name}")

    def move_address(self, address: str, name: str, other: str) -> None:
        self.kernel.remove(f"address {address} dev {name}")
        self.kernel.add(f"address {address} dev {other}")

    def flush_next_hops(self) -> None:
        self.kernel.flush_next_hops()

    def foreign_next_hop(self, number: int) -> None:
        self.kernel.add(f"nexthop id {number} via 192.0.2.9 dev up0 proto static")

    def hops(self, prefix: str) -> set[tuple[str, str]]:
        """Gateway and link of each next hop of a learned route."""
        for line in self.kernel.host:
            if line.startswith(f"route {prefix} proto 82 "):
                hops = [hop.split() for hop in line.split(" nexthop via ")[1:]]
                return {(hop[0], hop[2]) for hop in hops}
        return set()

    def foreign(self) -> str:
        return "\n".join(
            line
            for line in str(self.kernel).splitlines()
            if " proto static" in line or ("up0" in line and " proto 82" not in line)
        )

    def delete_limit(self, workload: str) -> None:
        self.kernel.remove(f"limit to dev {host_interface_name(workload)} ")

    def limits(self) -> int:
        return sum(line.startswith("limit ") for line in self.kernel.host)

    def flow(self, source: str, address: str) -> None:
        """Something is sent from this host."""
        self.kernel.add(f"flow {source} {address}")

    def has_flow(self, address: str) -> bool:
        return any(line.startswith("flow ") and address in line for line in self.kernel.host)

    def routes(self) -> list[str]:
        return [line.removeprefix("route ") for line in self.kernel.host if "route " in line]

    def links(self) -> set[str]:
        return {line.split()[1] for line in self.kernel.host if line.startswith("link ")}

    def inner_links(self, netns: str) -> set[str]:
        return {
            line.split()[1] for line in self.kernel.inside[netns] if line.startswith("link ")
        } | {"lo"}

    def delete_named(self, name: str) -> None:
        self.kernel.delete_link(name)

    def foreign_link(self, name: str) -> None:
        self.kernel.add(f"link {name} mtu 1500 down")

    def host_address_gone(self, workload: str, address: str) -> None:
        self.kernel.remove(f"address {address}/32 dev {host_interface_name(workload)}")

    def flip(self, netns: str, mode: str) -> None:
        self.kernel.flip("up0", mode)

    def mode(self, parent: str) -> str:
        return self.kernel.mode(parent)

    def host_reaches(self, address: str) -> bool:
        return self.kernel.host_reaches(address)

    def reaches(self, netns: str, address: str) -> bool:
        return self.kernel.reaches(netns, address)


class RealWorld:
    """The kernel itself, in a namespace made for the one test."""

    def __init__(self) -> None:
        self._made: list[str] = []
        for name, *own in (
            ("up0", "192.0.2.1/24", "2001:db8:1::1/64"),
            ("up1", "198.51.100.1/24", "2001:db8:2::1/64"),
        ):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
            for address in own:
                run("ip", "addr", "add", address, "dev", name, *_no_detection(address))
            run("ip", "link", "set", f"{name}p", "up")
            run("ip", "link", "set", name, "up")
        self.kernel = LinuxKernel()

    @classmethod
    def play(cls, body: Body) -> None:
        async def whole() -> None:
            world = cls()
            try:
                await body(world)
            finally:
                await world.kernel.close()
                for name in world._made:
                    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

        in_fresh_namespace(whole)

    def new_kernel(self) -> LinuxKernel:
        self.kernel = LinuxKernel()
        return self.kernel

    def netns(self, label: str) -> str:
        name = f"rtk-{label}-{uuid.uuid4().hex[:8]}"
        run("ip", "netns", "add", name)
        self._made.append(name)
        return name

    def delete_netns(self, name: str) -> None:
        run("ip", "netns", "del", name)

    def delete_route(self, prefix: str) -> None:
        run("ip", *_six(prefix), "route", "del", prefix)

    def delete_blackhole(self, prefix: str) -> None:
        run("ip", *_six(prefix), "route", "del", "blackhole", prefix)

    def delete_gateway(self, workload: str) -> None:
        run("ip", "addr", "del", "169.254.1.1/32", "dev", host_interface_name(workload))

    def delete_neighbour(self, workload: str, address: str) -> None:
        run("ip", "neigh", "del", address, "dev", host_interface_name(workload))

    def delete_link(self, workload: str) -> None:
        run("ip", "link", "del", host_interface_name(workload))

    def link_down(self, workload: str) -> None:
        run("ip", "link", "set", host_interface_name(workload), "down")

    def inner_link_down(self, netns: str) -> None:
        run("ip", "-n", netns, "link", "set", "eth0", "down")

    def inner_address_gone(self, netns: str, address: str) -> None:
        run("ip", "-n", netns, "addr", "del", address, "dev", "eth0")

    def inner_routes_gone(self, netns: str) -> None:
        run("ip", "-n", netns, "route", "flush", "table", "main")

    def foreign_route(self, prefix: str, metric: int = 0) -> None:
        last = ("metric", str(metric)) if metric else ()
        run("ip", "route", "add", prefix, "via", "192.0.2.99", "proto", "static", *last)

    def foreign_inner_link(self, netns: str, name: str) -> None:
        run("ip", "-n", netns, "link", "add", name, "type", "bridge")

    def carrier(self, name: str, *, on: bool) -> None:
        run("ip", "link", "set", f"{name}p", "up" if on else "down")

    def has_carrier(self, name: str) -> bool:
        return "LOWER_UP" in run("ip", "link", "show", "dev", name)

    def uplink_down(self, name: str) -> None:
        run("ip", "link", "set", name, "down")

    def uplink_up(self, name: str) -> None:
        run("ip", "link", "set", name, "up")

    def add_address(self, address: str, name: str) -> None:
        run("ip", "addr", "add", address, "dev", name)

    def move_address(self, address: str, name: str, other: str) -> None:
        run("ip", "addr", "del", address, "dev", name)
        run("ip", "addr", "add", address, "dev", other, *_no_detection(address))

    def flush_next_hops(self) -> None:
        # those that went with another one are reported as not found
        subprocess.run(["ip", "nexthop", "flush", "proto", "82"], check=False, capture_output=True)

    def foreign_next_hop(self, number: int) -> None:
        of = ("via", "192.0.2.9", "dev", "up0", "proto", "static")
        run("ip", "nexthop", "add", "id", str(number), *of)

    def hops(self, prefix: str) -> set[tuple[str, str]]:
        words = (*_six(prefix), "-j", "route", "show", prefix, "proto", "82")
        found = json.loads(run("ip", *words))
        return {
            (hop["via"]["host"] if "via" in hop else hop["gateway"], hop["dev"])
            for route in found
            for hop in route.get("nexthops", [route])
        }

    def foreign(self) -> str:
        return (
            run("ip", "route", "show", "proto", "static")
            + run("ip", "nexthop", "show", "proto", "4")  # static
            + run("ip", "-br", "addr", "show", "up0")
        )

    def delete_limit(self, workload: str) -> None:
        run("tc", "qdisc", "del", "dev", host_interface_name(workload), "root")

    def limits(self) -> int:
        return run("tc", "qdisc").count(" tbf ")

    def flow(self, source: str, address: str) -> None:
        Nft().sync()  # a namespace without any rule that asks keeps nothing in mind
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.bind((source, 0))
            made.sendto(b"x", (address, 9))

    def has_flow(self, address: str) -> bool:
        return bool(entries(address))

    def routes(self) -> list[str]:
        return run("ip", "route").splitlines() + run("ip", "-6", "route").splitlines()

    def links(self) -> set[str]:
        return _names(run("ip", "-br", "link"))

    def inner_links(self, netns: str) -> set[str]:
        return _names(run("ip", "-n", netns, "-br", "link"))

    def delete_named(self, name: str) -> None:
        run("ip", "link", "del", name)

    def foreign_link(self, name: str) -> None:
        run("ip", "link", "add", name, "type", "bridge")

    def host_address_gone(self, workload: str, address: str) -> None:
        run("ip", "addr", "del", f"{address}/32", "dev", host_interface_name(workload))

    def flip(self, netns: str, mode: str) -> None:
        """Somebody makes an ipvlan of another mode on the same parent, in a namespace."""
        kind = ("type", "ipvlan", "mode", mode)
        run("ip", "link", "add", "link", "up0", "name", "their0", "netns", netns, *kind)

    def mode(self, parent: str) -> str:
        shown = json.loads(run("ip", "-d", "-j", "link", "show", "dev", slave_name(parent)))
        return str(shown[0]["linkinfo"]["info_data"]["mode"])

    def host_reaches(self, address: str) -> bool:
        command = ["ping", "-n", "-c3", "-i0.2", "-W1", address]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def reaches(self, netns: str, address: str) -> bool:
        command = ["ip", "netns", "exec", netns, "ping", "-n", "-c3", "-i0.2", "-W1", address]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _no_detection(address: str) -> tuple[str, ...]:
    return ("nodad",) if ":" in address else ()


def _six(prefix: str) -> tuple[str, ...]:
    return ("-6",) if ":" in prefix else ()


def _names(listed: str) -> set[str]:
    return {line.split()[0].partition("@")[0] for line in listed.splitlines()}


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
