"""docs/policy.md, "What is judged, and what is not": hosts, translated addresses, modes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.declared import packet, policies, world

from policies.reference import By, Decision, Verdict, World, judge

OBJECTS = """
kind: Node
metadata: {name: h1}
spec: {addresses: [172.16.0.1]}
status: {addresses: [{address: "2001:db8::1"}]}
---
kind: Node
metadata: {name: h2}
spec: {addresses: [172.16.0.2]}
---
kind: Workload
metadata: {name: broken, labels: {app: broken}}
spec: {node: h2}
status: {phase: Failed, addresses: [10.0.0.1]}
---
kind: Workload
metadata: {name: web, labels: {app: web}}
spec: {node: h1, ports: [{name: http, port: 80, hostPort: 8080}]}
status: {addresses: [10.0.0.1, "fd00::1"]}
---
kind: Workload
metadata: {name: gone, labels: {app: gone}}
spec: {node: h1, mode: host}
status: {phase: Failed, addresses: [10.0.0.7]}
---
kind: Workload
metadata: {name: db, labels: {app: db}}
spec: {node: h2}
status: {addresses: [10.0.0.2]}
---
kind: Workload
metadata: {name: vm, labels: {app: vm}}
spec: {node: h1, mode: tap}
status: {addresses: [10.0.0.3]}
---
kind: Workload
metadata: {name: fast, labels: {app: fast}}
spec: {node: h1, mode: ipvlan-l3, netns: fast}
status: {addresses: [10.0.0.4]}
---
kind: Workload
metadata: {name: fast-s, labels: {app: fast}}
spec: {node: h1, mode: ipvlan-l3s, netns: fast-s}
status: {addresses: [10.0.0.5]}
---
kind: Workload
metadata: {name: daemon, labels: {app: daemon}}
spec: {node: h1, mode: host}
status: {addresses: [10.0.0.8]}
---
kind: Workload
metadata: {name: sidecar, labels: {app: sidecar}}
spec: {node: h1, mode: shared, sharedWith: web}
---
kind: HostEndpoint
metadata: {name: h1, labels: {role: host}}
spec: {node: h1, expectedIPs: [198.51.100.1]}
"""
WEB, DB, VM, OUT = "10.0.0.1", "10.0.0.2", "10.0.0.3", "203.0.113.7"
HOST, HOST6, OTHER_HOST = "172.16.0.1", "2001:db8::1", "172.16.0.2"
DENY_ALL = "types: [Ingress, Egress]"


def made(*specs: str) -> World:
    return world(OBJECTS + policies(*specs))


def test_the_host_to_its_own_workloads_is_always_allowed() -> None:
    held = made(DENY_ALL)
    for source in (HOST, "10.0.0.8", "198.51.100.1", "169.254.1.1"):
        found = judge(held, packet(source, WEB))
        assert found.decision == Decision(Verdict.ALLOW, By.HOST), source
    assert judge(held, packet(HOST6, "fd00::1")).decision == Decision(Verdict.ALLOW, By.HOST)


def test_another_host_is_outside() -> None:
    held = made(DENY_ALL)
    assert judge(held, packet(OTHER_HOST, WEB)).verdict is Verdict.DENY
    for source in (HOST, "10.0.0.8", "198.51.100.1"):
        assert judge(held, packet(source, DB)).verdict is Verdict.DENY, source
    allowed = made("ingress: [{action: Allow, source: {nets: [172.16.0.2/32]}}]")
    assert judge(allowed, packet(OTHER_HOST, WEB)).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("destination", "what", "verdict"),
    [
        (HOST, "TCP/22", Verdict.DENY),
        (HOST, "UDP/53", Verdict.DENY),
        (HOST, "ICMP/8", Verdict.ALLOW),
        (HOST, "ICMP/13", Verdict.DENY),
        (HOST6, "ICMPv6/128", Verdict.ALLOW),
        (HOST6, "ICMPv6/8", Verdict.DENY),
        (HOST6, "TCP/22", Verdict.DENY),
        ("169.254.1.1", "TCP/80", Verdict.DENY),
        ("169.254.1.1", "ICMP/8", Verdict.ALLOW),
        ("fe80::1", "TCP/80", Verdict.DENY),
        ("255.255.255.255", "UDP/67", Verdict.DENY),
        ("224.0.0.251", "UDP/5353", Verdict.DENY),
        ("ff02::fb", "UDP/5353", Verdict.DENY),
        ("10.0.0.8", "TCP/80", Verdict.DENY),
        ("198.51.100.1", "TCP/80", Verdict.DENY),
    ],
)
def test_a_workload_to_its_own_host_has_an_allow_list(
    destination: str, what: str, verdict: Verdict
) -> None:
    source = "fd00::1" if ":" in destination else WEB
    found = judge(made(), packet(source, destination, what))
    assert found.own_host == Decision(verdict, By.OWN_HOST)
    assert found.verdict is verdict


def test_the_egress_of_the_workload_comes_before_the_allow_list() -> None:
    deny = made("egress: [{action: Deny, protocol: ICMP}]")
    found = judge(deny, packet(WEB, HOST, "ICMP/8"))
    assert found.decision == Decision(Verdict.DENY, By.RULE, "default", "p0", 0)


def test_no_policy_widens_the_allow_list() -> None:
    allow = made("egress: [{action: Allow}]")
    assert judge(allow, packet(WEB, HOST, "TCP/22")).decision == Decision(Verdict.DENY, By.OWN_HOST)


def test_the_allow_list_is_of_the_own_host_only() -> None:
    found = judge(made(), packet(WEB, OTHER_HOST, "TCP/22"))
    assert found.own_host is None
    assert found.verdict is Verdict.ALLOW


@pytest.mark.parametrize("kind", [133, 135, 136])
def test_neighbour_discovery_with_the_own_host_is_judged_by_nobody(kind: int) -> None:
    held = made(DENY_ALL)
    for destination in ("fe80::1", HOST6, "ff02::1:ff00:1"):
        found = judge(held, packet("fd00::1", destination, f"ICMPv6/{kind}"))
        assert found.decision == Decision(Verdict.ALLOW, By.DISCOVERY)
    link_local = packet("fe80::2", "fe80::1", f"ICMPv6/{kind}", sender="web")
    assert judge(held, link_local).decision == Decision(Verdict.ALLOW, By.DISCOVERY)


def test_all_else_of_icmpv6_is_judged() -> None:
    held = made(DENY_ALL)
    for kind in (128, 130, 134, 137, 143):
        found = judge(held, packet("fd00::1", "fe80::1", f"ICMPv6/{kind}"))
        assert found.verdict is Verdict.DENY, kind
    far = judge(held, packet("fd00::1", "2001:db9::1", "ICMPv6/135"))
    assert far.verdict is Verdict.DENY, "it is not for the own host"


def test_a_link_local_sender_is_told_by_name() -> None:
    held = made("selector: app == 'web', egress: [{action: Deny}]")
    assert judge(held, packet("fe80::2", "fe80::1", "TCP/80", sender="web")).decision == Decision(
        Verdict.DENY, By.RULE, "default", "p0", 0
    )


def test_a_mapped_port_is_judged_as_the_port_behind_it() -> None:
    held = made(
        "selector: app == 'web', ingress: [{action: Allow, protocol: TCP, "
        "source: {notSelector: app == 'db'}, destination: {ports: [http]}}]"
    )
    assert judge(held, packet(OUT, WEB, "TCP/80")).verdict is Verdict.ALLOW
    assert judge(held, packet(DB, WEB, "TCP/80")).verdict is Verdict.DENY
    assert judge(held, packet(OUT, WEB, "TCP/8080")).verdict is Verdict.DENY


def test_of_another_host_the_sender_sees_the_mapped_port() -> None:
    held = made(
        "selector: app == 'db', egress: [{action: Allow, protocol: TCP, "
        "destination: {nets: [172.16.0.1/32], ports: [8080]}}]"
    )
    assert judge(held, packet(DB, HOST, "TCP/8080")).verdict is Verdict.ALLOW
    assert judge(held, packet(DB, WEB, "TCP/80")).verdict is Verdict.DENY


@pytest.mark.parametrize("spec", ["egress: [{action: Deny}]", "ingress: [{action: Deny}]"])
def test_a_hairpin_is_judged_by_both_ends_of_the_one_workload(spec: str) -> None:
    found = judge(made(f"selector: app == 'web', {spec}"), packet(WEB, WEB, "TCP/80"))
    assert found.verdict is Verdict.DENY
    assert found.own_host is None


def test_a_tap_is_as_veth() -> None:
    held = made(DENY_ALL)
    assert judge(held, packet(OUT, VM)).verdict is Verdict.DENY
    assert judge(held, packet(VM, OUT)).verdict is Verdict.DENY
    assert judge(made(), packet(VM, HOST, "TCP/22")).verdict is Verdict.DENY


def test_ipvlan_l3_cannot_be_enforced() -> None:
    address = "10.0.0.4"
    held = made(DENY_ALL, "staged: true, ingress: [{action: Deny}]")
    into, out = judge(held, packet(OUT, address)), judge(held, packet(address, OUT))
    assert into.ingress == out.egress == Decision(Verdict.ALLOW, By.MODE)
    assert into.staged_ingress is None
    assert judge(held, packet(address, HOST, "TCP/22")).verdict is Verdict.DENY, "its own host is"
    assert judge(held, packet(address, HOST, "ICMP/8.0")).verdict is Verdict.ALLOW
    assert judge(held, packet(address, WEB)).verdict is Verdict.DENY, "the other end does"
    by_labels = made("selector: app == 'web', ingress: [{action: Allow, "
                     "source: {selector: app == 'fast'}}]")  # fmt: skip
    assert judge(by_labels, packet(address, WEB)).verdict is Verdict.ALLOW


def test_ipvlan_l3s_is_enforced_but_for_neighbours() -> None:
    address, beside = "10.0.0.5", "10.0.0.4"
    held = made(DENY_ALL)
    for sent in (packet(OUT, address), packet(address, OUT), packet(address, WEB)):
        assert judge(held, sent).verdict is Verdict.DENY
    assert judge(held, packet(HOST, address)).decision == Decision(Verdict.ALLOW, By.HOST)
    allowed = made()
    assert judge(allowed, packet(address, HOST, "ICMP/8.0")).verdict is Verdict.ALLOW
    assert judge(allowed, packet(address, HOST, "TCP/22")).decision == Decision(
        Verdict.DENY, By.OWN_HOST
    )
    for sent in (packet(address, beside), packet(beside, address)):
        found = judge(held, sent)
        assert found.egress == found.ingress == Decision(Verdict.ALLOW, By.MODE)
    parents = [
        one.model_copy(
            update={"status": one.status.model_copy(update={"host_interface": f"rtv{number}"})}
        )
        for number, one in enumerate(held.workloads)
    ]
    apart = replace(held, workloads=tuple(parents))
    assert judge(apart, packet(beside, address)).verdict is Verdict.DENY, "the receiver says so"


def test_mode_host_is_no_endpoint() -> None:
    held = made("selector: app == 'daemon', types: [Ingress, Egress]")
    assert judge(held, packet(OUT, "10.0.0.8")).decision is None
    assert judge(held, packet("10.0.0.8", OUT)).decision is None


def test_who_has_failed_is_no_endpoint() -> None:
    held = made("selector: app == 'broken'", "selector: app == 'gone'")
    assert judge(held, packet(OUT, WEB)).verdict is Verdict.ALLOW, "it is web's"
    assert judge(made(DENY_ALL), packet("10.0.0.7", WEB)).verdict is Verdict.DENY, "no host"


def test_mode_shared_is_its_holder() -> None:
    held = made("selector: app == 'sidecar', types: [Ingress]")
    assert judge(held, packet(OUT, WEB)).verdict is Verdict.ALLOW


def test_hosts_are_members_by_the_labels_of_their_endpoints() -> None:
    held = made("selector: app == 'db', ingress: [{action: Allow, "
                "source: {selector: role == 'host'}}]")  # fmt: skip
    assert judge(held, packet("198.51.100.1", DB)).verdict is Verdict.ALLOW
    assert judge(held, packet(HOST, DB)).verdict is Verdict.DENY
