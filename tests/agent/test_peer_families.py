"""Both families of IP in peers and learned routes: pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import pytest
from support.agents import agent_on

from api.resources import BGPPeer, Condition, IPPool, Node
from bgp.seam import Path
from routed.agent.imports import import_routes
from routed.agent.intent import Intent
from routed.agent.plan import peers_of, router_id, unused_peers
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel
from routed.state import NextHop


def made(cls: Any, name: str, spec: dict[str, Any]) -> Any:
    return cls.model_validate({"kind": cls.KIND, "metadata": {"name": name}, "spec": spec})


INTENT = Intent(
    node_name="h1",
    node=made(Node, "h1", {"asNumber": 4200000001, "addresses": ["fd00:31::11"]}),
    pools={
        "four": made(IPPool, "four", {"cidr": "10.65.0.0/16"}),
        "six": made(IPPool, "six", {"cidr": "fd00:65::/112", "blockSize": 122}),
    },
    peers={
        "wide": made(BGPPeer, "wide", {"peerIP": "fd00:31::1", "asNumber": 65001,
                                       "ipFamilies": ["IPv6", "IPv4"], "importDefault": True}),
        "narrow": made(BGPPeer, "narrow", {"peerIP": "fe80::1", "interface": "up1",
                                           "asNumber": 65002, "ipFamilies": ["IPv4", "IPv6"]}),
        "plain": made(BGPPeer, "plain", {"peerIP": "192.0.2.1", "asNumber": 65003}),
    },
)  # fmt: skip


def path(prefix: str, peer: str, *hops: str) -> Path:
    return Path(peer, ip_network(prefix), tuple(map(ip_address, hops)), (65001,))


def test_a_peer_carries_what_it_says_or_its_own_family() -> None:
    found = peers_of(INTENT)
    assert {name: set(peer.carried) for name, peer in found.items()} == {
        "wide": {4, 6},
        "narrow": {4, 6},
        "plain": {4},
    }
    assert found["narrow"].interface == "up1"


def test_a_peer_with_the_address_of_another_is_not_used_and_that_is_said() -> None:
    twin = made(BGPPeer, "twin", {"peerIP": "fe80::1", "interface": "up2", "asNumber": 65004})
    elsewhere = made(BGPPeer, "z", {"peerIP": "fe80::1", "interface": "up2", "asNumber": 65004,
                                    "nodeSelector": "rack == 'other'"})  # fmt: skip
    intent = replace(INTENT, peers=INTENT.peers | {"twin": twin, "z": elsewhere})
    assert set(peers_of(intent)) == set(INTENT.peers)
    said = "not used: BGPPeer narrow has this peerIP"
    assert unused_peers(intent) == {"twin": (ip_address("fe80::1"), said)}
    assert not unused_peers(INTENT)


def test_a_node_says_which_peer_is_not_used(tmp_path: FilePath) -> None:
    agent = agent_on(FakeKernel(), tmp_path)
    agent.speech.connected = True

    def said() -> Condition:
        return next(one for one in conditions(agent) if one.type == "BGPEstablished")

    agent.intent = INTENT
    assert said().reason == "SessionsUp"
    twin = made(BGPPeer, "twin", {"peerIP": "fe80::1", "interface": "up2", "asNumber": 65004})
    agent.intent = replace(INTENT, peers=INTENT.peers | {"twin": twin})
    assert (said().status, said().reason) == ("False", "PeersNotUsed")
    assert said().message == "twin is not used: BGPPeer narrow has this peerIP"


def test_a_node_without_an_ipv4_address_has_a_router_id_of_its_own() -> None:
    first = router_id(INTENT)
    assert IPv4Address(first) != IPv4Address(0)
    other = Intent(node_name="h2", node=INTENT.node)
    assert router_id(other) != first
    assert router_id(INTENT) == first, "the same at every start"


@pytest.mark.parametrize(
    ("received", "hops"),
    [
        (path("10.65.1.7/32", "wide", "fd00:31::1"), [("fd00:31::1", None)]),
        (path("0.0.0.0/0", "wide", "fd00:31::1"), [("fd00:31::1", None)]),
        (path("::/0", "wide", "fd00:31::1"), [("fd00:31::1", None)]),
        (path("10.65.1.7/32", "narrow", "fe80::1"), [("fe80::1", "up1")]),
        (path("fd00:65::7/128", "narrow", "fe80::1"), [("fe80::1", "up1")]),
        (path("fd00:65::7/128", "narrow", "fd00:31::9"), [("fd00:31::9", None)]),
        (path("fd00:65::7/128", "wide", "fe80::1"), []),  # on which link?
        (path("fd00:65::7/128", "wide", "::"), []),
        (path("fd00:65::7/128", "wide", "fd00:31::11"), []),  # our own
        (path("fd00:65::/123", "wide", "fd00:31::1"), []),
    ],
)
def test_where_a_learned_route_leads(received: Path, hops: list[tuple[str, str | None]]) -> None:
    found = import_routes(INTENT, [received])
    expected = [NextHop(ip_address(gateway), link) for gateway, link in hops]
    assert [hop for route in found.values() for hop in route.next_hops] == expected


def test_ecmp_over_a_global_and_a_link_local_gateway() -> None:
    both = [path("10.65.1.7/32", "wide", "fd00:31::1"), path("10.65.1.7/32", "narrow", "fe80::1")]
    (route,) = import_routes(INTENT, both).values()
    assert set(map(str, route.next_hops)) == {"fd00:31::1", "fe80::1 dev up1"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"peerIP": "fe80::1"}, "spec.interface"),
        ({"ipFamilies": ["IPv6"]}, "spec.ipFamilies"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies"),
    ],
)
def test_a_peer_that_cannot_be(spec: dict[str, Any], field: str) -> None:
    one = made(BGPPeer, "one", {"peerIP": "192.0.2.1", "asNumber": 65001, **spec})
    assert [cause.field for cause in one.spec.causes()] == [field]
