"""`routectl trace` in a fabric: the routes, sessions and announcements of both hosts, as their
agents have them, asked from where only the service is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from support.labs import Workloads, ctl, node_conditions

from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def trace(lab: Lab, source: str, destination: str) -> dict[str, Any]:
    """The path of the one flow that this is."""
    said = json.loads(ctl(lab, "trace", source, destination, "--protocol", "ping", "-o", "json"))
    (one,) = [flow for flow in said if ":" not in flow["to"]["address"]]
    found: dict[str, Any] = one["path"]
    return {**found, "verdict": one["verdict"]}


def told(lab: Lab, source: str, destination: str) -> list[str]:
    said = ctl(lab, "trace", source, destination, "--port", "443/tcp").splitlines()
    return [line.removeprefix("  path: ") for line in said if line.startswith("  path: ")]


def asn(lab: Lab, host: str) -> int:
    return int(ctl(lab, "get", "node", host, "-o", "jsonpath={.spec.asNumber}"))


def route_of(lab: Lab, host: str, address: str) -> set[tuple[str, str]]:
    """(gateway or "", device) of each next hop of the host's route, as iproute2 has it."""
    found = json.loads(
        command("ip", "-j", "-n", f"{lab.top.name}-{host}", "route", "get", "fibmatch", address)
    )
    (one,) = found
    hops = one.get("nexthops") or [one]
    return {(hop.get("gateway", ""), hop["dev"]) for hop in hops}


def here(route: dict[str, Any]) -> set[tuple[str, str]]:
    return {(hop["gateway"], hop["interface"]) for hop in route["nextHops"]}


@pytest.fixture
def pair(lab: Lab, workloads: Workloads) -> tuple[str, str]:
    """The addresses of a workload on each host, which know of each other's by both switches."""
    _, first = workloads.attach("host1", "web")
    _, second = workloads.attach("host2", "db")

    def known() -> bool:
        found = lab.local("host1").get("/v1/way", params={"to": second}).json()
        reported = ctl(lab, "get", "wl", "-o", "name").split()
        both = {"workload.routed.dev/web.host1", "workload.routed.dev/db.host2"} <= set(reported)
        return both and len(found["learned"]) == 2 and len(found["route"]["nextHops"]) == 2

    wait_for("the hosts knowing of each other's", known, 40)
    return first, second


def test_the_way_between_two_hosts(lab: Lab, pair: tuple[str, str]) -> None:
    _, address = pair
    prefix, own = f"{address}/32", asn(lab, "host2")
    found = trace(lab, "web", "db")
    assert found["verdict"] == "Allow"
    assert (found["source"]["node"], found["destination"]["node"]) == ("host1", "host2")
    sender, receiver = found["hosts"]["host1"], found["hosts"]["host2"]
    assert here(sender["route"]) == route_of(lab, "host1", address)
    assert (sender["route"]["prefix"], sender["route"]["protocol"]) == (prefix, "routed")
    for tor, hop in zip(lab.top.tors, sorted(sender["route"]["nextHops"], key=str), strict=True):
        assert (hop["gateway"], hop["peer"]) == (tor.address, f"tor{tor.number}")
    learned = {
        one["peer"]: (one["prefix"], one["asPath"], one["used"]) for one in sender["learned"]
    }
    assert learned == {
        f"tor{tor.number}": (prefix, [tor.as_number, own], True) for tor in lab.top.tors
    }
    assert [one["state"] for one in sender["sessions"]] == ["Established"] * 2
    assert here(receiver["route"]) == {("", found["destination"]["interface"])}
    (announced,) = found["announced"]
    assert (announced["prefix"], announced["speaker"]) == (prefix, True)
    to = {one["peer"]: (one["asNumber"], one["asPath"], one["state"]) for one in announced["to"]}
    assert to == {f"tor{tor.number}": (tor.as_number, [own], "Established") for tor in lab.top.tors}
    assert len(found["notKnown"]) == 1


def test_what_is_said_of_it(lab: Lab, pair: tuple[str, str]) -> None:
    _, address = pair
    one, two = lab.top.tors
    own, ends = asn(lab, "host2"), trace(lab, "web", "db")
    link = [hop["interface"] for hop in ends["hosts"]["host1"]["route"]["nextHops"]]
    by, to = ends["source"]["interface"], ends["destination"]["interface"]
    assert told(lab, "web", "db") == [
        f"web.host1 is on host1 by {by}, gateway 169.254.1.1",
        f"host1 routes {address} by {address}/32 (routed): via {one.address} dev {link[0]} "
        f"(tor1, AS 65001), via {two.address} dev {link[1]} (tor2, AS 65002)",
        f"host1 was told {address}/32 by tor1: AS path 65001 {own} (used)",
        f"host1 was told {address}/32 by tor2: AS path 65002 {own} (used)",
        "not known here: what the switches between do with it: their tables are theirs",
        f"host2 announces {address}/32 to tor1 (AS 65001, Established) as AS path {own}, "
        f"tor2 (AS 65002, Established) as AS path {own}",
        f"host2 routes {address} by {address}/32 (routed): dev {to}",
        f"db.host2 is on host2 by {to}, gateway 169.254.1.1",
    ]
    text = ctl(lab, "trace", "web", "db", "--port", "443", "-o", "yaml")
    (document,) = [one for one in yaml.safe_load(text) if one["to"]["address"] == address]
    assert {**document["path"], "verdict": "Allow"} == ends


