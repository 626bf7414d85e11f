"""lightkube, by generic resources: the synchronous client, and the one with asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from lightkube import ApiError, AsyncClient, Client, KubeConfig
from lightkube import operators as op
from lightkube.generic_resource import create_global_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event
from lightkube.types import PatchType
from support.service import Service

SECONDS = 20
BGPPeer = create_global_resource("routed.dev", "v1", "BGPPeer", "bgppeers")
Node = create_global_resource("routed.dev", "v1", "Node", "nodes")


def peer(name: str, address: str, **labels: str) -> Any:
    spec = {"peerIP": address, "asNumber": 65001}
    return BGPPeer(metadata=ObjectMeta(name=name, labels=labels), spec=spec)


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(KubeConfig.from_file(str(service.admin)), field_manager="test") as made:
        yield made
        made.deletecollection(BGPPeer)


def names(found: Any) -> list[str]:
    return [one.metadata.name for one in found]


def refused(code: int, reason: str, call: Any, *words: Any, **more: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*words, **more)
    assert (caught.value.status.code, caught.value.status.reason) == (code, reason)
    return str(caught.value.status.message)


def test_objects_through_their_life(client: Client) -> None:
    made = client.create(peer("tor1", "192.0.2.1", rack="r1"))
    assert made.spec["holdTime"] == 9
    client.create(peer("tor2", "192.0.2.2", rack="r2"))
    refused(409, "AlreadyExists", client.create, peer("tor1", "192.0.2.9"))
    assert client.get(BGPPeer, "tor1") == made
    assert names(client.list(BGPPeer)) == ["tor1", "tor2"]
    assert names(client.list(BGPPeer, chunk_size=1)) == ["tor1", "tor2"]
    assert names(client.list(BGPPeer, labels={"rack": "r2"})) == ["tor2"]
    assert names(client.list(BGPPeer, labels={"rack": op.in_(["r1", "r9"])})) == ["tor1"]
    assert names(client.list(BGPPeer, labels={"rack": op.not_exists()})) == []
    assert names(client.list(BGPPeer, fields={"metadata.name": "tor2"})) == ["tor2"]
    made.spec["holdTime"] = 30
    replaced = client.replace(made)
    assert (replaced.spec["holdTime"], replaced.metadata.generation) == (30, 2)
    refused(409, "Conflict", client.replace, made)
    refused(404, "NotFound", client.get, BGPPeer, "tor9")
    client.delete(BGPPeer, "tor1")
    assert names(client.list(BGPPeer)) == ["tor2"]
    client.deletecollection(BGPPeer)
    assert names(client.list(BGPPeer)) == []


def test_patches_of_every_type(client: Client) -> None:
    client.create(peer("tor1", "192.0.2.1"))

    def hold(seconds: int, **more: Any) -> int:
        change: Any = {"spec": {"holdTime": seconds}}
        if more.get("patch_type") is PatchType.JSON:
            change = [{"op": "replace", "path": "/spec/holdTime", "value": seconds}]
        held = client.patch(BGPPeer, "tor1", change, **more)
        return int(held.spec["holdTime"])

    assert hold(30) == 30, "strategic merge, which is what it sends by itself"
    assert hold(60, patch_type=PatchType.MERGE) == 60
    assert hold(90, patch_type=PatchType.JSON) == 90
    assert hold(3, patch_type=PatchType.MERGE, dry_run=True) == 3
    assert client.get(BGPPeer, "tor1").spec["holdTime"] == 90
    said = refused(422, "Invalid", client.patch, BGPPeer, "tor1", {"spec": {"holdTime": 2}})
    assert "spec.holdTime" in said


def test_apply_creates_and_changes_and_takes_no_field_of_another(client: Client) -> None:
    wanted = peer("tor1", "192.0.2.1")
    wanted.spec["holdTime"] = 30
    made = client.apply(wanted, field_manager="ann")
    assert made.spec["holdTime"] == 30
    wanted.spec["holdTime"] = 60
    assert "ann" in refused(409, "Conflict", client.apply, wanted, field_manager="bob")
    assert client.apply(wanted, field_manager="bob", force=True).spec["holdTime"] == 60
    owners = {entry.manager for entry in client.get(BGPPeer, "tor1").metadata.managedFields}
    assert owners == {"ann", "bob"}


def test_a_status_a_condition_and_its_event(client: Client) -> None:
    client.create(Node(metadata=ObjectMeta(name="h1")))
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "AgentReady"}]}
    said = client.patch(Node.Status, "h1", {"status": ready}, patch_type=PatchType.MERGE)
    assert said.status["conditions"][0]["lastTransitionTime"]
    assert client.get(Node.Status, "h1").status == said.status
    assert client.wait(Node, "h1", for_conditions=["Ready"]).metadata.name == "h1"
    of = {"involvedObject.kind": "Node", "involvedObject.name": "h1"}
    for where in ("default", "*"):
        events = list(client.list(Event, namespace=where, fields=of))
        assert [(one.reason, one.type) for one in events] == [
            ("Created", "Normal"), ("AgentReady", "Normal"),
        ]  # fmt: skip
        assert events[1].involvedObject.name == "h1"
    event = client.get(Event, "h1.node-is-ready", namespace="default")
    assert event.message == "Ready is True"
    client.delete(Node, "h1")


def test_a_watch_shows_what_others_do(service: Service, client: Client) -> None:
    client.create(peer("tor1", "192.0.2.1", rack="r1"))
    begun = threading.Event()

    def change() -> None:
        assert begun.wait(SECONDS)
        with Client(KubeConfig.from_file(str(service.admin))) as other:
            other.create(peer("tor2", "192.0.2.2"))
            other.patch(BGPPeer, "tor1", {"spec": {"holdTime": 30}}, patch_type=PatchType.MERGE)
            other.delete(BGPPeer, "tor1")

    writing = threading.Thread(target=change)
    writing.start()
    seen = []
    for kind, held in client.watch(BGPPeer, labels={"rack": "r1"}, server_timeout=SECONDS):
        begun.set()
        seen.append((kind, held.metadata.name, held.spec["holdTime"]))
        if kind == "DELETED":
            break
    writing.join()
    assert seen == [("ADDED", "tor1", 9), ("MODIFIED", "tor1", 30), ("DELETED", "tor1", 30)]
    assert names(client.list(BGPPeer)) == ["tor2"]


def test_the_same_with_asyncio(service: Service) -> None:
    async def body() -> None:
        client = AsyncClient(KubeConfig.from_file(str(service.admin)), field_manager="test")
        await client.create(peer("tor1", "192.0.2.1", rack="r1"))
        seen = []
        async for kind, held in client.watch(BGPPeer, labels={"rack": "r1"}):
            seen.append((kind, held.spec["holdTime"]))
            if kind == "ADDED":
                await client.apply(BGPPeer.from_dict({
                    "apiVersion": "routed.dev/v1", "kind": "BGPPeer",
                    "metadata": {"name": "tor1"}, "spec": {"holdTime": 30},
                }), force=True)  # fmt: skip
            elif kind == "MODIFIED":
                await client.delete(BGPPeer, "tor1")
            else:
                break
        assert seen == [("ADDED", 9), ("MODIFIED", 30), ("DELETED", 30)]
        assert [one async for one in client.list(BGPPeer)] == []
        await client.close()

    asyncio.run(body())
