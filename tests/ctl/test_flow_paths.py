"""The way that a flow takes: what has to be asked, what follows from what is declared where nobody
answers, and what is said of it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from api.resources import BGPPeer, IPBlock, IPPool, Node, Workload
from api.resources.meta import Resource
from routed.ctl import paths, pathsaid
from routed.ctl.paths import Fabric, Place, Question
from routed.ctl.traffic import End

OUT = "198.51.100.7"


def made(model: type[Resource], name: str, spec: dict[str, Any], **status: Any) -> Resource:
    document = {"metadata": {"name": name}, "spec": spec, "status": status}
    return model.model_validate(document)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def objects(**pool: Any) -> list[Resource]:
    ready = [condition("Ready", "True", "AgentReady")]
    down = [*ready, condition("BGPEstablished", "False", "SessionsDown", "tor2")]
    silent = [condition("Ready", "Unknown", "NodeSilent")]
    found: list[Resource] = [
        made(IPPool, "main", {"cidr": "10.65.0.0/16", **pool}),
        made(BGPPeer, "tor1", {"peerIP": "192.0.2.254", "asNumber": 65001}),
        made(BGPPeer, "tor2", {"peerIP": "198.18.0.254", "asNumber": 65002}),
        made(BGPPeer, "tor6", {"peerIP": "2001:db8::fe", "asNumber": 65003}),
        made(BGPPeer, "other", {"peerIP": "192.0.2.253", "asNumber": 65009, "node": "h3"}),
        made(Node, "new", {"addresses": ["192.0.2.9"]}),
    ]
    for number, conditions in ((1, ready), (2, down), (3, silent)):
        spec = {"asNumber": 4_200_000_000 + number, "addresses": [f"192.0.2.{number}"]}
        found.append(made(Node, f"h{number}", spec, conditions=conditions))
        block = {"cidr": f"10.65.{number}.0/26", "pool": "main", "node": f"h{number}"}
        found.append(made(IPBlock, f"b{number}", block))
        spec = {"node": f"h{number}", "origin": "Node", "netns": "x"}
        status = {
            "phase": "Ready",
            "addresses": [f"10.65.{number}.1"],
            "hostInterface": f"rt{number}",
        }
        found.append(made(Workload, f"w.h{number}", spec, **status, gateway="169.254.1.1"))
    return found


def end(text: str, workload: str = "") -> End:
    return End(workload or text, ip_address(text), workload)


W1, W2, W3 = (end(f"10.65.{number}.1", f"w.h{number}") for number in (1, 2, 3))


def found(source: End, destination: End, fabric: Fabric | None = None, **answers: Any) -> Any:
    fabric = fabric or Fabric(objects())
    ends: list[Place] = [fabric.place(source), fabric.place(destination)]
    said = {one: answers.get(one.node, "it sleeps") for one in paths.questions(*ends)}
    return paths.path(fabric, *ends, said)


def asked(source: End, destination: End) -> list[Question]:
    fabric = Fabric(objects())
    return paths.questions(fabric.place(source), fabric.place(destination))


def test_who_is_asked_what() -> None:
    to = W2.address
    assert asked(W1, W2) == [Question("h1", to, W1.address), Question("h2", to, None)]
    assert asked(W1, end("192.0.2.1")) == [Question("h1", ip_address("192.0.2.1"), W1.address)]
    assert asked(end("192.0.2.1"), W2) == [Question("h1", to, None), Question("h2", to, None)]
    assert asked(end(OUT), W2) == [Question("h2", to, None)]
    assert asked(W1, end(OUT)) == [Question("h1", ip_address(OUT), W1.address)]
    assert asked(end(OUT), end("203.0.113.1")) == []


@pytest.mark.parametrize(
    ("node", "why"),
    [("h1", ""), ("h3", "has not been heard"), ("new", "never reported"), ("none", "no such Node")],
)
def test_who_cannot_answer_is_not_asked(node: str, why: str) -> None:
    said = Fabric(objects()).unasked(node)
    assert (why in said) if why else not said


@pytest.mark.parametrize(
    ("announce", "prefixes"),
    [
        ("Hosts", ["10.65.2.1/32"]),
        ("Blocks", ["10.65.2.0/26"]),
        ("Both", ["10.65.2.1/32", "10.65.2.0/26"]),
    ],
)
def test_what_is_declared_is_said_where_nobody_answers(announce: str, prefixes: list[str]) -> None:
    path = found(W1, W2, Fabric(objects(announce=announce)))
    assert [one["prefix"] for one in path["announced"]] == prefixes
    for one in path["announced"]:
        to = [(peer["peer"], peer["asPath"], peer["state"]) for peer in one["to"]]
        assert to == [("tor1", [4_200_000_002], ""), ("tor2", [4_200_000_002], "")]
    host = path["hosts"]["h2"]
    assert not host["answered"]
    assert host["lastWord"] == "BGPEstablished False (SessionsDown) tor2"
    assert [one["peer"] for one in host["sessions"]] == ["tor1", "tor2", "tor6"]
    assert "other" in [one["peer"] for one in found(W1, W3)["hosts"]["h3"]["sessions"]]


def test_what_is_not_announced() -> None:
    kept = [one for one in objects() if one.metadata.name != "w.h2"]
    spec = {"node": "h2", "origin": "Node", "netns": "x"}
    pending = made(Workload, "w.h2", spec, phase="Pending", addresses=["10.65.2.1"])
    assert not found(W1, W2, Fabric([*kept, pending]))["announced"]
    moved = [one for one in objects() if one.metadata.name != "b2"]
    said = list(pathsaid.lines(found(W1, W2, Fabric(moved))))
    assert "h2 announces nothing that holds 10.65.2.1: no block holds it" in said
    moved.append(made(IPBlock, "b", {"cidr": "10.65.2.0/26", "pool": "main", "node": "h1"}))
    said = list(pathsaid.lines(found(W1, W2, Fabric(moved))))
    wanted = "h2 announces nothing that holds 10.65.2.1: block 10.65.2.0/26 that holds it is of h1"
    assert wanted in said
    said = list(pathsaid.lines(found(W1, end("192.0.2.2"))))
    assert any("a host's own address is the switches' to know" in line for line in said)


def test_what_leaves_all_pools_may_be_hidden() -> None:
    hidden = Fabric(objects(natOutgoing=True))
    assert found(W1, end(OUT), hidden)["natOutgoing"]
    assert "h1 puts its own address as the source (natOutgoing)" in pathsaid.lines(
        found(W1, end(OUT), hidden)
    )
    for destination in (W2, end("10.65.7.7"), end("192.0.2.2")):
        assert not found(W1, destination, hidden)["natOutgoing"]
    assert not found(W1, end(OUT))["natOutgoing"]


def test_addresses_that_nobody_has() -> None:
    said = list(pathsaid.lines(found(W1, end("10.65.2.9"))))
    assert said[-1] == "nobody has it: it is in block 10.65.2.0/26 of h2, which drops it"
    said = list(pathsaid.lines(found(W1, end("10.65.9.9"))))
    assert said[-1] == "nobody has it: it is in pool main, and in no block of a node"


def answer(**more: Any) -> dict[str, Any]:
    session = {"asNumber": 65001, "localASNumber": 4_200_000_002, "families": ["IPv4"], "error": ""}
    hop = {"gateway": "192.0.2.254", "interface": "up0", "peer": "tor1"}
    route = {"prefix": "0.0.0.0/0", "kind": "unicast", "protocol": "dhcp", "metric": 0}
    return {
        "route": {**route, "nextHops": [hop]},
        "learned": [],
        "announced": [{"prefix": "10.65.2.1/32", "speaker": True}],
        "sessions": [
            {"peer": "tor1", **session, "state": "Established"},
            {"peer": "tor2", **session, "state": "Idle", "error": "hold timer"},
        ],
        **more,
    }


def test_what_agents_say_counts_before_what_is_declared() -> None:
    announced = [{"prefix": "10.65.0.0/16", "speaker": False}]
    said = list(pathsaid.lines(found(W1, W2, h1=answer(), h2=answer(announced=announced))))
    assert (
        "h1 routes 10.65.2.1 by 0.0.0.0/0 (dhcp): via 192.0.2.254 dev up0 (tor1, AS 65001)" in said
    )
    assert "h1 has no session with tor2 (AS 65001, Idle: hold timer)" in said
    assert (
        "h2 announces 10.65.0.0/16 to tor1 (AS 65001, Established) as AS path 4200000002, "
        "not to tor2 (AS 65001, Idle: hold timer); its speaker does not have it yet"
    ) in said
    none = answer(route={"prefix": "", "kind": "none", "protocol": "", "metric": 0, "nextHops": []})
    assert "h1 has no route to 10.65.2.1" in pathsaid.lines(found(W1, W2, h1=none, h2=answer()))
    down = answer()
    down["sessions"][0]["state"] = "Idle"
    said = list(pathsaid.lines(found(W1, W2, h1=answer(), h2=down)))
    assert any(line.startswith("h2 announces 10.65.2.1/32 to nobody, not to tor1") for line in said)
