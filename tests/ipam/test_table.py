"""The switches' tables as one node receives them: what differs from the service is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.ipam.check import Held
from api.ipam.table import Table, findings, silent
from api.resources import BGPPeer, IPBlock, IPPool, Node, Resource, Workload
from api.resources.net import IPNetwork, parse_cidr

FOUR, SIX = frozenset({4}), frozenset({6})


def made(model: type[Resource], name: str, spec: dict[str, Any], **status: Any) -> Any:
    document = {"metadata": {"name": name}, "kind": model.KIND, "spec": spec, "status": status}
    return model.model_validate(document)


def workload(name: str, node: str, *addresses: str, phase: str = "Ready") -> Workload:
    spec = {"node": node, "origin": "Node"}
    found: Workload = made(Workload, name, spec, addresses=addresses, phase=phase)
    return found


HELD = Held(
    pools=[
        made(IPPool, "main", {"cidr": "10.65.0.0/16"}),
        made(IPPool, "whole", {"cidr": "10.66.0.0/16", "announce": "Blocks"}),
        made(IPPool, "any", {"cidr": "10.68.0.0/24", "allocation": "Anycast"}),
    ],
    blocks=[
        made(IPBlock, "b1", {"cidr": "10.65.0.0/26", "pool": "main", "node": "h1"}),
        made(IPBlock, "b2", {"cidr": "10.65.0.64/26", "pool": "main", "node": "h2"}),
        made(IPBlock, "b3", {"cidr": "10.66.0.0/26", "pool": "whole", "node": "h2"}),
    ],
    nodes=[made(Node, f"h{n}", {"asNumber": 64_500 + n}) for n in (1, 2, 3)],
    workloads=[
        workload("here.h1", "h1", "10.65.0.1"),
        workload("there.h2", "h2", "10.65.0.65"),
        workload("whole.h2", "h2", "10.66.0.1"),
        workload("begun.h2", "h2", "10.65.0.66", phase="Pending"),
    ],
)
SHOWN: dict[IPNetwork, int | None] = {
    parse_cidr("10.65.0.65/32"): 64_502,
    parse_cidr("10.66.0.0/26"): 64_502,
    parse_cidr("10.65.0.0/16"): 65_001,  # a summary
    parse_cidr("10.68.0.1/32"): 64_503,  # anycast
    parse_cidr("192.0.2.1/32"): 65_001,  # no pool's
}


def tables(**more: int | None) -> dict[str, Table]:
    """As two switches show it; of the first `more` beyond, None: not."""
    first = {**SHOWN, **{parse_cidr(text): number for text, number in more.items()}}
    left = {prefix: number for prefix, number in first.items() if number is not None}
    return {"tor1": Table(FOUR, left), "tor2": Table(FOUR, SHOWN), "six": Table(SIX, {})}


def test_what_agrees() -> None:
    assert findings("h1", tables(), HELD, []) == []
    assert silent(tables()) == ["six"]
    assert findings("h1", {"tor1": Table(FOUR, {})}, HELD, []) == [], (
        "it sends a default route only"
    )
    assert findings("h1", {}, HELD, []) == []


@pytest.mark.parametrize(
    ("more", "name", "says"),
    [
        (
            {"10.65.0.5/32": 64_502},
            "h2",
            "announces 10.65.0.5/32, at tor1: it is of block 10",
        ),
        ({"10.65.0.0/26": 64_503}, "h3", "of block 10.65.0.0/26 of h1"),
        ({"10.65.0.1/32": 64_999}, "main", "AS 64999 (of no node) announces 10.65.0.1/32"),
        ({"10.65.0.65/32": 64_503}, "h3", "of block 10.65.0.64/26 of h2"),
        ({"10.65.0.65/32": 64_503}, "there.h2", "10.65.0.65/32 is not announced by h2 at tor1,"),
        ({"10.65.9.1/32": 64_502}, "h2", "announces 10.65.9.1/32, at tor1: no node owns it"),
        ({"10.65.0.99/32": 64_502}, "h2", "announces 10.65.0.99/32, at tor1: no workload has it"),
        ({"10.65.0.65/32": None}, "there.h2", "10.65.0.65/32 is not announced by h2 at tor1,"),
        ({"10.66.0.0/26": None}, "whole.h2", "10.66.0.0/26 is not announced by h2 at tor1,"),
    ],
)
def test_what_does_not(more: dict[str, int | None], name: str, says: str) -> None:
    found = findings("h1", tables(**more), HELD, [])
    assert any(one.name == name and says in one.message for one in found), found


def test_of_a_node_with_our_own_as_nothing_is_seen() -> None:
    """Its paths look like loops, and the speaker refuses them."""
    one = [made(Node, name, {"asNumber": 64_501}) for name in ("h1", "h2", "h3")]
    seen = {"tor1": Table(FOUR, {parse_cidr("10.68.0.1/32"): 65_001})}
    assert findings("h1", seen, replace(HELD, nodes=one), []) == []
    assert findings("h1", seen, HELD, [])


def test_the_local_as_of_a_session_is_the_nodes_too() -> None:
    spec = {"peerIP": "172.31.1.1", "asNumber": 65_001, "localASNumber": 64_777, "node": "h2"}
    peer = made(BGPPeer, "tor1", spec)
    shown = {prefix: 64_777 if n == 64_502 else n for prefix, n in SHOWN.items()}
    assert findings("h1", {"tor1": Table(FOUR, shown)}, HELD, [peer]) == []
    assert findings("h1", {"tor1": Table(FOUR, shown)}, HELD, [])
