"""docs/policy.md, "HostEndpoints: the host itself", sentence by sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.declared import packet, policies, world

from policies.failsafe import failsafe
from policies.reference import By, Decision, Packet, Passed, Verdict, World, judge

OBJECTS = """
kind: Node
metadata: {name: h1}
spec: {addresses: [172.16.0.1]}
status: {addresses: [{address: 172.16.0.1, interface: tor1, method: first-found}]}
---
kind: Node
metadata: {name: h2}
spec: {addresses: [172.16.0.2]}
---
kind: Workload
metadata: {name: web, labels: {app: web}}
spec: {node: h1}
status: {addresses: [10.0.0.1]}
---
kind: Workload
metadata: {name: fast, labels: {app: fast}}
spec: {node: h1, mode: ipvlan-l3, netns: fast}
status: {addresses: [10.0.0.4]}
---
kind: Workload
metadata: {name: daemon, labels: {app: daemon}}
spec: {node: h1, mode: host}
status: {addresses: [10.0.0.8]}
---
kind: Workload
metadata: {name: db, labels: {app: db}}
spec: {node: h2}
status: {addresses: [10.0.0.2]}
"""
EDGE = "{metadata: {name: edge, labels: {role: edge}}, spec: {node: h1, interfaceName: tor1}}"
BY_ADDRESS = (
    "{metadata: {name: edge, labels: {role: edge}}, spec: {node: h1, expectedIPs: [172.16.0.1]}}"
)
ANY = "{metadata: {name: all, labels: {role: any}}, spec: {node: h1, interfaceName: '*'}}"
TOR2 = "{metadata: {name: second, labels: {role: second}}, spec: {node: h1, interfaceName: tor2}}"
WEB, DB, FAST, OUT, DAEMON = "10.0.0.1", "10.0.0.2", "10.0.0.4", "203.0.113.7", "10.0.0.8"
HOST, OTHER = "172.16.0.1", "172.16.0.2"
SHUT = "selector: role == 'edge', types: [Ingress, Egress]"
FORWARD = f"{SHUT}, applyOnForward: true"


def made(*specs: str, ends: tuple[str, ...] = (EDGE,), default: str = "Allow") -> World:
    hosts = "".join(f"---\n{{kind: HostEndpoint, {end[1:]}\n" for end in ends)
    return replace(world(f"{OBJECTS}{hosts}{policies(*specs)}"), default=default)  # type: ignore[arg-type]


def only(held: World, sent: Packet) -> Passed:
    (one,) = judge(held, sent).hosts
    return one


@pytest.mark.parametrize("default", ["Allow", "Deny"])
def test_what_no_policy_selects_is_allowed_whatever_the_default_is(default: str) -> None:
    held = made(default=default)
    assert judge(held, packet(OUT, HOST)).verdict is Verdict.ALLOW
    ingress = made("selector: role == 'edge', ingress: [{action: Deny}]", default=default)
    assert judge(ingress, packet(OUT, HOST)).verdict is Verdict.DENY
    assert judge(ingress, packet(HOST, OUT)).verdict is Verdict.ALLOW


def test_its_processes_get_and_send_what_policies_allow() -> None:
    held = made(SHUT)
    assert only(held, packet(OUT, HOST)) == Passed(
        "h1", "edge", "Ingress", False, Decision(Verdict.DENY, By.TIER, "default")
    )
    assert only(held, packet(HOST, OUT)).direction == "Egress"
    assert judge(held, packet(OUT, DAEMON)).verdict is Verdict.DENY, "mode host is the host's"
    assert judge(held, packet(OUT, OTHER)).decision is None, "another host"
    assert judge(held, packet(OTHER, HOST)).verdict is Verdict.DENY


def test_what_stays_on_the_host_passes_no_interface_of_it() -> None:
    held = made(SHUT, ends=(ANY, EDGE))
    assert judge(held, packet(HOST, HOST)).hosts == ()
    assert judge(held, packet(HOST, WEB)).ingress == Decision(Verdict.ALLOW, By.HOST)
    assert judge(held, packet(WEB, HOST, "ICMP/8.0")).hosts == ()
    assert judge(held, packet(WEB, HOST, "ICMP/8.0")).verdict is Verdict.ALLOW


def test_the_interface_is_that_which_is_named_or_has_an_address_or_is_any() -> None:
    for ends, arrives, name in (
        ((EDGE, ANY), "tor1", "edge"),
        ((EDGE, ANY), "tor2", "all"),
        ((BY_ADDRESS, ANY), "tor1", "edge"),
        ((BY_ADDRESS, ANY), "tor2", "all"),
        ((EDGE, TOR2), "tor2", "second"),
        ((EDGE,), "tor2", ""),
        ((ANY,), "lo", ""),
        ((EDGE.replace("name: edge", "name: z"), EDGE), "tor1", "edge"),
    ):
        held = made("types: [Ingress]", ends=ends)
        found = judge(held, replace(packet(OUT, HOST), arrives=arrives)).hosts
        assert [one.endpoint for one in found] == ([name] if name else []), (ends, arrives)


def test_where_the_interface_is_not_known_what_denies_it_at_any_is_told() -> None:
    held = made("selector: role == 'second'", ends=(EDGE, TOR2))
    assert only(held, packet(OUT, HOST)).endpoint == "second"
    assert judge(held, replace(packet(OUT, HOST), arrives="tor1")).verdict is Verdict.ALLOW


def test_failsafe_ports_are_for_the_host_and_not_for_what_it_forwards() -> None:
    held = replace(made(FORWARD), failsafe=failsafe(["9/tcp"], ["7/udp"]))
    assert only(held, packet(OUT, HOST, "TCP/9")).decision == Decision(Verdict.ALLOW, By.FAILSAFE)
    assert only(held, packet(HOST, OUT, "UDP/7")).decision == Decision(Verdict.ALLOW, By.FAILSAFE)
    assert judge(held, packet(OUT, HOST, "UDP/7")).verdict is Verdict.DENY
    assert judge(held, packet(OUT, HOST, "UDP/9")).verdict is Verdict.DENY
    assert judge(held, packet(OUT, HOST, "TCP/22")).verdict is Verdict.DENY
    assert judge(held, packet(OUT, WEB, "TCP/9")).verdict is Verdict.DENY
    for sent in (packet(OUT, HOST, "TCP/179"), packet(HOST, OUT, "UDP/3784")):
        assert judge(held, sent).verdict is Verdict.ALLOW, "no list is without these"


def test_path_mtu_passes() -> None:
    held = made(SHUT)
    found = only(held, packet(OUT, HOST, "ICMP/3.4"))
    assert found.decision == Decision(Verdict.ALLOW, By.NEEDED)
    assert judge(held, packet(OUT, HOST, "ICMP/3.1")).verdict is Verdict.DENY


def test_what_is_forwarded_is_judged_by_policies_that_say_so() -> None:
    assert judge(made(SHUT), packet(OUT, WEB)).verdict is Verdict.ALLOW
    held = made(FORWARD)
    assert only(held, packet(OUT, WEB)).forwarded
    assert only(held, packet(WEB, OUT)).direction == "Egress"
    assert judge(held, packet(OUT, FAST)).decision == Decision(Verdict.ALLOW, By.MODE), (
        "ipvlan goes past the host"
    )
    through = replace(packet(OUT, "198.51.100.1"), through="h1")
    assert [one.direction for one in judge(held, through).hosts] == ["Ingress", "Egress"]


def test_policies_without_it_and_their_tiers_are_left_out_of_that_walk() -> None:
    held = made(
        "selector: role == 'edge', order: 1, ingress: [{action: Deny}]",
        "selector: role == 'edge', order: 2, applyOnForward: true, ingress: [{action: Allow}]",
    )
    assert judge(held, packet(OUT, HOST)).verdict is Verdict.DENY
    assert judge(held, packet(OUT, WEB)).verdict is Verdict.ALLOW


def test_the_workloads_policies_are_asked_as_well() -> None:
    allow = "selector: role == 'edge', applyOnForward: true, ingress: [{action: Allow}]"
    held = made(allow, "selector: app == 'web', ingress: [{action: Deny, reject: true}]")
    found = judge(held, packet(OUT, WEB))
    assert (found.hosts[0].decision.verdict, found.verdict) == (Verdict.ALLOW, Verdict.REJECT)


def test_between_two_hosts_both_are_asked() -> None:
    other = "{metadata: {name: far, labels: {role: edge}}, spec: {node: h2, interfaceName: '*'}}"
    held = made(SHUT, ends=(EDGE, other))
    found = judge(held, packet(HOST, OTHER)).hosts
    assert [(one.endpoint, one.direction) for one in found] == [
        ("edge", "Egress"),
        ("far", "Ingress"),
    ]
    held = made(FORWARD, ends=(EDGE, other))
    found = judge(held, packet(WEB, DB)).hosts
    assert [(one.endpoint, one.forwarded) for one in found] == [("edge", True), ("far", True)]


def test_a_staged_policy_decides_nothing_and_what_it_would_deny_is_told() -> None:
    held = made("selector: role == 'edge', staged: true, types: [Ingress]", default="Deny")
    found = only(held, packet(OUT, HOST))
    assert found.decision == Decision(Verdict.ALLOW, By.UNSELECTED)
    assert found.staged == Decision(Verdict.DENY, By.TIER, "default")
    assert only(held, packet(OUT, HOST, "TCP/22")).staged is None
