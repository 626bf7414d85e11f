"""What doctor takes over from an agent that runs: what cannot be seen by looking once."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

from api.resources import Node, ObjectMeta
from policies.firewall import Blocking
from routed.addressing import Choice
from routed.agent import renumbered
from routed.doctor.findings import Verdict
from routed.doctor.network import heard
from routed.settings import AgentSettings

NODE = Node(metadata=ObjectMeta(name="h1"))


@contextmanager
def agent(
    directory: Path, conditions: list[dict[str, str]], *sessions: dict[str, str]
) -> Iterator[AgentSettings]:
    """An agent's socket that answers with these conditions and sessions."""
    status = {"conditions": conditions, "bgp": {"sessions": sessions}}
    body = json.dumps(status).encode()

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    settings = AgentSettings(node="h1", run_dir=directory)
    with socketserver.UnixStreamServer(str(settings.agent_socket), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield settings
        finally:
            server.shutdown()


def condition(kind: str, status: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


def test_who_removes_routes_and_what_cuts_ipvlan_off(tmp_path: Path) -> None:
    blocks = [
        Blocking("ip", "filter", "FORWARD", "iptables -I FORWARD -i rt+ -j ACCEPT", lasting="x; y"),
        Blocking("ip", "filter", "INPUT", "a; b", what="what comes to ipvlan workloads"),
    ]
    said = [
        condition("Ready", "False", "chain"),
        condition("ForwardBlocked", "True", "; ".join(one.told() for one in blocks)),
        condition("RouteFlapping", "True", "x (pid 7) removed routes: do this: and that"),
        renumbered.condition(NODE, [Choice(ip_address("192.0.2.1"), "eth0", "listed")]).wire(),
    ]
    with agent(tmp_path, said) as settings:
        found = list(heard(settings))
    assert [(one.check, one.verdict, one.remedy) for one in found] == [
        ("firewall: ipvlan", Verdict.FAIL, "a; b"),
        ("routes", Verdict.WARN, "do this: and that"),
        (
            "addresses: registered",
            Verdict.WARN,
            "routectl patch node h1 -p "
            """'{"spec": {"addresses": ["192.0.2.1"]}}' (each session begins anew)""",
        ),
    ]
    assert found[0].found.startswith("chain INPUT of table ip filter drops what comes to ipvlan")


def session(state: str, error: str) -> dict[str, str]:
    return {"peer": "tor1", "state": state, "error": error}


def test_a_session_that_lacks_a_family(tmp_path: Path) -> None:
    with agent(tmp_path, [], session("Established", "IPv6 is not carried: why")) as settings:
        (found,) = heard(settings)
    assert (found.check, found.verdict) == ("families of tor1", Verdict.WARN)
    assert found.found == "IPv6 is not carried: why"


def test_nothing_of_a_healthy_one(tmp_path: Path) -> None:
    well = [condition("ForwardBlocked", "False", ""), condition("RouteFlapping", "False", "")]
    sessions = session("Established", ""), session("Idle", "somebody else looks at those")
    with agent(tmp_path, well, *sessions) as settings:
        assert list(heard(settings)) == []
