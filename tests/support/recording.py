"""What an agent, a control plane and a speaker of this release say to each other, written down.

    PYTHONPATH=tests .venv/bin/python -m support.recording tests/skew/fixtures/0.1

is run once for each minor release, when it is made; tests/skew holds every later release to it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import sys
import tempfile
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx

from bgp import wire
from bgp.seam import Path as Route
from bgp.seam import Session
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel
from support.agents import NODE, client_file, running_agent, speaking, until
from support.between import Between, between, client_of
from support.service import Service, running_service

POOLS = {"main": "10.65.0.0/16", "six": "fd00:65::/112"}
TOR = ip_address("192.0.2.1")
SAID: list[wire.Message] = [
    wire.Begin(1),
    Session("tor1", TOR, "Established", 1.0),
    Route("tor1", ip_network("10.65.9.1/32"), (TOR,), (65001,), ("65001:7",), 5),
    wire.End(1, complete=True),
    wire.Unpath("tor1", ip_network("10.65.9.1/32")),
    wire.LinkDown(ip_network("10.65.0.9/32"), "rt123"),
]


def declare(admin: httpx.Client) -> None:
    """What an operator writes: pools, a switch, a reservation, a workload."""
    documents: list[tuple[str, str, dict[str, Any]]] = [
        *(("ippools", name, {"cidr": cidr, "cooldownSeconds": 5}) for name, cidr in POOLS.items()),
        ("bgppeers", "tor1", {"peerIP": str(TOR), "asNumber": 65001}),
        ("bgpconfigurations", "default", {"communities": ["65000:100"]}),
        ("ipreservations", "gateways", {"reservedCIDRs": ["10.65.0.0/30"]}),
    ]
    for plural, name, spec in documents:
        made = admin.post(f"/{plural}", json={"metadata": {"name": name}, "spec": spec})
        assert made.status_code == 201, made.text


def credentials(admin: httpx.Client, home: Path) -> None:
    made = admin.post(f"/nodes/{NODE}/credentials", json={})
    client_file(home).write_text(made.text, encoding="ascii")
    client_file(home).chmod(0o600)


async def converse(service: Service, passing: Between, home: Path, spoken: list[Any]) -> None:
    """Everything that an agent does: it registers, claims, attaches, reports, detaches."""
    kernel = FakeKernel()
    for name in ("web", "gone", "declared"):
        kernel.add_namespace(name)
    events = [json.loads(wire.event(message)) for message in SAID]
    with service.http() as admin:
        async with (
            speaking(home / "speaker.sock", events) as heard,
            running_agent(home, client_of(client_file(home), passing), kernel) as agent,
        ):
            await until("the agent being in sync", lambda: agent.control.in_sync)
            spec = {"node": NODE, "netns": "declared"}
            admin.post("/workloads", json={"metadata": {"name": "declared"}, "spec": spec})
            await until("the declared one", lambda: "declared" in agent.ready)
            for name in ("web", "gone"):
                document = {"name": name, "netns": name, "labels": {"app": name}}
                document |= {"ipFamilies": ["IPv4", "IPv6"]}
                await agent.attach(AttachRequest.model_validate(document))
            await agent.announced(agent.find("web"))
            reports = agent.control.known.reports
            await until("the reports", lambda: set(reports) == {"web.h1", "gone.h1"}, 10)
            await agent.detach("gone")
            await until("its end", lambda: set(agent.control.known.reports) == {"web.h1"}, 10)
            await agent.control.copy.written()
        spoken += heard
        spoken += events


def record(directory: Path) -> None:
    """Write the fixtures of this release into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    spoken: list[Any] = []
    with tempfile.TemporaryDirectory() as made:
        home, server = Path(made, "agent"), Path(made, "server")
        home.mkdir()
        server.mkdir()
        with running_service(server) as service, between(service) as passing:
            with service.http() as admin:
                declare(admin)
                credentials(admin, home)
            asyncio.run(converse(service, passing, home, spoken))
        passed = [dataclasses.asdict(one) for one in passing.passed]
        for name in ("intent.json", "cooling.log"):
            shutil.copy(home / name, directory / name)
        shutil.copy(home / "attachments" / "web.h1.json", directory / "attachment.json")
    write(directory / "conversation.jsonl", passed)
    write(directory / "speaker.jsonl", spoken)


def write(path: Path, documents: list[Any]) -> None:
    lines = [json.dumps(one, separators=(",", ":"), sort_keys=True) for one in documents]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
