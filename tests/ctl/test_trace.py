"""`routectl trace`: what policies that a service has say of a flow, and by which rule."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.ctl import ok
from support.service import Service, running_service

OBJECTS = """
apiVersion: routed.dev/v1
kind: Node
metadata: {name: h1}
spec: {addresses: [172.16.0.1]}
---
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  selector: app == 'db'
  ingress:
    - {action: Log, protocol: TCP}
    - {action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}
---
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: web-out}
spec:
  selector: app == 'web'
  staged: true
  egress: [{action: Deny, reject: true}]
---
apiVersion: routed.dev/v1
kind: HostEndpoint
metadata: {name: h1-uplinks, labels: {role: edge}}
spec: {node: h1, interfaceName: "*"}
---
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  applyOnForward: true
  ingress:
    - {action: Allow, protocol: TCP, destination: {ports: [443]}}
    - {action: Allow, destination: {nets: [10.0.0.0/24]}}
"""
Ctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("server")) as service:
        yield service


@pytest.fixture(scope="module")
def admin(held: Service) -> Path:
    return held.admin


@pytest.fixture(scope="module")
def declared(held: Service, ctl: Ctl) -> Ctl:
    ok(ctl("apply", "-f", "-", stdin=OBJECTS))
    with held.http() as client:
        for name, labels, addresses in (
            ("web.h1", {"app": "web"}, ["10.0.0.1", "fd00::1"]),
            ("db.h1", {"app": "db"}, ["10.0.0.2"]),
        ):
            metadata = {"name": name, "labels": labels}
            ports = [{"port": 5432, "hostPort": 6432}] if name == "db.h1" else []
            spec = {"node": "h1", "origin": "Node", "netns": name, "ports": ports}
            made = client.post("/workloads", json={"metadata": metadata, "spec": spec})
            assert made.status_code == 201, made.text
            status = {**made.json(), "status": {"addresses": addresses, "phase": "Ready"}}
            answer = client.put(f"/workloads/{name}/status", json=status)
            assert answer.status_code == 200, answer.text
    return ctl


def test_both_ends_are_told_and_what_decided(declared: Ctl) -> None:
    assert ok(declared("trace", "web", "db", "--port", "5432")).splitlines() == [
        "web.h1 (10.0.0.1) -> db.h1 (10.0.0.2) TCP/5432: Allow",
        "  egress of web.h1: Allow (no tier decides: the node's default)",
        "  ingress of db.h1: Allow (tier default, policy db, spec.ingress[1])",
        "  ingress of db.h1: logged (policy db, spec.ingress[0])",
        "  staged: egress of web.h1: Reject (tier default, policy web-out, spec.egress[0])",
        "  path: web.h1 is on h1",
        "  path: h1 was not asked, or did not answer: its agent has never reported; its route to "
        "10.0.0.2 is not known",
        "  path: db.h1 is on h1",
    ]
    denied = ok(declared("trace", "203.0.113.7", "10.0.0.2", "--port", "5432/udp"))
    assert denied.splitlines()[:3] == [
        "203.0.113.7 -> db.h1 (10.0.0.2) UDP/5432: Deny",
        "  forwarding, ingress of host endpoint h1-uplinks: Allow (tier default, policy edge, "
        "spec.ingress[1])",
        "  ingress of db.h1: Deny (tier default: no rule of its policies decides, so its "
        "defaultAction)",
    ]


def test_own_host_and_json(declared: Ctl) -> None:
    said = json.loads(ok(declared("trace", "web", "h1", "--port", "22/tcp", "-o", "json")))
    assert [one["verdict"] for one in said] == ["Deny"]
    assert said[0]["to"] == {"name": "node/h1", "address": "172.16.0.1"}
    assert said[0]["ownHost"]["by"] == "own host"
    assert said[0]["egress"]["verdict"] == "Allow"
    assert said[0]["stagedEgress"] == {
        "verdict": "Reject", "by": "rule", "tier": "default", "policy": "web-out", "rule": 0,
        "logged": [],
    }  # fmt: skip


def test_host_endpoints_are_told(declared: Ctl) -> None:
    said = ok(declared("trace", "203.0.113.7", "h1", "--port", "443"))
    assert said.splitlines()[:2] == [
        "203.0.113.7 -> node/h1 (172.16.0.1) TCP/443: Allow",
        "  ingress of host endpoint h1-uplinks: Allow (tier default, policy edge, spec.ingress[0])",
    ]
    said = ok(declared("trace", "203.0.113.7", "h1", "--port", "22"))
    assert "h1-uplinks: Allow (a failsafe port, which no policy closes)\n" in said
    (found,) = json.loads(ok(declared("trace", "203.0.113.7", "h1", "--port", "80", "-o", "json")))
    assert found["verdict"] == "Deny"
    assert found["hostEndpoints"] == [
        {
            "name": "h1-uplinks", "node": "h1", "direction": "Ingress", "forwarded": False,
            "decision": {
                "verdict": "Deny", "by": "tier", "tier": "default", "policy": None, "rule": None,
                "logged": [],
            },
            "staged": None,
        }
    ]  # fmt: skip


def test_a_mapped_port_is_not_taken_for_the_hosts_own(declared: Ctl) -> None:
    said = ok(declared("trace", "203.0.113.7", "h1", "--port", "6432"))
    assert "  h1 maps it to port 5432 of db.h1: trace that as well\n" in said
    assert "maps it" not in ok(declared("trace", "203.0.113.7", "h1", "--port", "6432/udp"))


def test_the_nodes_default_is_said_by_the_user(declared: Ctl) -> None:
    said = ok(declared("trace", "web", "2001:db8::1", "--protocol", "ping",
                       "--policy-default", "Deny"))  # fmt: skip
    assert said.startswith("web.h1 (fd00::1) -> 2001:db8::1 ICMPv6/128.0: Deny\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["web", "dbx", "--port", "1"], "there is no workload 'dbx'; there are: db.h1, web.h1"),
        (["web", "db"], "either --port or --protocol"),
        (["web", "db", "--port", "x!"], "is not like 443"),
        (["db", "2001:db8::1", "--port", "1"], "in common"),
        (["web", "db", "--port", "1", "-o", "wide"], "is neither json nor yaml"),
        (["web", "db", "--port", "1", "--policy-default", "Pass"], "neither Allow nor Deny"),
    ],
)
def test_mistakes(declared: Ctl, words: list[str], said: str) -> None:
    done = declared("trace", *words)
    assert done.returncode == 2
    assert said in done.stderr
