"""What a node has and what the service thinks it has: each difference is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.ipam.local import Local, findings
from api.resources import IPBlock, IPPool, Workload
from api.resources.net import parse_address, parse_cidr

POOLS = [
    IPPool.model_validate(
        {"metadata": {"name": n}, "kind": "IPPool", "spec": {"cidr": c, "announce": a}}
    )
    for n, c, a in (("main", "10.65.0.0/16", "Hosts"), ("whole", "10.66.0.0/16", "Blocks"))
]  # fmt: skip
BLOCKS = [
    IPBlock.model_validate(
        {"metadata": {"name": cidr.translate(str.maketrans("./", "--"))}, "kind": "IPBlock",
         "spec": {"cidr": cidr, "pool": pool, "node": node}}
    )
    for cidr, pool, node in (
        ("10.65.0.0/26", "main", "h1"),
        ("10.65.0.64/26", "main", "h2"),
        ("10.66.0.0/26", "whole", "h1"),
    )
]  # fmt: skip


def workload(name: str, *addresses: str) -> Workload:
    return Workload.model_validate(
        {"metadata": {"name": name}, "kind": "Workload",
         "spec": {"node": name.partition(".")[2], "origin": "Node"},
         "status": {"addresses": addresses}}
    )  # fmt: skip


ONE, TWO = parse_address("10.65.0.1"), parse_address("10.66.0.1")
SOUND = Local(
    node="h1",
    attached={"web.h1": [ONE], "db.h1": [TWO]},
    routes=frozenset({ONE, TWO}),
    advertised=frozenset({parse_cidr("10.65.0.1/32"), parse_cidr("10.66.0.0/26")}),
)
REPORTS = [
    workload("web.h1", "10.65.0.1"),
    workload("db.h1", "10.66.0.1"),
    workload("x.h2", "10.65.0.65"),
]


def test_a_node_that_agrees() -> None:
    assert findings(SOUND, POOLS, BLOCKS, REPORTS) == []
    elsewhere = replace(SOUND, foreign=frozenset({parse_address("10.65.0.70")}))
    assert findings(elsewhere, POOLS, BLOCKS, REPORTS) == [], "of another node's block"


FAR = parse_address("10.65.0.70")


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"attached": {"web.h1": [ONE]}}, "db.h1", "not attached on h1"),
        ({"attached": {"web.h1": [ONE]}}, "h1", "has a route to 10.66.0.1"),
        ({"attached": {**SOUND.attached, "new.h1": [FAR]}}, "new.h1", "which is not reported"),
        ({"attached": {**SOUND.attached, "new.h1": [FAR]}}, "new.h1", "in no block of h1"),
        ({"attached": {**SOUND.attached, "web.h1": [FAR]}}, "web.h1", "reported is another"),
        ({"routes": frozenset({ONE})}, "db.h1", "10.66.0.1 has no route"),
        ({"advertised": frozenset({parse_cidr("10.66.0.0/26")})}, "web.h1", "is not announced"),
        ({"advertised": SOUND.advertised | {parse_cidr("10.65.0.70/32")}}, "h1", "does not own"),
        (
            {"advertised": SOUND.advertised | {parse_cidr("10.65.0.9/32")}},
            "h1",
            "announces 10.65.0.9/32, which nothing here has",
        ),
        (
            {"foreign": frozenset({parse_address("10.65.0.9")})},
            "h1",
            "has a route to 10.65.0.9, of its block 10.65.0.0/26, that is not routed's",
        ),
    ],
)
def test_a_node_that_does_not(change: dict[str, Any], name: str, says: str) -> None:
    found = findings(replace(SOUND, **change), POOLS, BLOCKS, REPORTS)
    assert any(one.name == name and says in one.message for one in found), found
