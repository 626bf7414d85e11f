"""A management VRF is left alone: none of its addresses is the host's own for us, and none of its
routes changes while routes of ours come and go."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_address, ip_network

from support.netns import in_fresh_namespace, run

from routed.addressing import Method, choose
from routed.kernel import interfaces
from routed.kernel.linux import LinuxKernel
from routed.state import HostState, LearnedRoute, NextHop

TABLE = "100"


def host() -> None:
    """An uplink, and management in a VRF with a default route of its own."""
    for name in ("up0", "mgmt0"):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        run("ip", "link", "set", f"{name}p", "up")
    run("ip", "link", "add", "management", "type", "vrf", "table", TABLE)
    run("ip", "link", "set", "mgmt0", "master", "management")
    for name in ("management", "up0", "mgmt0"):
        run("ip", "link", "set", name, "up")
    run("ip", "addr", "add", "172.31.1.11/24", "dev", "up0")
    run("ip", "addr", "add", "192.0.2.11/24", "dev", "mgmt0")
    run("ip", "addr", "add", "192.0.2.12/32", "dev", "management")
    run("ip", "route", "add", "default", "via", "192.0.2.1", "vrf", "management")


def held() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run("ip", "-j", "route", "show", "table", TABLE))
    return found


def test_no_address_of_it_is_the_hosts_own() -> None:
    async def body() -> None:
        host()
        found = interfaces.read()
        assert {one.name: one.vrf for one in found if one.name != "lo"} == {
            "up0": False,
            "mgmt0": True,
            "management": True,
        }
        for text in ("first-found", "interface=mgmt0", "cidr=192.0.2.0/24", "control-plane"):
            chosen = choose(Method.parse(text), found, [ip_address("192.0.2.11")])
            assert [str(one.address) for one in chosen] in ([], ["172.31.1.11"])

    in_fresh_namespace(body)


def test_its_default_route_stays_and_ours_does_not_get_into_it() -> None:
    async def body() -> None:
        host()
        before = held()
        assert len(before) > 1
        kernel = LinuxKernel()
        default = ip_network("0.0.0.0/0")
        hops = (NextHop(ip_address("172.31.1.1")),)
        desired = HostState(
            learned={default: LearnedRoute(default, hops, 2048)},
            blackholes=frozenset({ip_network("10.65.0.0/26")}),
            sweep=True,
            sweep_learned=True,
        )
        report = await kernel.sync(desired)
        assert default in report.routed
        assert held() == before
        words = ["ip", "route", "get", "198.51.100.1", "vrf", "management"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "via 192.0.2.1 dev mgmt0" in said
        assert "via 172.31.1.1 dev up0" in run("ip", "route", "get", "198.51.100.1")
        await kernel.sync(HostState(sweep=True, sweep_learned=True))
        assert held() == before
        assert "82" not in run("ip", "route")
        await kernel.close()

    in_fresh_namespace(body)
