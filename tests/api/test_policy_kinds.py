"""Kinds of policies and others: what is wrong with one is told with its field."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.service import Service

from api.resources.decode import decode
from api.resources.errors import Invalid
from api.resources.policy import NetworkPolicy
from api.resources.registry import KINDS


def fields(plural: str, spec: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        decode(KINDS[plural], {"metadata": {"name": "x"}, "spec": spec})
    return {cause.field: cause.message for cause in caught.value.causes}


RULE: dict[str, Any] = {"action": "Allow"}


@pytest.mark.parametrize(
    ("rule", "field", "says"),
    [
        ({"action": "Permit"}, "action", "Allow"),
        ({"destination": {"ports": [80]}}, "protocol", "must be one of TCP"),
        ({"protocol": "ICMP", "destination": {"ports": [80]}}, "protocol", "where ports are"),
        ({"protocol": "TCP", "destination": {"ports": [0]}}, "destination.ports[0]", "65535"),
        ({"protocol": "TCP", "source": {"ports": ["9:3"]}}, "source.ports[0]", "FIRST:LAST"),
        ({"protocol": "TCP", "source": {"notPorts": ["A B"]}}, "source.notPorts[0]", "name"),
        ({"protocol": "SMTP"}, "protocol", "is no protocol"),
        ({"protocol": 256}, "protocol", "1 to 255"),
        ({"notProtocol": 0}, "notProtocol", "1 to 255"),
        ({"icmp": {"type": 8}}, "protocol", "must be ICMP or ICMPv6"),
        ({"protocol": "ICMP", "icmp": {"code": 1}}, "icmp.type", "is required"),
        ({"protocol": "ICMP", "notICMP": {"type": 255}}, "notICMP.type", "254"),
        ({"protocol": "ICMPv6", "ipVersion": 4}, "ipVersion", "not of IPv4"),
        ({"ipVersion": 5}, "ipVersion", "4 or 6"),
        ({"ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}}, "source.nets[0]", "not IPv6"),
        ({"source": {"nets": ["10.0.0.1/8"]}}, "source.nets[0]", "10.0.0.0/8 would be right"),
        ({"source": {"selector": "a =="}}, "source.selector", "column"),
        ({"reject": True}, "reject", "for the action Deny"),
        ({"protocol": 47, "destination": {"ports": [80]}}, "protocol", "where ports are"),
        ({"protocol": 6, "icmp": {"type": 8}}, "protocol", "must be ICMP or ICMPv6"),
        ({"protocol": 1, "ipVersion": 6}, "ipVersion", "ICMP is not of IPv6"),
        ({"protocol": "TCP", "source": {"ports": ["70000"]}}, "source.ports[0]", "65535"),
        ({"protocol": "TCP", "source": {"ports": ["9" * 40]}}, "source.ports[0]", "65535"),
        ({"protocol": "TCP", "source": {"ports": ["0000080"]}}, "source.ports[0]", "65535"),
        ({"source": {"selector": " "}}, "source.selector", "must not be empty"),
        ({"destination": {"notSelector": ""}}, "destination.notSelector", "leave it out"),
        ({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}},
         "destination.nets", "no packet is of both"),
        ({"protocol": "ICMPv6", "source": {"nets": ["10.0.0.0/8"]}}, "source.nets", "of IPv4"),
        ({"protocol": "ICMP", "destination": {"nets": ["fd00::/8"]}}, "destination.nets", "IPv6"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule(rule: dict[str, Any], field: str, says: str) -> None:
    found = fields("networkpolicies", {"ingress": [RULE, {**RULE, **rule}]})
    assert says in found.get(f"spec.ingress[1].{field}", ""), found


@pytest.mark.parametrize(
    ("plural", "spec", "field", "says"),
    [
        ("networkpolicies", {"types": ["Egress"], "ingress": [RULE]}, "spec.ingress", "lacks"),
        ("networkpolicies", {"types": ["Egress", "Egress"]}, "spec.types", "twice"),
        ("networkpolicies", {"selector": "a in"}, "spec.selector", "column"),
        ("networkpolicies", {"order": float("nan")}, "spec.order", "finite"),
        ("tiers", {"order": float("inf")}, "spec.order", "finite"),
        ("hostendpoints", {"node": "h1", "expectedIPs": ["10.0.0.1"] * 2}, "spec.expectedIPs",
         "twice"),
        ("hostendpoints",
         {"node": "h1", "interfaceName": "*", "ports": [{"name": "a", "port": 1}] * 2},
         "spec.ports", "twice"),
        ("tiers", {"defaultAction": "Allow"}, "spec.defaultAction", "Deny"),
        ("networksets", {"nets": ["x"]}, "spec.nets[0]", "no prefix length"),
        ("hostendpoints", {"node": "h1"}, "spec", "interfaceName or expectedIPs"),
        ("hostendpoints", {"node": "h1", "interfaceName": "a b"}, "spec.interfaceName", "blanks"),
        ("virtualips", {"addresses": [], "selector": "all()"}, "spec.addresses", "at least 1"),
        ("virtualips", {"addresses": ["10.0.0.1"] * 2, "selector": "a"}, "spec.selector", "column"),
        ("bgpfilters", {"importV4": [{"action": "Drop"}]}, "spec.importV4[0].action", "Accept"),
        ("bgpfilters", {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]},
         "spec.importV4[0].matchOperator", "required"),
        ("bgpfilters",
         {"exportV6": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}]},
         "spec.exportV6[0].cidr", "not IPv6"),
        ("bgpfilters",
         {"importV4": [{"action": "Accept", "prefixLength": {"min": 24, "max": 8}}]},
         "spec.importV4[0].prefixLength", "24 to 8"),
        ("bgpfilters", {"importV4": [{"action": "Reject", "operations": [{"setPriority": 1}]}]},
         "spec.importV4[0].operations", "not changed"),
        ("bgpfilters", {"importV4": [{"action": "Accept", "operations": [{}]}]},
         "spec.importV4[0].operations[0]", "one operation"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_object(
    plural: str, spec: dict[str, Any], field: str, says: str
) -> None:
    found = fields(plural, spec)
    assert says in found.get(field, ""), found


@pytest.mark.parametrize(
    "rule",
    [
        {"protocol": 6, "destination": {"ports": [80]}},
        {"protocol": 136, "source": {"notPorts": ["1:9"]}},
        {"protocol": 1, "icmp": {"type": 8}},
        {"protocol": 58, "notICMP": {"type": 128}},
        {"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}, "destination": {"nets": ["fd00::/8"]}},
        {"protocol": "ICMPv6", "source": {"nets": ["10.0.0.0/8", "fd00::/8"]}},
        {"protocol": "ICMP", "source": {"notNets": ["fd00::/8"]}},
    ],
)
def test_what_is_right_with_a_rule(rule: dict[str, Any]) -> None:
    decode(
        KINDS["networkpolicies"],
        {"metadata": {"name": "x"}, "spec": {"ingress": [{**RULE, **rule}]}},
    )


def test_a_port_in_quotes_is_a_number_all_the_same() -> None:
    rule = {**RULE, "protocol": "TCP", "destination": {"ports": ["80", "8080:8090", "http"]}}
    held = decode(
        KINDS["networkpolicies"], {"metadata": {"name": "x"}, "spec": {"ingress": [rule]}}
    )
    assert isinstance(held, NetworkPolicy)
    assert held.spec.ingress[0].destination.ports == [80, "8080:8090", "http"]


def test_what_they_refer_to_has_to_be_there(service: Service) -> None:
    with service.http() as admin:

        def post(plural: str, name: str, **spec: Any) -> httpx.Response:
            return admin.post(f"/{plural}", json={"metadata": {"name": name}, "spec": spec})

        def refused(answer: httpx.Response, code: int, *parts: str) -> None:
            assert answer.status_code == code, answer.text
            for part in parts:
                assert part in json.dumps(answer.json()), answer.text

        refused(post("networkpolicies", "p", tier="t"), 422, "spec.tier", "there are: default")
        assert post("tiers", "t").status_code == 201
        assert post("networkpolicies", "p", tier="t").status_code == 201
        assert post("networkpolicies", "q").status_code == 201, "the default tier is there"
        refused(admin.delete("/tiers/t"), 409, "1 policies are of it (p)")
        assert admin.delete("/networkpolicies/p").status_code == 200
        assert admin.delete("/tiers/t").status_code == 200
        refused(post("hostendpoints", "e", node="h", interfaceName="*"), 422, "spec.node")
        vip = {"addresses": ["10.9.0.1"], "selector": "all()"}
        refused(post("virtualips", "v", **vip), 422, "outside every pool")
        assert post("ippools", "plain", cidr="10.9.0.0/24").status_code == 201
        refused(post("virtualips", "v", **vip), 422, "with allocation Automatic, not Anycast")
        assert post("ippools", "any", cidr="10.8.0.0/24", allocation="Anycast").status_code == 201
        vip["addresses"] = ["10.8.0.1"]
        first = post("virtualips", "v", **vip)
        assert first.status_code == 201
        refused(post("virtualips", "w", **vip), 409, "VirtualIP v's")
        other = post("virtualips", "w", addresses=["10.8.0.2"], selector="all()").json()
        other["spec"]["addresses"] = ["10.8.0.2", "10.8.0.1"]
        refused(admin.put("/virtualips/w", json=other), 409, "spec.addresses[1]", "v's")
        assert admin.put("/virtualips/v", json=first.json()).status_code == 200
