"""Which addresses are the host's own, from what the kernel has."""

from __future__ import annotations

import random
import re
from ipaddress import ip_address, ip_network

import pytest

from routed.addressing import By, Held, Interface, Method, choose, declared


def interface(name: str, *addresses: str, **more: object) -> Interface:
    held = tuple(Held(ip_address(one)) for one in addresses)
    return Interface(name, bool(more.pop("up", True)), held, **more)  # type: ignore[arg-type]


POOLS = [ip_network("10.65.0.0/16"), ip_network("fd65::/48")]
HOST = [
    interface("tor10", "172.31.10.11"),
    interface("tor2", "172.31.2.11", "2001:db8:2::11", "fe80::2"),
    interface("mgmt", "192.0.2.11", kind="veth"),
    interface("docker0", "172.17.0.1", kind="bridge"),
    interface("br-0123456789ab", "172.18.0.1", kind="bridge"),
    interface("br0", "198.51.100.7", kind="bridge"),
    interface("cni-podman0", "10.88.0.1", kind="bridge"),
    interface("virbr0", "192.168.122.1", kind="bridge"),
    interface("aa", "203.0.113.1", vrf=True),
    interface("vrf-blue", "203.0.113.2", kind="vrf", vrf=True),
    interface("rt0123456789ab", "10.65.0.9", ours=True),
    interface("a0", "203.0.113.9", up=False),
    interface("lo", "10.65.0.1", "192.0.2.200", "fd65::1", "2001:db8::1", "127.0.0.1", "::1"),
]


@pytest.mark.parametrize(
    ("method", "sources", "expected"),
    [
        ("first-found", [], ["198.51.100.7 br0"]),
        ("interface=tor.*", [], ["172.31.2.11 tor2", "2001:db8:2::11 tor2"]),
        ("interface=tor10", [], ["172.31.10.11 tor10"]),
        ("interface=tor", [], []),
        ("interface=tor10,mgmt", [], ["192.0.2.11 mgmt"]),
        ("interface=lo", [], ["192.0.2.200 lo", "2001:db8::1 lo"]),
        ("interface=docker0", [], []),
        ("interface=br-.*,cni.*,virbr0", [], []),
        ("interface=aa,vrf.*", [], []),
        ("interface=rt.*,a0", [], []),
        ("skip-interface=br0", [], ["192.0.2.11 mgmt", "2001:db8:2::11 tor2"]),
        ("skip-interface=br0,mgmt", [], ["172.31.2.11 tor2", "2001:db8:2::11 tor2"]),
        ("skip-interface=.*", [], []),
        ("cidr=172.31.0.0/16", [], ["172.31.2.11 tor2"]),
        ("cidr=172.31.10.0/24,2001:db8:2::/64", [], ["172.31.10.11 tor10", "2001:db8:2::11 tor2"]),
        ("cidr=10.65.0.0/16", [], []),
        ("cidr=172.17.0.0/16,203.0.113.0/24", [], []),
        ("cidr=127.0.0.0/8", [], []),
        ("can-reach=198.51.100.1", ["172.31.10.11"], ["172.31.10.11 tor10"]),
        ("can-reach=host.example", ["172.31.2.11"], ["172.31.2.11 tor2", "2001:db8:2::11 tor2"]),
        ("can-reach=2001:db8::", ["2001:db8:2::11"], ["172.31.2.11 tor2", "2001:db8:2::11 tor2"]),
        ("can-reach=198.51.100.1", ["10.65.0.1"], []),
        ("can-reach=198.51.100.1", [], []),
        ("can-reach=198.51.100.1", ["192.0.2.200"], ["192.0.2.200 lo", "2001:db8::1 lo"]),
        ("control-plane", ["192.0.2.11"], ["192.0.2.11 mgmt"]),
        ("control-plane", ["127.0.0.1"], ["198.51.100.7 br0"]),
        ("control-plane", ["203.0.113.1"], ["198.51.100.7 br0"]),
    ],
)
def test_methods(method: str, sources: list[str], expected: list[str]) -> None:
    found = None
    for seed in range(20):
        order = random.Random(seed)  # noqa: S311 - no secret
        shuffled = order.sample(HOST, len(HOST))
        chosen = choose(Method.parse(method), shuffled, [ip_address(s) for s in sources], POOLS)
        assert found in (None, chosen), "the order of what is read decides nothing"
        found = chosen
    assert found is not None
    shown = [f"{one.address} {one.interface}" for one in found]
    if method == "first-found" or (method == "control-plane" and sources != ["192.0.2.11"]):
        assert "2001:db8:2::11 tor2" in shown, "each family for itself"
        shown.remove("2001:db8:2::11 tor2")
        assert {one.method for one in found} == {"first-found"}
    else:
        assert {one.method for one in found} <= {method}
    assert shown == expected


def test_of_one_interface_the_primary_and_lasting_counts() -> None:
    held = (
        Held(ip_address("192.0.2.1"), secondary=True),
        Held(ip_address("192.0.2.9")),
        Held(ip_address("2001:db8::1"), secondary=True),
        Held(ip_address("2001:db8::2"), usable=False),
        Held(ip_address("2001:db8::9")),
    )
    found = choose(Method.parse("first-found"), [Interface("up0", True, held)])
    assert [str(one.address) for one in found] == ["192.0.2.9", "2001:db8::9"]


def test_listed_ones_are_shown_with_the_interface_that_has_them() -> None:
    found = declared([ip_address("192.0.2.11"), ip_address("192.0.2.99")], HOST)
    assert [(one.interface, one.method) for one in found] == [
        ("mgmt", "addresses"),
        ("", "addresses"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("first", "'first' is no method; there are control-plane, can-reach=..., interface=..., "),
        ("interface", "interface needs something after ="),
        ("interface=", "interface needs something after ="),
        ("interface=eth0,,eth1", "interface: nothing between two commas"),
        ("interface=(", "interface: '(' is no regular expression: "),
        ("skip-interface=[", "skip-interface: '[' is no regular expression: "),
        ("first-found=x", "first-found takes nothing after it"),
        ("cidr=192.0.2.1/24", "192.0.2.1/24 has host bits set"),
        ("cidr=nonsense", "'nonsense' does not appear to be an IPv4 or IPv6 network"),
        ("can-reach=", "can-reach needs something after ="),
        ("", "'' is no method"),
    ],
)
def test_what_is_no_method_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        Method.parse(text)


def test_every_method_can_be_written() -> None:
    arguments = {By.CIDR: "192.0.2.0/24", By.CONTROL_PLANE: "", By.FIRST_FOUND: ""}
    for by in By:
        argument = arguments.get(by, "x")
        assert Method.parse(f"{by}={argument}" if argument else by).by is by
