"""Policies of an ipvlan-l3s workload by the real agent: before its link, while the agent is dead,
and when the next one comes."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import pytest
from support.compiled import policy
from support.flows import acknowledged, connected, entered, listen
from support.headless import HeadlessHost, HeadlessRack

from routed.lab.processes import wait_for

pytestmark = [pytest.mark.nft]
IN = [
    {"action": "Allow", "protocol": "UDP", "destination": {"ports": [1000]}},
    {"action": "Allow", "protocol": "TCP", "destination": {"ports": [7000]}},
]
OUT = [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [2000]}}]
POLICY = policy("p", selector="app == 'db'", ingress=IN, egress=OUT)
TOR, HOST = "10.1.1.1", "10.1.1.2"


class Flow:
    """Datagrams from one namespace to a port of another."""

    def __init__(self, source: str, target: str, address: str, port: int) -> None:
        self.place = address, port
        with entered(source):
            self.sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with entered(target):
            self.hearing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.hearing.bind(self.place)
        self.hearing.settimeout(5)

    def send(self) -> None:
        with suppress(PermissionError):  # dropped at OUTPUT is told to processes
            self.sending.sendto(b"x", self.place)

    def passed(self) -> bool:
        """Whether anything has come; waits for it as long as it should take at most."""
        try:
            return self.hearing.recv(1) == b"x"
        except TimeoutError:
            return False

    def close(self) -> None:
        self.sending.close()
        self.hearing.close()


def test_the_agent_is_killed_and_started_anew(tmp_path: Path) -> None:
    rack = HeadlessRack("ia", tmp_path)
    flows: list[Flow] = []
    try:
        for label in ("tor", "host1"):
            rack.space(label)
        rack.link("tor", "h1", "host1", "up0")
        rack.address("tor", "h1", f"{TOR}/24")
        rack.address("host1", "up0", f"{HOST}/24")
        rack.inside("tor", "ip", "route", "add", "10.65.1.0/26", "via", HOST)
        rack.inside("host1", "ip", "route", "add", "default", "via", TOR)
        host = HeadlessHost(1, f"{rack.mark}-host1", {}, tmp_path / "host1", [POLICY])
        rack.hosts["host1"] = host
        host.agent.start()
        wait_for("the agent", lambda: bool(host.status()), 90)

        def attach(mode: str) -> tuple[int, str]:
            body = {"name": "db", "netns": f"{rack.mark}-db", "mode": mode, "labels": {"app": "db"}}
            answer = host.api.post("/v1/attachments", json=body)
            return answer.status_code, answer.text

        inner, outer = rack.space("db"), f"{rack.mark}-tor"
        code, text = attach("ipvlan-l3")
        assert code == 409, text
        assert "p would not be enforced; use mode veth or ipvlan-l3s" in text
        code, text = attach("ipvlan-l3s")
        assert code == 201, text
        address = host.api.get("/v1/attachments/db").json()["addresses"][0]
        flows += [Flow(outer, inner, address, port) for port in (1000, 1001)]
        flows += [Flow(inner, outer, TOR, port) for port in (2000, 2001)]
        allowed, denied = flows[::2], flows[1::2]

        def judged() -> None:
            for one in flows:
                one.send()
            assert [one.passed() for one in allowed] == [True, True]

        judged()
        server = listen(inner, address)
        held = connected(outer, address)
        host.agent.kill()
        judged()
        host.agent.start()

        def back() -> bool:
            judged()
            return host.status().get("workloads") == 1

        wait_for("the next agent", back, 90)
        held.sendall(b"still")
        assert acknowledged(held)
        held.close()
        for one in denied:
            one.hearing.settimeout(0.5)
            assert not one.passed(), "since the first moment"
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
        conditions = {one["type"]: one for one in host.status()["conditions"]}
        assert conditions["PoliciesEnforced"]["status"] == "True", conditions
        rack.inside("host1", "nft", "delete", "table", "inet", "routed")
        wait_for(
            "the table", lambda: "slaves4" in rack.inside("host1", "nft", "list", "ruleset"), 30
        )
        judged()
        assert host.api.delete("/v1/attachments/db").status_code == 200
        assert "slaves" not in rack.inside("host1", "nft", "list", "ruleset")
    finally:
        for one in flows:
            one.close()
        rack.stop()
