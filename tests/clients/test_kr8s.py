"""kr8s, in both of its ways: synchronous, and with asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import kr8s
import kr8s.asyncio
import pytest
from kr8s._async_utils import Portal
from kr8s.asyncio.objects import new_class as new_async_class
from kr8s.objects import new_class
from support.service import Service

SECONDS = 20
BGPPeer = new_class("BGPPeer", version="routed.dev/v1", namespaced=False)
AsyncPeer = new_async_class("BGPPeer", version="routed.dev/v1", namespaced=False)


def peer(name: str, address: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"peerIP": address, "asNumber": 65001},
    }


@pytest.fixture
def api(service: Service) -> Iterator[Any]:
    found = kr8s.api(kubeconfig=str(service.admin))
    yield found
    for one in found.get("bgppeers"):
        one.delete()
    Portal().call(found._session.aclose)  # kr8s never closes what it has open


def names(found: Any) -> list[str]:
    return [one.name for one in found]


def test_objects_through_their_life(api: Any) -> None:
    tor = BGPPeer(peer("tor1", "192.0.2.1", rack="r1"), api=api)
    assert not tor.exists()
    tor.create()
    assert (tor.exists(), tor.spec.holdTime) == (True, 9)
    BGPPeer(peer("tor2", "192.0.2.2", rack="r2"), api=api).create()
    with pytest.raises(kr8s.ServerError, match="already exists") as refused:
        BGPPeer(peer("tor1", "192.0.2.9"), api=api).create()
    assert refused.value.response.status_code == 409
    assert BGPPeer.get("tor1", api=api).raw == tor.raw
    tor.patch({"spec": {"holdTime": 30}})
    assert (tor.spec.holdTime, tor.metadata.generation) == (30, 2)
    tor.patch([{"op": "replace", "path": "/spec/holdTime", "value": 60}], type="json")
    assert tor.spec.holdTime == 60
    with pytest.raises(kr8s.ServerError, match=r"spec\.holdTime"):
        tor.patch({"spec": {"holdTime": 2}})
    tor.label(team="blue")
    tor.annotate(note="hello")
    tor.remove_label("rack")
    tor.refresh()
    assert (tor.labels.to_dict(), tor.annotations.note) == ({"team": "blue"}, "hello")
    tor.delete()
    assert not tor.exists()
    with pytest.raises(kr8s.NotFoundError):
        BGPPeer.get("tor1", api=api, timeout=0.1)


def test_objects_are_found_by_every_name_of_their_kind(api: Any) -> None:
    for number in (1, 2, 3):
        BGPPeer(peer(f"tor{number}", f"192.0.2.{number}", rack=f"r{number}"), api=api).create()
    for kind in ("bgppeers", "bgppeer", "BGPPeer", "peer", "bgppeers.routed.dev", BGPPeer):
        assert names(api.get(kind)) == ["tor1", "tor2", "tor3"], kind
    assert names(api.get("bgppeers", label_selector={"rack": "r2"})) == ["tor2"]
    assert names(api.get("bgppeers", label_selector="rack in (r1,r3)")) == ["tor1", "tor3"]
    assert names(api.get("bgppeers", field_selector={"metadata.name": "tor3"})) == ["tor3"]
    assert names(api.get("bgppeers", "tor1", "tor2")) == ["tor1", "tor2"]
    assert names(api.get("ippools")) == []
    assert {one["kind"] for one in api.api_resources()} >= {"Event", "IPPool", "Workload"}
    assert api.version()["gitVersion"].startswith("v1.")


def test_more_than_one_page(api: Any) -> None:
    wanted = [f"many{number:03}" for number in range(120)]  # kr8s asks for a hundred at once
    for place, name in enumerate(wanted, 1):
        BGPPeer(peer(name, f"192.0.2.{place}"), api=api).create()
    assert names(api.get("bgppeers")) == wanted


def test_a_watch_shows_what_others_do(service: Service, api: Any) -> None:
    BGPPeer(peer("tor1", "192.0.2.1", rack="r1"), api=api).create()
    begun = threading.Event()

    def change() -> None:
        assert begun.wait(SECONDS)
        with service.http() as client:
            assert client.post("/bgppeers", json=peer("tor2", "192.0.2.2")).status_code == 201
            assert client.delete("/bgppeers/tor1").status_code == 200

    writing = threading.Thread(target=change)
    writing.start()
    seen = []
    for kind, held in api.watch("bgppeers", label_selector="rack=r1"):
        begun.set()
        seen.append((kind, held.name))
        if kind == "DELETED":
            break
    writing.join()
    assert seen == [("ADDED", "tor1"), ("DELETED", "tor1")]


def test_a_condition_is_waited_for_and_is_an_event(service: Service, api: Any) -> None:
    node_class = new_class("Node", version="routed.dev/v1", namespaced=False)
    node = node_class({"metadata": {"name": "h1"}}, api=api)
    node.create()
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "AgentReady"}]}
    node.patch({"status": ready}, subresource="status")
    node.wait("condition=Ready", timeout=SECONDS)
    of = {"involvedObject.kind": "Node", "involvedObject.name": "h1"}
    events = list(api.get("events", namespace=kr8s.ALL, field_selector=of))
    assert [(one.raw.reason, one.raw.type) for one in events] == [
        ("Created", "Normal"), ("AgentReady", "Normal"),
    ]  # fmt: skip
    assert [one.namespace for one in events] == ["default"] * 2
    node.delete()
    node.wait("delete", timeout=SECONDS)


def test_the_same_with_asyncio(service: Service) -> None:
    async def body() -> None:
        api = await kr8s.asyncio.api(kubeconfig=str(service.admin))
        tor = await AsyncPeer(peer("tor1", "192.0.2.1", rack="r1"), api=api)
        await tor.create()
        assert tor.spec.holdTime == 9
        seen = []
        async for kind, held in api.watch("bgppeers", label_selector="rack=r1"):
            seen.append((kind, held.name, held.spec.holdTime))
            if kind == "ADDED":
                await tor.patch({"spec": {"holdTime": 30}})
            elif kind == "MODIFIED":
                await tor.delete()
            else:
                break
        assert seen == [("ADDED", "tor1", 9), ("MODIFIED", "tor1", 30), ("DELETED", "tor1", 30)]
        assert [one.name async for one in api.get("bgppeers")] == []
        with pytest.raises(kr8s.NotFoundError):
            await AsyncPeer.get("tor1", api=api, timeout=0.1)
        odd = peer("odd", "192.0.2.1")
        odd["spec"]["colour"] = "red"
        held = await AsyncPeer(odd, api=api)
        await held.create()
        assert "colour" not in held.spec
        await held.delete()
        await api._session.aclose()

    asyncio.run(body())
