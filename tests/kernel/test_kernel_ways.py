"""Which route the real kernel has for a packet, with all of its next hops."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_network

import pytest
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from routed.kernel import ways
from routed.kernel.ways import Way

pytestmark = pytest.mark.root
A, B = ip_address("192.0.2.1"), ip_address("198.51.100.1")


def make() -> None:
    for number, name in enumerate(("up0", "up1", "rtweb")):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        run("ip", "link", "set", f"{name}p", "up")
        run("ip", "link", "set", name, "up")
        run("ip", "addr", "add", f"fd00:{number}::9/64", "dev", name, "nodad")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    run("ip", "addr", "add", "192.0.2.9/24", "dev", "up0")
    run("ip", "addr", "add", "198.51.100.9/24", "dev", "up1")
    run("ip", "route", "add", "10.65.0.1/32", "dev", "rtweb", "proto", "82")
    run("ip", "nexthop", "add", "id", "11", "via", str(A), "dev", "up0")
    run("ip", "nexthop", "add", "id", "12", "via", str(B), "dev", "up1")
    run("ip", "nexthop", "add", "id", "20", "group", "11/12")
    run("ip", "route", "add", "10.65.1.0/26", "nhid", "20", "proto", "82", "metric", "5")
    run("ip", "route", "add", "10.65.2.0/26", "via", str(B), "proto", "static")
    run("ip", "route", "add", "blackhole", "10.65.0.0/26", "proto", "82")
    run("ip", "route", "add", "unreachable", "10.65.3.0/26")
    run("ip", "-6", "route", "add", "blackhole", "fd00:65::/122", "proto", "82")
    run("ip", "-6", "route", "add", "fd00:66::/64", "nexthop", "via", "fd00:0::1",
        "nexthop", "via", "fd00:1::1")  # fmt: skip


def test_ways_out_and_ways_that_are_none() -> None:
    async def body() -> None:
        make()
        both = ((A, "up0"), (B, "up1"))

        def found(text: str) -> Way:
            return ways.way(ip_address(text))

        assert found("10.65.1.7") == Way(ip_network("10.65.1.0/26"), "unicast", "routed", 5, both)
        one = Way(ip_network("10.65.2.0/26"), "unicast", "static", 0, ((B, "up1"),))
        assert found("10.65.2.7") == one
        host = Way(ip_network("10.65.0.1/32"), "unicast", "routed", 0, ((None, "rtweb"),))
        assert found("10.65.0.1") == host
        assert found("10.65.0.2").kind == "blackhole"
        assert found("10.65.3.2").kind == "unreachable"
        assert found("203.0.113.1") == Way()
        assert found("192.0.2.9").kind == "local"
        assert found("fd00:65::7").kind == "blackhole"
        gateways = {str(gateway) for gateway, _ in found("fd00:66::7").hops}
        assert gateways == {"fd00::1", "fd00:1::1"}
        assert found("fd00:99::1") == Way()

    in_fresh_namespace(body)


def test_of_what_a_workload_sends_rules_count() -> None:
    async def body() -> None:
        make()
        run("ip", "route", "add", "10.65.2.0/26", "via", str(A), "table", "77")
        run("ip", "rule", "add", "iif", "rtweb", "lookup", "77", "priority", "100")
        web, there = ip_address("10.65.0.1"), ip_address("10.65.2.7")
        assert ways.way(there, web, "rtweb").hops == ((A, "up0"),)
        assert ways.way(there).hops == ((B, "up1"),)
        assert ways.way(there, web, "gone").hops == ((B, "up1"),)
        stranger = ip_address("10.99.0.1")  # of whom the kernel takes nothing by that link
        run("sysctl", "-qw", "net.ipv4.conf.rtweb.rp_filter=1")
        assert ways.way(there, stranger, "rtweb").hops == ((B, "up1"),)

    in_fresh_namespace(body)


def test_where_no_socket_can_be_had_that_is_an_error_of_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anything else would end the agent that was asked."""

    def full() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(ways, "Netlink", full)
    with pytest.raises(ApplyError) as found:
        ways.way(A)
    assert found.value.errno == errno.EMFILE
