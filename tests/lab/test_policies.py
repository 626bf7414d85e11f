"""Policies in a whole fabric: by labels on one host and across hosts, declared and changed through
the service, kept without it and without the agent. Nothing forbidden passes meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.flows import connected, listen
from support.labs import Workloads, ctl, draining_pool, node_conditions
from support.streams import Stream

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PORT = 7000
DB: dict[str, Any] = {
    "apiVersion": "routed.dev/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "db"},
    "spec": {
        "selector": "app == 'db'",
        "types": ["Ingress"],
        "ingress": [{"action": "Allow", "source": {"selector": "app == 'web'"}}],
    },
}
SIX = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd65::/112", blockSize: 122, cooldownSeconds: 0}
"""
# as many changes as told, one after the other, of a rule that is about something else
CHANGING = """
import asyncio, sys
from pathlib import Path
from api.client import Client
from api.resources import NetworkPolicy

async def main():
    client = Client.from_kubeconfig(Path(sys.argv[1]))
    rules = (await client.get(NetworkPolicy, "db")).wire()["spec"]["ingress"]
    for number in range(int(sys.argv[2])):
        more = [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [number + 1]},
                 "source": {"nets": ["198.51.100.0/24"]}}]
        change = {"spec": {"ingress": [*rules, *more]}}
        await client.patch(NetworkPolicy, "db", change)
        await asyncio.sleep(0.15)
    await client.patch(NetworkPolicy, "db", {"spec": {"ingress": rules}})
    await client.close()

asyncio.run(main())
"""


def apply(lab: Lab, document: dict[str, Any]) -> None:
    path = lab.directory / "applied.json"
    path.write_text(json.dumps(document))
    ctl(lab, "apply", "-f", str(path))


@contextmanager
def policy(lab: Lab, document: dict[str, Any] = DB) -> Iterator[None]:
    apply(lab, document)
    try:
        yield
    finally:
        ctl(lab, "delete", "networkpolicy", document["metadata"]["name"])


def reaches(namespace: str, address: str, seconds: float = 0.5) -> bool:
    """Whether a new connection comes about."""
    try:
        connected(namespace, address, PORT, seconds).close()
    except OSError:
        return False
    return True


def _said(lab: Lab) -> str:
    found = node_conditions(lab).get("PoliciesEnforced", {})
    return found.get("status", "")


@pytest.fixture
def db(lab: Lab, workloads: Workloads, serving: list[subprocess.Popen[str]]) -> tuple[str, str]:
    """Namespace and address of a server on host1."""
    namespace, address = workloads.attach("host1", "db", labels={"app": "db"})
    serving.append(listen(namespace, address, PORT))
    return namespace, address


@pytest.fixture
def clients(workloads: Workloads) -> dict[str, str]:
    """Namespaces of webs and of others, on both hosts."""
    return {
        f"{app} of {host}": workloads.attach(host, app, labels={"app": app})[0]
        for host in ("host1", "host2")
        for app in ("web", "evil")
    }


def test_who_may_talk_to_whom_by_labels(
    lab: Lab, db: tuple[str, str], clients: dict[str, str], workloads: Workloads
) -> None:
    _, address = db
    for name, namespace in clients.items():
        wait_for(f"{name} reaching it", lambda space=namespace: reaches(space, address))
    with policy(lab):
        for host in ("host1", "host2"):
            evil, web = clients[f"evil of {host}"], clients[f"web of {host}"]
            wait_for(f"{host}'s policy", lambda space=evil: not reaches(space, address))
            wait_for(f"{host}'s web", lambda space=web: reaches(space, address))
        wait_for("it being said", lambda: _said(lab) == "True")
        evil = clients["evil of host2"]
        assert not reaches(evil, address)

        def labelled(app: str) -> None:
            document = {
                "apiVersion": "routed.dev/v1",
                "kind": "Workload",
                "metadata": {"name": "turncoat", "labels": {"app": app}},
                "spec": {"node": "host2", "netns": workloads.namespace("host2", "turncoat")},
            }
            apply(lab, document)

        labelled("evil")
        try:
            space = workloads.namespace("host2", "turncoat")
            wait_for("its address", lambda: "default" in command("ip", "-n", space, "route"))
            assert not reaches(space, address)
            labelled("web")
            wait_for("its new label", lambda: reaches(space, address))
            labelled("evil")
            wait_for("its old label", lambda: not reaches(space, address))
        finally:
            ctl(lab, "delete", "workload", "turncoat")
    wait_for("the policy being gone", lambda: reaches(evil, address))


