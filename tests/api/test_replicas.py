"""Several services on one etcd: one state, whoever is asked, and clients that change over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.etcd import Cluster, cluster
from support.service import Service, replica

from api.client import Client, WatchEvent
from api.resources import Node
from api.resources.errors import Conflict
from api.resources.meta import ObjectMeta
from api.resources.net import IPAddress
from api.resources.node import NodeSpec
from routed.agent.questions import Questions
from routed.lab.processes import free_port

SECONDS = 15.0
NODES = 150


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def two(tmp_path: Path, etcd: Cluster) -> Iterator[tuple[Service, Service]]:
    with (
        replica(tmp_path / "a", etcd.url) as first,
        replica(tmp_path / "b", etcd.url, tmp_path / "a") as second,
    ):
        yield first, second


def node(name: str) -> Node:
    return Node(metadata=ObjectMeta(name=name), spec=NodeSpec())


def test_a_watch_goes_on_at_another_replica_without_the_full_set(
    two: tuple[Service, Service],
) -> None:
    first, second = two

    async def body() -> None:
        other = Client.from_kubeconfig(second.admin)
        client = Client.from_kubeconfig(first.admin, servers=[other.server])
        events: list[WatchEvent] = []
        arrived = asyncio.Event()

        async def watch() -> None:
            async for event in client.watch("nodes"):
                events.append(event)
                arrived.set()

        async def until(count: int) -> None:
            async with asyncio.timeout(SECONDS):
                while len(events) < count:
                    arrived.clear()
                    await arrived.wait()

        await asyncio.gather(*(client.create(node(f"n{n}")) for n in range(NODES)))
        watching = asyncio.create_task(watch())
        await until(NODES + 2)
        assert [events[0].type, events[-1].type] == ["BEGIN", "END"]
        os.kill(first.pid, signal.SIGKILL)
        for number in range(20):  # some before the watch is back
            await other.create(node(f"later{number}"))
        await until(NODES + 2 + 20)
        await client.delete(Node, "later0")  # and requests change over too
        await until(NODES + 2 + 21)
        told = [(e.type, e.object.metadata.name) for e in events[NODES + 2 :] if e.object]
        assert told == [("ADDED", f"later{n}") for n in range(20)] + [("DELETED", "later0")]
        assert client.server == other.server
        assert not watching.done()
        watching.cancel()
        await client.close()
        await other.close()

    asyncio.run(body())


def test_a_revision_of_one_replica_is_known_to_the_other(two: tuple[Service, Service]) -> None:
    """List at one, watch and write at the other: nothing is of the future, no write is lost."""
    with two[0].http() as one, two[1].http() as other:
        for number in range(30):
            made = one.post("/nodes", json=node(f"n{number}").wire())
            assert made.status_code == 201, made.text
            listed = one.get("/nodes").json()
            revision = listed["metadata"]["resourceVersion"]
            assert len(other.get("/nodes").json()["items"]) == number + 1
            query = {"watch": "1", "resourceVersion": revision, "timeoutSeconds": "1"}
            if number % 10 == 0:
                answer = other.get("/nodes", params=query)
                assert (answer.status_code, answer.text) == (200, "")
            held = made.json()
            held["metadata"]["labels"] = {"a": "b"}
            assert other.put(f"/nodes/n{number}", json=held).status_code == 200
            assert one.put(f"/nodes/n{number}", json=held).status_code == 409


def test_claims_at_two_replicas_never_overlap(two: tuple[Service, Service]) -> None:
    async def body() -> None:
        clients = [Client.from_kubeconfig(service.admin) for service in two]
        pool = {"metadata": {"name": "p"}, "spec": {"cidr": "10.1.0.0/24", "blockSize": 30}}
        await clients[0].raw("POST", "/ippools", json=pool)
        for number in range(4):
            await clients[number % 2].create(node(f"n{number}"))

        async def claim(number: int) -> str:
            wanted = {"spec": {"node": f"n{number % 4}", "pool": "p"}}
            while True:
                with contextlib.suppress(Conflict):
                    made = await clients[number % 2].raw("POST", "/ipblocks", json=wanted)
                    return str(made["spec"]["cidr"])

        blocks = await asyncio.gather(*(claim(number) for number in range(64)))
        assert len(set(blocks)) == 64
        for client in clients:
            await client.close()

    asyncio.run(body())


def test_a_service_without_its_etcd_says_so(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(tmp_path)]
    words += ["--listen", f"127.0.0.1:{free_port()}", "--store"]
    done = run([*words, f"etcd://127.0.0.1:{free_port()}"])
    assert done.returncode == 1
    assert "Error: cannot read the store, etcd at 127.0.0.1:" in done.stderr
    for wrong, said in (
        ("etcd://root:secret@h:1", "storePasswordFile"),
        ("etcd://h", "'h' is not HOST:PORT"),
        ("mysql://h:1", "must be sqlite:///PATH or etcd://"),
    ):
        done = run([*words, wrong])
        assert done.returncode == 2
        assert "store: " in done.stderr
        assert said in done.stderr


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_an_agent_answers_whoever_asks_the_other_replica(
    two: tuple[Service, Service], tmp_path: Path
) -> None:
    first, second = two

    async def body() -> None:
        here, there = Client.from_kubeconfig(first.admin), Client.from_kubeconfig(second.admin)
        await there.create(node("asked"))
        path = tmp_path / "node.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(await there.credentials("nodes/asked", {}))
        agent, known = Client.from_kubeconfig(path), Questions("asked")
        watching = asyncio.Event()

        async def watch() -> None:
            async for event in agent.watch("nodes", field_selector="metadata.name=asked"):
                watching.set()
                if event.type == "QUESTION":
                    known.take(event.text)

        async def way(to: IPAddress, source: IPAddress | None) -> dict[str, str]:
            return {"to": str(to)}

        tasks = [asyncio.create_task(watch()), asyncio.create_task(known.serve(agent, way))]
        await watching.wait()
        for client in (there, here):
            assert await client.way("asked", ip_address("10.65.0.1")) == {"to": "10.65.0.1"}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in (here, there, agent):
            await client.close()

    asyncio.run(body())
