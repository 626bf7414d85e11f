"""What does not agree is found and named; what agrees is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import pytest

from api.ipam.check import Held, findings
from api.resources import IPBlock, IPPool, IPReservation, Node, Resource, Workload

R = TypeVar("R", bound=Resource)


def made(model: type[R], name: str, spec: dict[str, Any], **status: Any) -> R:
    return model.model_validate({"metadata": {"name": name}, "kind": model.KIND, "spec": spec,
                                 "status": status})  # fmt: skip


POOL = made(IPPool, "main", {"cidr": "10.65.0.0/16"})
BLOCK = made(
    IPBlock, "10-65-0-0-26", {"cidr": "10.65.0.0/26", "pool": "main", "node": "h1"}, assigned=1
)
WEB = made(Workload, "web.h1", {"node": "h1", "origin": "Node"}, addresses=["10.65.0.1"])


def node(name: str, status: str = "True", **more: str) -> Node:
    said = {"type": "AddressesConsistent", "status": status, **more}
    return made(Node, name, {}, conditions=[{"type": "Ready", "status": "True"}, said])


SOUND = Held([POOL], [BLOCK], [node("h1"), node("h2")], [WEB], [])
STATED = BLOCK.model_copy(
    update={
        "metadata": BLOCK.metadata.model_copy(
            update={"annotations": {"routed.dev/force-release": "it is off"}}
        )
    }
)
CONFLICT = {"reason": "AddressConflict", "message": "10.65.0.5/32 is announced by AS 1"}
SILENT = {"reason": "NodeSilent", "message": "its agent says nothing any more"}


def block(cidr: str, node: str = "h1", pool: str = "main", assigned: int = 0) -> IPBlock:
    spec = {"cidr": cidr, "pool": pool, "node": node}
    return made(IPBlock, cidr.translate(str.maketrans("./", "--")), spec, assigned=assigned)


def workload(name: str, node: str, *addresses: str) -> Workload:
    return made(Workload, name, {"node": node, "origin": "Node"}, addresses=addresses)


def test_what_agrees_is_not_found() -> None:
    assert findings(SOUND) == []


@pytest.mark.parametrize(
    ("held", "name", "says"),
    [
        ({"pools": [POOL, made(IPPool, "two", {"cidr": "10.65.4.0/24"})]}, "main", "overlaps two"),
        ({"blocks": [BLOCK, block("10.65.0.64/27")]}, "10-65-0-64-27", "is no block of main"),
        ({"blocks": [BLOCK, block("10.66.0.0/26")]}, "10-66-0-0-26", "is no block of main"),
        ({"blocks": [BLOCK, block("10.65.0.64/26", pool="x")]}, "10-65-0-64-26", "pool 'x' does"),
        ({"blocks": [BLOCK, block("10.65.0.64/26", "h9")]}, "10-65-0-64-26", "node 'h9' does"),
        ({"blocks": [BLOCK, made(IPBlock, "other", BLOCK.spec.wire(), assigned=1)]}, "other", "as"),
        ({"blocks": [BLOCK, block("10.65.0.64/26", assigned=2)]}, "10-65-0-64-26", "have 0"),
        ({"workloads": [WEB, workload("a.h2", "h2", "10.65.0.2")]}, "a.h2", "not of its node h2"),
        ({"workloads": [WEB, workload("a.h1", "h1", "10.65.9.2")]}, "a.h1", "is in no block"),
        ({"workloads": [WEB, workload("a.h1", "h1", "10.65.0.1")]}, "a.h1", "web.h1's as well"),
        ({"workloads": [WEB, workload("a.h9", "h9")]}, "a.h9", "its node 'h9' does not exist"),
        (
            {"blocks": [STATED]},
            BLOCK.metadata.name,
            "a statement that h1 is off",
        ),
        ({"nodes": [node("h1"), made(Node, "h2", {})]}, "h2", "never reported"),
        ({"nodes": [node("h1", "False", **CONFLICT)]}, "h1", "AddressConflict: 10.65.0.5/32 is"),
        (
            {"nodes": [node("h1", "Unknown", **SILENT)]},
            "h1",
            "does not know: NodeSilent: its",
        ),
        (
            {"reservations": [made(IPReservation, "r", {"reservedCIDRs": ["10.65.0.0/30"]})]},
            "web.h1",
            "reserved by r",
        ),
    ],
)
def test_what_does_not_is_named(held: dict[str, Any], name: str, says: str) -> None:
    found = findings(replace(SOUND, **held))
    assert any(one.name == name and says in one.message for one in found), found


def test_only_what_nobody_can_use_is_garbage() -> None:
    gone = workload("a.h9", "h9")
    with_block = replace(SOUND, workloads=[WEB, gone], blocks=[BLOCK, block("10.65.0.64/26", "h9")])
    declared = made(Workload, "api1", {"node": "h9", "netns": "x"})
    alone = replace(SOUND, workloads=[WEB, gone, declared])
    assert not any(one.garbage for one in findings(with_block)), "its node may be alive"
    assert [one.name for one in findings(alone) if one.garbage] == ["a.h9"], "not what is declared"
    stated = [one for one in findings(replace(SOUND, blocks=[STATED])) if one.garbage]
    assert [one.annotation for one in stated] == ["routed.dev/force-release"], "not the block"
