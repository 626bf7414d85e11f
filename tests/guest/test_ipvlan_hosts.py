"""Policies of a host say nothing of its ipvlan workloads, whose packets pass its own INPUT and
OUTPUT."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from support.compiled import policy
from support.flows import Outside
from support.netns import in_fresh_namespace, run

from policies.compile.compiler import compiled
from policies.failsafe import failsafe
from policies.model import EVERY, NOTHING_TOLD, HostInterface, Ipvlan
from policies.nft import Nft
from policies.plan import plan
from routed.state import SLAVE_GROUP

pytestmark = [pytest.mark.nft]
Make = Callable[[str], str]
SHUT = policy("shut", types=["Ingress", "Egress"])
WORKLOAD, FAR, HOST = "10.65.0.5", "192.0.2.2", "192.0.2.1"


def pings(netns: str, address: str) -> bool:
    words = [*(["ip", "netns", "exec", netns] if netns else []), "ping", "-c1", "-W2", address]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def workload(inside: str, far: str, mode: str) -> None:
    """On the uplink; the host reaches it over a slave of its own."""
    kind = ("type", "ipvlan", "mode", mode)
    run("ip", "link", "add", "link", "up0", "name", "eth0", "netns", inside, *kind)
    run("ip", "link", "add", "link", "up0", "name", "own0", "group", str(SLAVE_GROUP), *kind)
    for words in (
        ("-n", inside, "link", "set", "lo", "up"),
        ("-n", inside, "link", "set", "eth0", "up"),
        ("-n", inside, "addr", "add", f"{WORKLOAD}/32", "dev", "eth0"),
        ("-n", inside, "route", "add", "default", "dev", "eth0"),
        ("link", "set", "own0", "up"),
        ("route", "add", f"{WORKLOAD}/32", "dev", "own0", "src", HOST),
        ("-n", far, "route", "add", f"{WORKLOAD}/32", "via", HOST),
    ):
        run("ip", *words)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_policies_of_the_host_are_not_for_its_ipvlan_workloads(namespaces: Make, mode: str) -> None:
    inside, far = namespaces("w"), namespaces("far")

    async def body() -> None:
        table = Nft()
        Outside(far)
        workload(inside, far, mode)

        def reached(interface: str, *slaves: str) -> list[bool]:
            """From the workload, to it, from the host to it; the host, from far and to it."""
            ends = [HostInterface("edge", {}, interface)]
            ipvlan = Ipvlan(frozenset(map(ip_address, slaves)))
            made = plan([], [SHUT], [], "Allow", ends, failsafe(), ipvlan)
            table.sync(None, compiled(made, NOTHING_TOLD))
            ways = ((inside, FAR), (far, WORKLOAD), ("", WORKLOAD), (far, HOST), ("", FAR))
            return [pings(netns, address) for netns, address in ways]

        assert reached("other0") == [True] * 5
        for interface in ("up0", EVERY):
            assert reached(interface, WORKLOAD) == [True, True, True, False, False]
        assert not any(reached("up0")[:2]), "it would have been noticed"
        table.close()

    in_fresh_namespace(body)
