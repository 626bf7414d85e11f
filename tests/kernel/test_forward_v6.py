"""Forwarding IPv6 on a host whose default route comes from router advertisements: real ones, sent
by a router at the other end of its uplink."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from routed.agent.imports import DEFAULT_METRIC
from routed.doctor import host as doctor
from routed.kernel.linux import LinuxKernel
from routed.settings import AgentSettings
from routed.state import (
    FORWARD_V6,
    Endpoint,
    ForwardRefused,
    HostState,
    LearnedRoute,
    NextHop,
)

pytestmark = pytest.mark.root
Make = Callable[[str], str]
BLOCK = ip_network("fd00:65::/122")
ADVERTISE = """
import socket, struct, sys, time
link = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
to = ("ff02::1", 0, 0, socket.if_nametoindex("far"))
# RFC 4861, section 4.2: type 134, hop limit 64, a router for half an hour; the kernel fills in the
# checksum (RFC 3542, section 3.1)
advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
while True:
    try:
        link.sendto(advertisement, to)
    except OSError:
        pass  # its link-local address is tentative yet
    time.sleep(0.1)
"""


def default_route() -> str:
    return run("ip", "-6", "route", "show", "default")


def accept_ra(value: str) -> None:
    Path("/proc/sys/net/ipv6/conf/up0/accept_ra").write_text(value)


def forwards() -> bool:
    return Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"


@contextmanager
def advertised(router: str) -> Iterator[None]:
    """Within, this namespace has its default route from a router's advertisements."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far", "netns", router)
    accept_ra("1")
    run("ip", "link", "set", "up0", "up")
    run("ip", "-n", router, "link", "set", "far", "up")
    words = ["nsenter", f"--net=/run/netns/{router}", sys.executable, "-c", ADVERTISE]
    with subprocess.Popen(words) as sending:
        try:
            yield
        finally:
            sending.kill()


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def endpoint(netns: str, *addresses: str) -> Endpoint:
    return Endpoint("w.h", "eth0", tuple(map(ip_address, addresses)), f"/run/netns/{netns}")


def findings() -> dict[str, str]:
    """What doctor says of sysctls: remedies by check."""
    return {one.check: one.remedy for one in doctor.sysctls(AgentSettings(node="h"))}


def test_it_is_refused_until_the_link_keeps_its_default_route(namespaces: Make) -> None:
    router, inside = namespaces("router"), namespaces("inside")

    async def body() -> None:
        with advertised(router):
            await until(lambda: "proto ra" in default_route())
            kernel = LinuxKernel()
            report = await kernel.sync(HostState(blackholes=frozenset({BLOCK})))
            refused = report.failed[FORWARD_V6]
            assert isinstance(refused, ForwardRefused)
            assert refused.links == ("up0",)
            remedy = "sysctl -w net.ipv6.conf.up0.accept_ra=2"
            assert remedy in str(refused)
            assert findings()["sysctl: IPv6 forwarding"] == remedy
            with pytest.raises(ApplyError, match="comes from router advertisements"):
                await kernel.attach(endpoint(inside, "10.65.0.1", "fd00:65::1"))
            assert "eth0" not in run("ip", "-n", inside, "-br", "link"), "nothing is left behind"
            await kernel.attach(endpoint(inside, "10.65.0.1"))  # IPv4 alone is another matter
            assert not forwards()
            assert "proto ra" in default_route()
            run(*remedy.split())
            report = await kernel.sync(HostState(blackholes=frozenset({BLOCK}), sweep=False))
            assert FORWARD_V6 not in report.failed
            assert forwards()
            assert "proto ra" in default_route(), "it has kept it"
            assert "sysctl: IPv6 forwarding" not in findings()
            await kernel.close()

    in_fresh_namespace(body)


def test_what_is_refused_would_have_cost_the_default_route(namespaces: Make) -> None:
    """The control: without the refusal the kernel gives the route up at once."""
    router = namespaces("router")

    async def body() -> None:
        with advertised(router):
            await until(lambda: "proto ra" in default_route())
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
            assert default_route() == ""

    in_fresh_namespace(body)


def test_a_learned_default_route_stands_behind_the_advertised_one(namespaces: Make) -> None:
    router = namespaces("router")

    async def body() -> None:
        with advertised(router):
            await until(lambda: "proto ra" in default_route())
            accept_ra("2")
            run("ip", "addr", "add", "2001:db8::2/64", "dev", "up0", "nodad")
            run("ip", "-n", router, "addr", "add", "2001:db8::1/64", "dev", "far", "nodad")
            everything, gateway = ip_network("::/0"), NextHop(ip_address("2001:db8::1"))
            learned = LearnedRoute(everything, (gateway,), DEFAULT_METRIC)
            kernel = LinuxKernel()
            holes = frozenset({BLOCK})
            report = await kernel.sync(HostState(blackholes=holes, learned={everything: learned}))
            assert (report.failed, everything in report.routed) == ({}, True)
            assert "proto ra" in default_route()
            assert "proto 82" in default_route()
            assert "proto ra" in run("ip", "-6", "route", "get", "2001:db8:1::1")
            await kernel.sync(HostState(blackholes=holes))
            assert "proto ra" in default_route()
            assert "proto 82" not in default_route()
            await kernel.close()

    in_fresh_namespace(body)


def test_a_default_route_that_a_program_made_of_advertisements_is_its_own_matter(
    namespaces: Make,
) -> None:
    """As systemd-networkd does: the kernel takes none in, and forwarding changes nothing."""
    router = namespaces("router")

    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far", "netns", router)
        accept_ra("0")
        run("ip", "link", "set", "up0", "up")
        run("ip", "-n", router, "link", "set", "far", "up")
        run("ip", "-6", "route", "add", "default", "via", "fe80::9", "dev", "up0", "proto", "ra")
        kernel = LinuxKernel()
        report = await kernel.sync(HostState(blackholes=frozenset({BLOCK})))
        assert FORWARD_V6 not in report.failed
        assert forwards()
        assert "fe80::9" in default_route()
        await kernel.close()

    in_fresh_namespace(body)
