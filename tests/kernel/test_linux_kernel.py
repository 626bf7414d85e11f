"""The kernel driver against the real kernel, each test in a network namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError, Conflict, Invalid
from policies.nft import Nft
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint, HostState, LearnedRoute, NextHop, Report, host_interface_name

pytestmark = pytest.mark.root
Make = Callable[[str], str]


def endpoint(name: str, netns: str, *addresses: str) -> Endpoint:
    return Endpoint(name, "eth0", tuple(ip_address(a) for a in addresses), f"/run/netns/{netns}")


def pings(netns: str, address: str) -> bool:
    command = ["ip", "netns", "exec", netns, "ping", "-n", "-c3", "-i0.2", "-W5", address]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_two_workloads_reach_each_other_over_both_families(namespaces: Make) -> None:
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        kernel = LinuxKernel()
        a = endpoint("a.h", one, "10.65.0.1", "fd00::1")
        b = endpoint("b.h", other, "10.65.0.2", "fd00::2")
        desired = HostState(endpoints={"a.h": a, "b.h": b})
        report = await kernel.sync(desired)
        assert report.ready == {"a.h": a.addresses, "b.h": b.addresses}
        assert pings(one, "10.65.0.2")
        assert pings(one, "fd00::2")
        assert pings(one, "169.254.1.1")
        assert (await kernel.sync(desired)).changed == 0, "a second sync has nothing to do"

    in_fresh_namespace(body)


def test_a_new_driver_recognises_everything_and_changes_nothing(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        a = endpoint("a.h", one, "10.65.0.1")
        desired = HostState(
            endpoints={"a.h": a}, blackholes=frozenset([ip_network("10.65.0.0/26")])
        )
        first = LinuxKernel()
        assert (await first.sync(desired)).changed > 0
        await first.close()
        second = LinuxKernel()
        report = await second.sync(desired)
        assert report.changed == 0
        assert report.ready == {"a.h": a.addresses}

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    "damage",
    [
        "ip route del 10.65.0.1/32",
        "ip addr flush dev {link} scope link",
        "ip neigh flush all nud permanent",
        "ip link set {link} down",
        "ip netns exec {netns} ip addr flush dev eth0",
        "ip netns exec {netns} ip route flush table main",
        "ip netns exec {netns} ip link set eth0 down",
        "ip route del blackhole 10.65.0.0/26",
    ],
)
def test_what_somebody_takes_away_is_noticed_and_put_back(namespaces: Make, damage: str) -> None:
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        kernel = LinuxKernel()
        a, b = endpoint("a.h", one, "10.65.0.1"), endpoint("b.h", other, "10.65.0.2")
        desired = HostState(
            endpoints={"a.h": a, "b.h": b}, blackholes=frozenset([ip_network("10.65.0.0/26")])
        )
        await kernel.sync(desired)
        woken = aiter(kernel.watch())
        await asyncio.wait_for(anext(woken), 5)  # our own changes
        assert (await kernel.sync(desired)).changed == 0
        run(*damage.format(link=a.host_interface, netns=one).split())
        await asyncio.wait_for(anext(woken), 5)
        report = await kernel.sync(desired)
        assert report.changed > 0
        assert set(report.ready) == {"a.h", "b.h"}
        assert pings(other, "10.65.0.1")
        assert "blackhole 10.65.0.0/26" in run("ip", "route")

    in_fresh_namespace(body)


def test_a_namespace_that_vanishes_is_reported_lost(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        a = endpoint("a.h", one, "10.65.0.1")
        desired = HostState(endpoints={"a.h": a})
        await kernel.sync(desired)
        run("ip", "netns", "del", one)
        await until(lambda: "rt" not in run("ip", "-br", "link"))
        report = await kernel.sync(desired)
        assert report.lost == {"a.h"}
        assert not report.ready

    in_fresh_namespace(body)


def test_detach_takes_routes_at_once_and_the_link_soon(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        await kernel.attach(endpoint("a.h", one, "10.65.0.1"))
        await kernel.detach(["a.h"])
        assert "10.65.0.1" not in run("ip", "route")
        await until(lambda: host_interface_name("a.h") not in run("ip", "-br", "link"))
        await kernel.attach(endpoint("a.h", one, "10.65.0.3"))
        assert pings(one, "169.254.1.1")

    in_fresh_namespace(body)


def test_orphans_are_swept_only_when_told(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        await kernel.attach(endpoint("a.h", one, "10.65.0.1"))
        await kernel.sync(HostState(sweep=False))
        assert pings(one, "169.254.1.1"), "nothing is swept before intent is loaded"
        await kernel.sync(HostState(sweep=True))
        await until(lambda: host_interface_name("a.h") not in run("ip", "-br", "link"))
        assert "10.65.0.1" not in run("ip", "route")

    in_fresh_namespace(body)


def test_foreign_routes_and_links_stay_and_are_never_replaced(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        run("ip", "link", "set", "up1", "up")
        run("ip", "route", "add", "default", "via", "192.0.2.9")
        run("ip", "route", "add", "10.65.0.1/32", "via", "192.0.2.9")
        run("ip", "route", "add", "10.66.0.0/16", "via", "192.0.2.9", "metric", "512")
        before = run("ip", "route", "show", "proto", "boot")
        kernel = LinuxKernel()
        a = endpoint("a.h", one, "10.65.0.1")
        prefix = ip_network("10.66.0.0/16")
        learned = LearnedRoute(prefix, (NextHop(ip_address("192.0.2.7")),))
        report: Report = await kernel.sync(
            HostState(endpoints={"a.h": a}, learned={prefix: learned})
        )
        assert "a.h" in report.failed
        assert "a.h" not in report.ready
        assert f"route {prefix}" in report.failed
        await kernel.sync(HostState())
        assert run("ip", "route", "show", "proto", "boot") == before
        assert "up0" in run("ip", "-br", "link")

    in_fresh_namespace(body)


def test_learned_routes_are_ecmp_change_in_place_and_wait_for_the_marker() -> None:
    async def body() -> None:
        for name, address in (("up0", "192.0.2.1/24"), ("up1", "198.51.100.1/24")):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
            run("ip", "addr", "add", address, "dev", name)
            run("ip", "link", "set", name, "up")
            run("ip", "link", "set", f"{name}p", "up")
        kernel = LinuxKernel()
        prefix = ip_network("10.65.9.9/32")
        hops = tuple(NextHop(ip_address(a)) for a in ("192.0.2.9", "198.51.100.9"))
        both = HostState(learned={prefix: LearnedRoute(prefix, hops)})
        assert (await kernel.sync(both)).routed == {prefix}
        assert run("ip", "route", "show", str(prefix)).count("nexthop") == 2
        assert (await kernel.sync(both)).changed == 0
        one = HostState(learned={prefix: LearnedRoute(prefix, hops[:1])})
        assert (await kernel.sync(one)).changed == 1
        assert "nexthop" not in run("ip", "route", "show", str(prefix))
        await kernel.sync(HostState(sweep_learned=False))
        assert str(ip_address("10.65.9.9")) in run("ip", "route")
        await kernel.sync(HostState(sweep_learned=True))
        assert "10.65.9.9" not in run("ip", "route")

    in_fresh_namespace(body)


def test_an_attach_that_fails_leaves_nothing(namespaces: Make) -> None:
    one = namespaces("a")
    run("ip", "-n", one, "link", "add", "eth0", "type", "bridge")

    async def body() -> None:
        kernel = LinuxKernel()
        with pytest.raises(Conflict, match="eth0"):
            await kernel.attach(endpoint("a.h", one, "10.65.0.1"))
        with pytest.raises(ApplyError):
            await kernel.attach(endpoint("b.h", "no-such-namespace", "10.65.0.2"))
        run("ip", "route", "add", "blackhole", "10.65.0.3/32")
        two = Endpoint("c.h", "eth1", (ip_address("10.65.0.3"),), f"/run/netns/{one}")
        with pytest.raises(ApplyError):
            await kernel.attach(two)
        assert "rt" not in run("ip", "-br", "link")
        assert "eth1" not in run("ip", "-n", one, "-br", "link")

    in_fresh_namespace(body)


def test_an_attach_with_ipv6_asks_for_a_round_only_while_forwarding_is_off(
    namespaces: Make,
) -> None:
    spaces = [namespaces(name) for name in "abc"]

    async def body() -> None:
        kernel = LinuxKernel()
        held = [endpoint(f"w{n}.h", name, f"fd00:65::{n}") for n, name in enumerate(spaces)]
        woken = []
        monitor = kernel._monitor
        monitor.wake = lambda: woken.append(1)  # type: ignore[method-assign]
        await kernel.attach(held[0])
        assert woken
        await kernel.sync(HostState(endpoints={"w0.h": held[0]}))
        await asyncio.sleep(0.1)  # what it hears of that
        woken.clear()
        for one in held[1:]:
            await kernel.attach(one)
        assert not woken
        await kernel.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize("setting", ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"])
def test_forwarding_that_somebody_switches_off_is_noticed(setting: str) -> None:
    async def body() -> None:
        kernel = LinuxKernel()
        desired = HostState(blackholes=frozenset({ip_network("fd00:65::/122")}))
        await kernel.sync(desired)
        with contextlib.suppress(TimeoutError):  # what it hears of its own doing
            while True:
                await asyncio.wait_for(anext(aiter(kernel.watch())), 0.3)
        run("sysctl", "-w", f"{setting}=0")
        await asyncio.wait_for(anext(aiter(kernel.watch())), 5)
        await kernel.sync(desired)
        assert run("sysctl", "-n", setting).strip() == "1"
        await kernel.close()

    in_fresh_namespace(body)


def test_a_source_that_is_not_the_workloads_is_dropped(namespaces: Make) -> None:
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        filters = Nft()
        assert filters.sync()
        assert not filters.sync()
        kernel = LinuxKernel()
        for place, name in enumerate((one, other), 1):
            await kernel.attach(endpoint(f"w{place}.h", name, f"10.65.0.{place}"))
        await kernel.sync(HostState(sweep=False))  # forwarding on
        assert pings(one, "10.65.0.2")
        assert pings(one, "169.254.1.1")
        run("ip", "-n", one, "addr", "add", "10.65.0.77/32", "dev", "eth0")
        spoofed = [
            "ip",
            "netns",
            "exec",
            one,
            "ping",
            "-c1",
            "-W1",
            "-I",
            "10.65.0.77",
            "10.65.0.2",
        ]
        assert subprocess.run(spoofed, check=False, capture_output=True).returncode != 0
        rules = run("nft", "list", "chain", "inet", "routed", "antispoof")
        missing = next(line for line in rules.splitlines() if "oif missing" in line)
        assert "packets 0 " not in missing, "the packet was dropped by this rule"
        run("nft", "flush", "chain", "inet", "routed", "antispoof")
        assert filters.sync(), "a flushed chain is noticed"

    in_fresh_namespace(body)


def test_only_network_namespaces_other_than_the_hosts_own_are_accepted(
    namespaces: Make, tmp_path: object
) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        assert kernel.check_netns(one).path == f"/run/netns/{one}"
        assert kernel.check_netns(f"/run/netns/{one}").identity
        for wrong, why in (
            ("no-such-name", "cannot be opened"),
            ("../netns", "neither"),
            ("/etc/hostname", "not a network namespace"),
            ("/proc/self/ns/net", "own"),
            ("/proc/self/ns/mnt", "not a network namespace"),
            ("/tmp", "not a network namespace"),
        ):
            with pytest.raises(Invalid, match=why) as caught:
                kernel.check_netns(wrong)
            assert caught.value.causes[0].field == "spec.netns"

    in_fresh_namespace(body)
