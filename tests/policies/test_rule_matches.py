"""What each field of a rule becomes in nftables."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from api.resources.policy import Rule
from policies.compile import names
from policies.compile.matches import matches, unknown
from policies.model import Members, Membership

WEB, SETS = "app == 'web'", "list == 'x'"
KNOWN = Membership(
    {
        WEB: Members(frozenset([ip_address("10.0.0.1")])),
        SETS: Members(nets=frozenset([ip_network("198.51.100.0/24")])),
    },
    {("http", ""): frozenset(), ("http", WEB): frozenset()},
)
W4, W6 = names.selector(WEB, 4), names.selector(WEB, 6)
S4, S6, N4 = names.selector(SETS, 4), names.selector(SETS, 6), names.nets(SETS, 4)
P4, P6 = names.named(("http", ""), 4), names.named(("http", ""), 6)
PW4 = names.named(("http", WEB), 4)
V4, V6 = "meta nfproto ipv4", "meta nfproto ipv6"
TCP = "meta l4proto 6"


def found(exclusive: bool = False, /, **fields: Any) -> list[str]:
    rule = Rule.model_validate({"action": "Allow", **fields})
    return matches(rule, KNOWN, exclusive=exclusive)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, [""]),
        ({"ipVersion": 4}, [V4]),
        ({"protocol": "TCP"}, [TCP]),
        ({"protocol": 132}, ["meta l4proto 132"]),
        ({"protocol": "ICMP"}, [f"{V4} meta l4proto 1"]),
        ({"protocol": 1}, ["meta nfproto ipv4 meta l4proto 1"]),
        ({"protocol": "ICMPv6"}, [f"{V6} meta l4proto 58"]),
        ({"notProtocol": "ICMP"}, ["meta l4proto != 1"]),
        ({"protocol": "TCP", "notProtocol": "UDP"}, [TCP]),
        ({"protocol": "TCP", "notProtocol": 6}, []),
        (
            {"protocol": "ICMP", "icmp": {"type": 8, "code": 0}},
            [f"{V4} meta l4proto 1 icmp type 8 icmp code 0"],
        ),
        (
            {"protocol": "ICMPv6", "notICMP": {"type": 128}},
            [f"{V6} meta l4proto 58 icmpv6 type != 128"],
        ),
        (
            {"protocol": "ICMP", "notICMP": {"type": 3, "code": 4}},
            [
                f"{V4} meta l4proto 1 icmp type != 3",
                f"{V4} meta l4proto 1 icmp type 3 icmp code != 4",
            ],
        ),
    ],
)
def test_families_and_protocols(fields: dict[str, Any], wanted: list[str]) -> None:
    assert found(**fields) == wanted


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        ({"nets": ["10.0.0.0/8"]}, [f"{V4} ip saddr 10.0.0.0/8"]),
        (
            {"nets": ["10.1.0.0/16", "10.0.0.0/16", "10.0.3.0/24", "fd00::/8"]},
            [f"{V4} ip saddr 10.0.0.0/15", f"{V6} ip6 saddr fd00::/8"],
        ),
        (
            {"nets": ["10.0.0.0/8", "192.0.2.0/24"]},
            [f"{V4} ip saddr {{ 10.0.0.0/8, 192.0.2.0/24 }}"],
        ),
        ({"nets": ["0.0.0.0/0"]}, [V4]),
        ({"notNets": ["0.0.0.0/0"]}, [V6]),
        ({"notNets": ["10.0.0.0/8"]}, [f"{V4} ip saddr != 10.0.0.0/8", V6]),
        ({"selector": WEB}, [f"{V4} ip saddr @{W4}", f"{V6} ip6 saddr @{W6}"]),
        (
            {"selector": SETS},
            [f"{V4} ip saddr @{S4}", f"{V4} ip saddr @{N4}", f"{V6} ip6 saddr @{S6}"],
        ),
        (
            {"notSelector": SETS},
            [f"{V4} ip saddr != @{S4} ip saddr != @{N4}", f"{V6} ip6 saddr != @{S6}"],
        ),
    ],
)
def test_addresses(end: dict[str, Any], wanted: list[str]) -> None:
    assert found(source=end) == wanted


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        ({"ports": [80]}, [f"{TCP} th dport 80"]),
        ({"ports": ["1:65535"]}, [f"{TCP} th dport 1-65535"]),
        ({"ports": [82, "80:81", 90, 90]}, [f"{TCP} th dport {{ 80-82, 90 }}"]),
        ({"notPorts": [80, 90]}, [f"{TCP} th dport != {{ 80, 90 }}"]),
        (
            {"ports": ["http"]},
            [
                f"{V4} {TCP} ip daddr . meta l4proto . th dport @{P4}",
                f"{V6} {TCP} ip6 daddr . meta l4proto . th dport @{P6}",
            ],
        ),
        (
            {"ports": [80, "http"], "nets": ["10.0.0.0/8"]},
            [
                f"{V4} {TCP} ip daddr 10.0.0.0/8 th dport 80",
                f"{V4} {TCP} ip daddr 10.0.0.0/8 ip daddr . meta l4proto . th dport @{P4}",
            ],
        ),
        (
            {"notPorts": [80, "http"], "selector": WEB, "nets": ["10.0.0.0/8"]},
            [
                f"{V4} {TCP} th dport != 80 ip daddr 10.0.0.0/8 ip daddr @{W4} "
                f"ip daddr . meta l4proto . th dport != @{PW4}"
            ],
        ),
    ],
)
def test_ports(end: dict[str, Any], wanted: list[str]) -> None:
    assert found(protocol="TCP", destination=end) == wanted


def test_alternatives_of_what_is_not_the_last_word_fit_one_packet_once() -> None:
    assert found(True, ipVersion=4, source={"selector": SETS}) == [
        f"{V4} ip saddr @{S4}",
        f"{V4} ip saddr != @{S4} ip saddr @{N4}",
    ]
    named = f"ip daddr . meta l4proto . th dport @{P4}"
    assert found(True, ipVersion=4, protocol="TCP", destination={"ports": [80, "http"]}) == [
        f"{V4} {TCP} th dport 80",
        f"{V4} {TCP} th dport != 80 {named}",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": {"selector": "never == 'x'"}},
        {"source": {"notSelector": "other == 'y'"}},
        {"protocol": "TCP", "destination": {"ports": [80, "ssh"]}},
        {"protocol": "TCP", "destination": {"notPorts": ["http"], "selector": SETS}},
    ],
)
def test_a_part_whose_members_were_never_told_is_taken_for_true(fields: dict[str, Any]) -> None:
    rule = Rule.model_validate({"action": "Deny", **fields})
    assert unknown(rule, KNOWN)
    (one, *rest) = matches(rule, KNOWN)
    assert "never" not in one
    assert "80" not in one
    assert bool(rest) is ("selector" in fields.get("destination", {}))


@pytest.mark.parametrize("protocol", [None, 47, "ICMP"])
@pytest.mark.parametrize("port", [80, "http"])
def test_ports_of_what_has_none_are_taken_for_true_too(protocol: int | None, port: Any) -> None:
    """The service refuses such a rule; nft 1.0.6 ends when it lists a named port of GRE."""
    rule = Rule.model_validate(
        {"action": "Deny", "protocol": protocol, "destination": {"ports": [port]}}
    )
    assert unknown(rule, KNOWN)
    assert not any("th " in match for match in matches(rule, KNOWN))
