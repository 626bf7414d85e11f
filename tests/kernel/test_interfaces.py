"""What the choice of a host's own addresses is made from, read from the real kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from support.netns import in_fresh_namespace, run

from routed.addressing import Held, Interface, Method, choose
from routed.kernel import interfaces
from routed.state import LINK_GROUP

pytestmark = pytest.mark.root


def make() -> None:
    for name in ("up0", "up1", "down0", "rtours"):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        run("ip", "link", "set", f"{name}p", "up")
        if name != "down0":
            run("ip", "link", "set", name, "up")
    run("ip", "link", "set", "rtours", "group", str(LINK_GROUP))
    run("ip", "link", "add", "docker0", "type", "bridge")
    run("ip", "link", "set", "docker0", "up")
    for address, name in (
        ("192.0.2.9/24", "up0"), ("192.0.2.1/24", "up0"), ("198.51.100.1/24", "up1"),
        ("203.0.113.1/24", "down0"), ("172.17.0.1/16", "docker0"), ("10.65.0.1/32", "lo"),
        ("10.66.0.1/32", "rtours"),
    ):  # fmt: skip
        run("ip", "addr", "add", address, "dev", name)
    for address in ("2001:db8::9/64", "2001:db8::1/64"):
        run("ip", "addr", "add", address, "dev", "up0", "nodad")
    run("ip", "addr", "change", "2001:db8::1/64", "dev", "up0", "preferred_lft", "0")
    run("ip", "addr", "add", "169.254.1.1/32", "dev", "up1", "scope", "link")


def test_what_the_kernel_has_is_read() -> None:
    async def body() -> None:
        make()
        found = {one.name: one for one in interfaces.read()}
        kind = "veth"
        assert found["up0"] == Interface(
            "up0", True,
            (Held(ip_address("192.0.2.9")), Held(ip_address("192.0.2.1"), secondary=True),
             Held(ip_address("2001:db8::1"), usable=False), Held(ip_address("2001:db8::9"))),
            kind,
        )  # fmt: skip
        assert [str(one.address) for one in found["up1"].addresses] == ["198.51.100.1"]
        assert not found["down0"].up
        assert found["docker0"].kind == "bridge"
        assert found["rtours"].ours
        assert [str(one.address) for one in found["lo"].addresses] == ["10.65.0.1"]
        assert not any(one.vrf for one in found.values())
        chosen = choose(
            Method.parse("first-found"), list(found.values()), (), [ip_network("10.65.0.0/16")]
        )
        assert [f"{one.address} {one.interface}" for one in chosen] == [
            "192.0.2.9 up0",
            "2001:db8::9 up0",
        ]

    in_fresh_namespace(body)


def test_the_kernels_routes_say_where_others_are_reached_from() -> None:
    async def body() -> None:
        make()
        run("ip", "route", "add", "100.64.0.0/16", "via", "198.51.100.7")
        assert interfaces.sources("100.64.0.1") == [ip_address("198.51.100.1")]
        assert interfaces.sources("192.0.2.77", 443) == [ip_address("192.0.2.9")]
        assert interfaces.sources("2001:db8::77") == [ip_address("2001:db8::9")]
        assert interfaces.sources("100.65.0.1") == [], "there is no way"
        assert interfaces.sources("no such name") == []

    in_fresh_namespace(body)


def test_a_name_that_packets_are_not_told_by_is_missing() -> None:
    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "bridge")
        run("ip", "link", "property", "add", "dev", "up0", "altname", "enp3s0")
        assert interfaces.missing(["up0", "lo"]) == {}
        assert interfaces.missing(["enp3s0", "eht0", "a" * 40]) == {
            "enp3s0": "enp3s0 is another name of up0, which has to be named",
            "eht0": "no interface is called eht0 now",
            "a" * 40: f"no interface is called {'a' * 40} now",
        }

    in_fresh_namespace(body)
