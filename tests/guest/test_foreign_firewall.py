"""A foreign INPUT that drops cuts ipvlan-l3s workloads off, and the rule that is told helps; by the
legacy iptables, as the guest has no other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from support.docker import program
from support.netns import in_fresh_namespace, run

from policies import legacy
from policies.slaves import Slaves, blocking

Make = Callable[[str], str]
POOL = ip_network("10.65.0.0/24")
SLAVES = Slaves(arriving=(POOL,), leaving=(POOL,))


def pings(netns: str, address: str) -> bool:
    words = ["ip", "netns", "exec", netns, "ping", "-n", "-c1", "-W3", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("chain", "mode"), [("INPUT", "l3s"), ("OUTPUT", "l3s"), ("OUTPUT", "l3")])
def test_the_rule_that_is_told_lets_pass(namespaces: Make, chain: str, mode: str) -> None:
    program("iptables-legacy", "iptables")
    inner, far = namespaces("w"), namespaces("far")

    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0", "netns", far)
        run("ip", "link", "set", "up0", "up")
        run("ip", "-n", far, "link", "set", "far0", "up")
        run("ip", "addr", "add", "172.31.1.11/24", "dev", "up0")
        run("ip", "-n", far, "addr", "add", "172.31.1.1/24", "dev", "far0")
        run("ip", "-n", far, "route", "add", str(POOL), "via", "172.31.1.11")
        words = ["ip", "link", "add", "link", "up0", "name", "eth0", "netns", inner]
        run(*words, "type", "ipvlan", "mode", mode)
        run("ip", "-n", inner, "addr", "add", "10.65.0.1/32", "dev", "eth0")
        run("ip", "-n", inner, "link", "set", "eth0", "up")
        run("ip", "-n", inner, "route", "add", "default", "dev", "eth0")
        assert pings(far, "10.65.0.1")
        assert blocking(legacy.entries(), SLAVES) == []
        run("iptables-legacy", "-P", chain, "DROP")
        assert not pings(far, "10.65.0.1"), "they do pass that chain"
        (found,) = blocking(legacy.entries(), SLAVES)
        assert found.chain == chain
        run(*found.remedy.split())
        assert pings(far, "10.65.0.1")
        assert blocking(legacy.entries(), SLAVES) == []

    in_fresh_namespace(body)
