"""docs/policy.md, "When a rule fits": each field of a rule, of what it is true and of what not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from support.declared import packet, world

from api.resources.policy import Rule
from policies.reference_rules import fits, member

WORLD = world("""
kind: Workload
metadata: {name: web, labels: {app: web}}
spec: {node: h1, ports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 53}]}
status: {addresses: [10.0.0.1, "fd00::1"]}
---
kind: Workload
metadata: {name: db, labels: {app: db}}
spec: {node: h2, ports: [{name: http, port: 9090}]}
status: {addresses: [10.0.0.2]}
---
kind: Workload
metadata: {name: sidecar, labels: {app: sidecar}}
spec: {node: h1, mode: shared, sharedWith: web, ports: [{name: side, port: 7}]}
status: {addresses: [10.0.0.1]}
---
kind: Workload
metadata: {name: daemon, labels: {app: daemon}}
spec: {node: h1, mode: host}
status: {addresses: [10.0.0.8]}
---
kind: Workload
metadata: {name: broken, labels: {app: broken}}
spec: {node: h1, ports: [{name: broken, port: 8}]}
status: {phase: Failed, addresses: [10.0.0.2]}
---
kind: NetworkSet
metadata: {name: office, labels: {site: office}}
spec: {nets: [192.0.2.0/24, "2001:db8::/32"]}
---
kind: HostEndpoint
metadata: {name: h1, labels: {role: host}}
spec: {node: h1, interfaceName: "*", expectedIPs: [172.16.0.1], ports: [{name: ssh, port: 22}]}
""")
WEB, WEB6, DB, OUT, OUT6 = "10.0.0.1", "fd00::1", "10.0.0.2", "203.0.113.7", "2001:db9::7"
OFFICE, HOST = "192.0.2.9", "172.16.0.1"


def rule(text: str) -> Rule:
    return Rule.model_validate({"action": "Allow", **(yaml.safe_load(text) or {})})


def test_a_rule_that_says_nothing_fits_every_packet() -> None:
    for what in ("TCP/80", "UDP/53", "ICMP/8", "47"):
        assert fits(WORLD, rule(""), packet(OUT, WEB, what))
    assert fits(WORLD, rule(""), packet(OUT6, WEB6, "ICMPv6/128"))


@pytest.mark.parametrize(
    ("text", "source", "what", "true"),
    [
        ("ipVersion: 4", OUT, "TCP/80", True),
        ("ipVersion: 4", OUT6, "TCP/80", False),
        ("ipVersion: 6", OUT6, "TCP/80", True),
        ("ipVersion: 6", OUT, "TCP/80", False),
        ("protocol: TCP", OUT, "TCP/80", True),
        ("protocol: TCP", OUT, "UDP/80", False),
        ("protocol: UDP", OUT6, "UDP/80", True),
        ("protocol: SCTP", OUT, "SCTP/80", True),
        ("protocol: UDPLite", OUT, "136/80", True),
        ("protocol: UDPLite", OUT, "UDP/80", False),
        ("protocol: 6", OUT, "TCP/80", True),
        ("protocol: 47", OUT, "47", True),
        ("protocol: 47", OUT, "TCP/80", False),
        ("protocol: ICMP", OUT, "ICMP/3.1", True),
        ("protocol: ICMP", OUT6, "1", False),
        ("protocol: 1", OUT6, "1", False),
        ("protocol: ICMPv6", OUT6, "ICMPv6/128", True),
        ("protocol: ICMPv6", OUT, "58", False),
        ("protocol: ICMPv6", OUT6, "TCP/80", False),
        ("notProtocol: TCP", OUT, "UDP/80", True),
        ("notProtocol: TCP", OUT, "TCP/80", False),
        ("notProtocol: 6", OUT, "TCP/80", False),
        ("notProtocol: ICMP", OUT6, "ICMPv6/128", True),
        ("notProtocol: ICMP", OUT6, "1", False),
        ("{protocol: ICMP, icmp: {type: 8}}", OUT, "ICMP/8.3", True),
        ("{protocol: ICMP, icmp: {type: 8}}", OUT, "ICMP/0", False),
        ("{protocol: ICMP, icmp: {type: 8}}", OUT6, "ICMPv6/8", False),
        ("{protocol: ICMP, icmp: {type: 3, code: 4}}", OUT, "ICMP/3.4", True),
        ("{protocol: ICMP, icmp: {type: 3, code: 4}}", OUT, "ICMP/3.1", False),
        ("{protocol: ICMPv6, icmp: {type: 128}}", OUT6, "ICMPv6/128", True),
        ("{protocol: ICMP, notICMP: {type: 8}}", OUT, "ICMP/0", True),
        ("{protocol: ICMP, notICMP: {type: 8}}", OUT, "ICMP/8.1", False),
        ("{protocol: ICMP, notICMP: {type: 8}}", OUT, "TCP/80", False),
        ("{protocol: ICMP, notICMP: {type: 3, code: 4}}", OUT, "ICMP/3.1", True),
        ("{protocol: ICMP, notICMP: {type: 3, code: 4}}", OUT, "ICMP/3.4", False),
        ("{protocol: TCP, ipVersion: 6}", OUT, "TCP/80", False),
    ],
)
def test_family_protocol_and_icmp(text: str, source: str, what: str, true: bool) -> None:
    destination = WEB6 if ":" in source else WEB
    assert fits(WORLD, rule(text), packet(source, destination, what)) is true


@pytest.mark.parametrize(
    ("entity", "address", "true"),
    [
        ("nets: [203.0.113.0/24]", OUT, True),
        ("nets: [203.0.113.0/24]", WEB, False),
        ("nets: [198.51.100.0/24, 203.0.113.7/32]", OUT, True),
        ("nets: [203.0.113.0/24]", OUT6, False),
        ("nets: [0.0.0.0/0]", OUT6, False),
        ("notNets: [203.0.113.0/24]", OUT, False),
        ("notNets: [203.0.113.0/24]", WEB, True),
        ("notNets: [0.0.0.0/0]", OUT6, True),
        ("notNets: [198.51.100.0/24, 203.0.113.0/24]", OUT, False),
        ("{nets: [203.0.113.0/24], notNets: [203.0.113.4/30]}", OUT, False),
        ("{nets: [203.0.113.0/24], notNets: [203.0.113.8/30]}", OUT, True),
        ("selector: app == 'web'", WEB, True),
        ("selector: app == 'web'", WEB6, True),
        ("selector: app == 'web'", DB, False),
        ("selector: app == 'web'", OUT, False),
        ("selector: app == 'sidecar'", WEB, False),
        ("selector: app == 'broken'", DB, False),
        ("selector: app == 'daemon'", "10.0.0.8", True),
        ("selector: site == 'office'", OFFICE, True),
        ("selector: site == 'office'", "2001:db8::5", True),
        ("selector: role == 'host'", HOST, True),
        ("selector: all()", WEB, True),
        ("selector: all()", OFFICE, True),
        ("selector: all()", OUT, False),
        ("selector: app != 'web'", OFFICE, True),
        ("selector: app != 'web'", OUT, False),
        ("notSelector: app == 'web'", WEB, False),
        ("notSelector: app == 'web'", DB, True),
        ("notSelector: app == 'web'", OUT, True),
        ("notSelector: all()", OFFICE, False),
        ("notSelector: all()", OUT, True),
        ("{selector: has(app), notSelector: app == 'db'}", WEB, True),
        ("{selector: has(app), notSelector: app == 'db'}", DB, False),
        ("{selector: has(app), nets: [10.0.0.2/32]}", WEB, False),
        ("{selector: has(app), nets: [10.0.0.2/32]}", DB, True),
    ],
)
@pytest.mark.parametrize("end", ["source", "destination"])
def test_addresses(entity: str, address: str, true: bool, end: str) -> None:
    other = "2001:db9::1" if ":" in address else "203.0.113.200"
    ends = (address, other) if end == "source" else (other, address)
    held = rule(f"{end}: {{{entity.strip('{}')}}}")
    assert fits(WORLD, held, packet(*ends)) is true


@pytest.mark.parametrize(
    ("protocol", "entity", "address", "what", "true"),
    [
        ("TCP", "ports: [80]", WEB, "TCP/80", True),
        ("TCP", "ports: [80]", WEB, "TCP/81", False),
        ("TCP", "ports: [80]", WEB, "UDP/80", False),
        ("TCP", 'ports: [22, "80:90"]', WEB, "TCP/80", True),
        ("TCP", 'ports: [22, "80:90"]', WEB, "TCP/90", True),
        ("TCP", 'ports: [22, "80:90"]', WEB, "TCP/91", False),
        ("TCP", 'ports: [22, "80:90"]', WEB, "TCP/22", True),
        ("TCP", "ports: [http]", WEB, "TCP/8080", True),
        ("TCP", "ports: [http]", WEB6, "TCP/8080", True),
        ("TCP", "ports: [http]", WEB, "TCP/9090", False),
        ("TCP", "ports: [http]", DB, "TCP/9090", True),
        ("TCP", "ports: [http]", OUT, "TCP/8080", False),
        ("UDP", "ports: [dns]", WEB, "UDP/53", True),
        ("TCP", "ports: [dns]", WEB, "TCP/53", False),
        ("TCP", "ports: [ssh]", HOST, "TCP/22", True),
        ("TCP", "ports: [side]", WEB, "TCP/7", False),
        ("TCP", "ports: [broken]", DB, "TCP/8", False),
        ("TCP", "{selector: app == 'web', ports: [http]}", WEB, "TCP/8080", True),
        ("TCP", "{selector: app == 'web', ports: [http]}", DB, "TCP/9090", False),
        ("TCP", "notPorts: [80]", WEB, "TCP/81", True),
        ("TCP", "notPorts: [80]", WEB, "TCP/80", False),
        ("TCP", 'notPorts: ["80:90"]', WEB, "TCP/85", False),
        ("TCP", "notPorts: [http]", WEB, "TCP/8080", False),
        ("TCP", "notPorts: [http]", DB, "TCP/8080", True),
        ("TCP", "notPorts: [http]", OUT, "TCP/8080", True),
        ("TCP", '{ports: ["80:90"], notPorts: [85]}', WEB, "TCP/85", False),
        ("TCP", '{ports: ["80:90"], notPorts: [85]}', WEB, "TCP/86", True),
    ],
)
def test_ports(protocol: str, entity: str, address: str, what: str, true: bool) -> None:
    other = OUT6 if ":" in address else "203.0.113.200"
    held = rule(f"{{protocol: {protocol}, destination: {{{entity.strip('{}')}}}}}")
    sent = packet(other, address, what)
    assert fits(WORLD, held, sent) is true
    turned: dict[str, Any] = {
        "source": sent.destination,
        "destination": sent.source,
        "source_port": sent.destination_port,
        "destination_port": sent.source_port,
    }
    mirror = rule(f"{{protocol: {protocol}, source: {{{entity.strip('{}')}}}}}")
    assert fits(WORLD, mirror, replace(sent, **turned)) is true, "the source's by the source port"


def test_both_ends_of_a_rule_are_asked() -> None:
    held = rule("{source: {selector: app == 'web'}, destination: {selector: app == 'db'}}")
    assert fits(WORLD, held, packet(WEB, DB))
    assert not fits(WORLD, held, packet(DB, WEB))
    assert not fits(WORLD, held, packet(OUT, DB))


def test_an_address_of_two_things_is_a_member_if_either_is_selected() -> None:
    two = replace(WORLD, network_sets=())
    office = WORLD.network_sets[0]
    spec = office.spec.model_validate({"nets": ["10.0.0.0/24"]})
    two = replace(two, network_sets=(office.model_copy(update={"spec": spec}),))
    address = packet(WEB, DB).source
    assert member(two, "app == 'web'", address)
    assert member(two, "site == 'office'", address)
    assert not member(two, "app == 'web' && site == 'office'", address)


def test_a_ports_name_is_of_what_the_selector_beside_it_selects() -> None:
    same = WORLD.host_endpoints[0]
    spec = same.spec.model_copy(update={"expected_ips": [packet(WEB, DB).source]})
    both = replace(WORLD, host_endpoints=(same.model_copy(update={"spec": spec}),))
    for selector, true in (("", True), ("selector: role == 'host', ", True),
                           ("selector: app == 'web', ", False)):  # fmt: skip
        held = rule(f"{{protocol: TCP, destination: {{{selector}ports: [ssh]}}}}")
        assert fits(both, held, packet(DB, WEB, "TCP/22")) is true, selector