def test_who_may_talk_to_whom_over_ipv6(
    lab: Lab, serving: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    with draining_pool(lab, SIX, tmp_path / "pool.yaml"), Workloads(lab) as workloads:
        made = {
            f"{app} of {host}": workloads.attach(host, app, labels={"app": app}, pools=["six"])
            for host, app in (
                ("host1", "db"),
                ("host1", "web"),
                ("host1", "evil"),
                ("host2", "web"),
                ("host2", "evil"),
            )
        }
        namespace, address = made.pop("db of host1")
        assert ":" in address
        serving.append(listen(namespace, address, PORT))
        for name, (space, _) in made.items():
            wait_for(f"{name} reaching it", lambda space=space: reaches(space, address))
        with policy(lab):
            for name, (space, _) in made.items():
                allowed = name.startswith("web")
                wait_for(
                    f"the policy for {name}",
                    lambda space=space, allowed=allowed: reaches(space, address) is allowed,
                )


def test_policies_hold_without_the_service_and_without_the_agent(
    lab: Lab, db: tuple[str, str], clients: dict[str, str], workloads: Workloads
) -> None:
    namespace, address = db
    evil, web = clients["evil of host1"], clients["web of host2"]
    with policy(lab), ExitStack() as stack:
        wait_for("the policy", lambda: not reaches(evil, address))
        wait_for("the members", lambda: reaches(web, address))
        copy = lab.directory / "host1" / "state" / "members.json"
        wait_for("the copy", lambda: copy.exists() and "app == 'web'" in copy.read_text())
        forbidden = Stream(evil, namespace, address, 7001)
        stack.callback(forbidden.close)
        far = Stream(clients["evil of host2"], namespace, address, 7002)
        stack.callback(far.close)
        lab.server.stop()
        try:
            agent = lab.agents["host1"]
            agent.kill()
            assert not reaches(evil, address), "without the agent"
            assert reaches(web, address)
            agent.start()
            wait_for("the agent", lambda: lab.ready("host1"))
            assert not reaches(evil, address), "without the service"
            assert reaches(web, address)
            late, _ = workloads.attach("host1", "late", labels={"app": "web"})
            assert reaches(late, address), "known at once"
            host = lab.top.hosts[0].namespace
            inside(host, "nft", "flush", "chain", "inet", "routed", "policy-ingress")
            wait_for("it being back", lambda: not reaches(evil, address))
            passed = forbidden.counts().received + far.counts().received
        finally:
            lab.server.start()
            lab.wait_server()
        wait_for("the service", lambda: _in_sync(lab))
        assert not reaches(evil, address)
        assert forbidden.counts().received + far.counts().received == passed, "but for the window"


def _in_sync(lab: Lab) -> bool:
    return all(
        lab.local(host.name).get("/v1/status").json()["controlPlane"] == "in sync"
        for host in lab.top.hosts
    )


def test_nothing_forbidden_passes_while_everything_changes(
    lab: Lab, db: tuple[str, str], clients: dict[str, str], workloads: Workloads, full: bool
) -> None:
    namespace, address = db
    changes = 100 if full else 40
    with policy(lab), ExitStack() as stack:
        wait_for("the policy", lambda: not reaches(clients["evil of host1"], address))
        wait_for("the members", lambda: reaches(clients["web of host2"], address))
        forbidden = [
            Stream(clients[f"evil of {host}"], namespace, address, port)
            for host, port in (("host1", 7001), ("host2", 7002))
        ]
        allowed = Stream(clients["web of host2"], namespace, address, 7003)
        for stream in (*forbidden, allowed):
            stack.callback(stream.close)
        words = [sys.executable, "-c", CHANGING, str(lab.admin), str(changes)]
        script = subprocess.Popen(["ip", "netns", "exec", lab.top.management, *words])
        stack.callback(script.kill)
        number = 0
        while script.poll() is None:
            number += 1
            name = f"more{number % 3}"
            app = ("web", "db", "evil")[number % 3]
            lab.local("host1").delete(f"/v1/attachments/{name}")
            workloads.attach("host1", name, labels={"app": app, "number": str(number % 5)})
            if number % 4 == 2:
                lab.agents["host1"].kill()
                lab.agents["host1"].start()
                wait_for("the agent", lambda: lab.ready("host1"))
        assert script.returncode == 0
        assert number > 4, "something was attached meanwhile"
        wait_for("the last change", lambda: "198.51.100.0" not in _rules(lab))
        for stream in forbidden:
            counts = stream.counts()
            assert counts.sent > 3000
            assert counts.received == 0
        counts = allowed.counts()
        print(f"allowed: {counts}")
        assert counts.received > 3000
        assert counts.sent - counts.received < 10, "established flows go on"


def test_a_flushed_table_is_back_before_much_has_passed(
    lab: Lab, db: tuple[str, str], clients: dict[str, str]
) -> None:
    """And nothing, where libnftables lets a second table stand by."""
    namespace, address = db
    host = lab.top.hosts[0].namespace
    alone = "routed-away" not in inside(host, "nft", "list", "tables")
    with policy(lab), ExitStack() as stack:
        wait_for("the policy", lambda: not reaches(clients["evil of host2"], address))
        for port in range(7001, 7006):
            stream = Stream(clients["evil of host2"], namespace, address, port)
            stack.callback(stream.close)
            wait_for("its packets", lambda one=stream: one.counts().sent > 100)
            assert stream.counts().received == 0
            inside(host, "nft", "flush", "ruleset")
            wait_for("the table", lambda: "policy-ingress" in _chains(host))
            # nobody has answered: the flow is not established, and is judged packet by packet
            wait_for("the end", lambda one=stream: _still(one))
            passed = stream.counts().received
            print(f"passed in the window: {passed} packets of 1 000 a second")
            assert passed < (200 if alone else 1)
            assert reaches(clients["web of host2"], address)
        agent = lab.agents["host1"]
        agent.kill()
        stream = Stream(clients["evil of host2"], namespace, address, 7006)
        stack.callback(stream.close)
        inside(host, "nft", "flush", "ruleset")
        wait_for("its packets", lambda: stream.counts().received > 0)  # it would have been seen
        agent.start()
        # nobody has answered: the flow is not established, and is judged packet by packet
        wait_for("the end", lambda: _still(stream))


def _chains(host: str) -> str:
    return inside(host, "nft", "list", "chains")


def _still(stream: Stream) -> bool:
    before = stream.counts()
    wait_for("more", lambda: stream.counts().sent > before.sent + 50)
    return stream.counts().received == before.received


def _rules(lab: Lab) -> str:
    words = ("nft", "list", "chain", "inet", "routed", "ingress-policy-db")
    return inside(lab.top.hosts[0].namespace, *words)