def test_two_workloads_of_one_host(lab: Lab, workloads: Workloads, pair: tuple[str, str]) -> None:
    _, address = workloads.attach("host1", "cache")
    wait_for("its report", lambda: "cache.host1" in ctl(lab, "get", "wl", "-o", "name"), 10)
    found = trace(lab, "web", "cache")
    assert found["sameNode"]
    assert list(found["hosts"]) == ["host1"]
    assert here(found["hosts"]["host1"]["route"]) == {("", found["destination"]["interface"])}
    assert not found["notKnown"]
    said = told(lab, "web", "cache")
    assert len(said) == 3
    assert said[1].startswith(f"host1 routes {address} by {address}/32 (routed): dev rt")


@contextmanager
def without(lab: Lab, number: int) -> Iterator[None]:
    """With the links of a switch to its hosts down."""
    tor = lab.top.tors[number - 1].namespace
    ports = [f"h{host.number}" for host in lab.top.hosts]
    for port in ports:
        command("ip", "-n", tor, "link", "set", port, "down")
    try:
        yield
    finally:
        for port in ports:
            command("ip", "-n", tor, "link", "set", port, "up")
        wait_for("every session being up", lab.established, 40)


def test_with_a_session_down_it_is_said_who_is_not_told(lab: Lab, pair: tuple[str, str]) -> None:
    _, address = pair

    def states() -> set[str]:
        found = lab.local("host2").get("/v1/way", params={"to": address}).json()
        return {one["state"] for one in found["sessions"] if one["peer"] == "tor2"}

    with without(lab, 2):
        wait_for("the session's end", lambda: states() != {"Established"}, 30)

        def gone() -> bool:
            way = lab.local("host1").get("/v1/way", params={"to": address}).json()["route"]
            return [hop["peer"] for hop in way["nextHops"]] == ["tor1"]

        wait_for("only one way being left", gone, 30)
        found = trace(lab, "web", "db")
        (announced,) = found["announced"]
        to = {one["peer"]: one["state"] for one in announced["to"]}
        assert to["tor1"] == "Established"
        assert to["tor2"] != "Established"
        said = "\n".join(told(lab, "web", "db"))
        assert f"host2 announces {address}/32 to tor1 (AS 65001, Established)" in said
        assert "not to tor2 (AS 65002, " in said
        assert "host1 has no session with tor2 (AS 65002, " in said
        assert "tor2, AS 65002)" not in said.split("\n")[1]


def test_an_agent_that_does_not_answer(lab: Lab, pair: tuple[str, str]) -> None:
    _, address = pair

    def reported() -> bool:
        return node_conditions(lab, "host2")["BGPEstablished"]["status"] == "True"

    wait_for("the node's report of its sessions", reported, 30)  # they were down just now
    agent = lab.agents["host2"]
    agent.kill()
    try:
        found = trace(lab, "web", "db")
        assert found["hosts"]["host1"]["answered"]
        assert not found["hosts"]["host2"]["answered"]
        (announced,) = found["announced"]
        assert announced["prefix"] == f"{address}/32"
        assert {one["state"] for one in announced["to"]} == {""}
        said = "\n".join(told(lab, "web", "db"))
        assert "host2 was not asked, or did not answer: node host2 has not answered in 8 s" in said
        assert "what it announces is only declared; it said last: BGPEstablished True" in said
        assert f"host2 should announce {address}/32 to tor1 (AS 65001) as AS path" in said
    finally:
        agent.start()
        wait_for("the agent", lambda: lab.ready("host2"), 20)


def test_to_the_outside_and_to_what_nobody_has(lab: Lab, pair: tuple[str, str]) -> None:
    first, _ = pair
    outside = trace(lab, "web", "198.51.100.7")
    route = outside["hosts"]["host1"]["route"]
    assert route["prefix"] == "0.0.0.0/0"
    assert here(route) == route_of(lab, "host1", "198.51.100.7")
    assert {one["prefix"] for one in outside["hosts"]["host1"]["learned"]} == {"0.0.0.0/0"}
    assert not outside["announced"]
    said = told(lab, "web", "198.51.100.7")
    assert said[-1] == "not known here: where 198.51.100.7 is: no node has it"
    used = {item["spec"]["cidr"]: item for item in
            json.loads(ctl(lab, "get", "ipblocks", "-o", "json"))["items"]}  # fmt: skip
    block = next(cidr for cidr, one in used.items() if one["spec"]["node"] == "host1"
                 and cidr.startswith(first.rpartition(".")[0]))  # fmt: skip
    start = block.partition("/")[0].rpartition(".")
    free = f"{start[0]}.{int(start[2]) + 60}"
    found = trace(lab, "web", free)
    assert found["hosts"]["host1"]["route"]["kind"] == "blackhole"
    said = told(lab, "web", free)
    assert said[-1] == f"nobody has it: it is in block {block} of host1, which drops it"
    assert f"host1 has a route to {free} that leads nowhere (blackhole)" in said
    inward = trace(lab, "198.51.100.7", "web")
    assert list(inward["hosts"]) == ["host1"]
    assert [one["prefix"] for one in inward["announced"]] == [f"{first}/32"]


def test_the_agent_says_the_same_at_its_socket(lab: Lab, pair: tuple[str, str]) -> None:
    first, second = pair
    local = lab.local("host1").get("/v1/way", params={"to": second, "from": first}).json()
    found = trace(lab, "web", "db")["hosts"]["host1"]
    assert {key: local[key] for key in ("route", "learned")} == {
        key: found[key] for key in ("route", "learned")
    }
    for query, code in (({}, 422), ({"to": "x"}, 422), ({"to": second, "from": "y"}, 422)):
        assert lab.local("host1").get("/v1/way", params=query).status_code == code
