"""Events are worked out of the objects: what is said of them, to whom, and how much at most."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service import Service

from api.auth.identity import ADMIN, VIEWER, Identity
from api.resources.event import events_of, object_of
from api.resources.registry import KINDS
from api.service.codec import document_of
from api.service.events import OBJECTS_MOST, About, latest
from api.service.objects import Objects
from api.service.state import State
from api.store.sqlite.store import SqliteStore

Document = dict[str, Any]
MERGE = {"content-type": "application/merge-patch+json"}
BORN = "2026-01-01T00:00:00Z"
LATER = "2026-01-02T00:00:00Z"


def obj(kind: str, name: str, spec: Document, *conditions: Document, **meta: Any) -> Document:
    metadata = {"name": name, "uid": "u1", "creationTimestamp": BORN, "resourceVersion": "7"}
    return {
        "apiVersion": "routed.dev/v1", "kind": kind, "metadata": metadata | meta, "spec": spec,
        "status": {"conditions": list(conditions)},
    }  # fmt: skip


def told(plural: str, document: Document) -> list[tuple[str, str, str, str]]:
    events = events_of(KINDS[plural], document)
    return [(one["type"], one["reason"], one["message"], one["lastTimestamp"]) for one in events]


def condition(of: str, status: str, **more: str) -> Document:
    return {"type": of, "status": status, "lastTransitionTime": LATER, **more}


def test_a_nodes_conditions_are_events_of_when_they_changed() -> None:
    node = obj(
        "Node", "h1", {},
        condition("Ready", "False", reason="NotReady", message="no speaker"),
        condition("BGPEstablished", "Unknown"),
        condition("ForwardBlocked", "True", reason="ForeignPolicyDrop"),
    )  # fmt: skip
    assert told("nodes", node) == [
        ("Normal", "Created", "Node h1 was created", BORN),
        ("Warning", "NotReady", "Ready is False: no speaker", LATER),
        ("Warning", "BGPEstablished", "BGPEstablished is Unknown", LATER),
        ("Warning", "ForeignPolicyDrop", "ForwardBlocked is True", LATER),
    ]
    well = [condition("Ready", "True"), condition("ForwardBlocked", "False")]
    assert [one[0] for one in told("nodes", obj("Node", "h1", {}, *well))] == ["Normal"] * 3


def test_a_blocks_events_say_who_claimed_it_had_it_and_is_asked_for_it() -> None:
    spec = {"node": "h1", "cidr": "10.0.0.0/26", "pool": "main"}
    notes = {
        "routed.dev/reclaimed-from": "h2",
        "routed.dev/reclaimed-by": "ann",
        "routed.dev/reclaimed-statement": "h2 burnt down",
    }
    block = obj("IPBlock", "b", spec, annotations=notes, deletionTimestamp=LATER)
    assert told("ipblocks", block) == [
        ("Normal", "Claimed", "node h1 claimed 10.0.0.0/26 of pool main", BORN),
        ("Warning", "Reclaimed", "ann had taken it from node h2 before, stating: h2 burnt down",
         BORN),
        ("Normal", "ReleaseRequested", "node h1 is asked to give it back", LATER),
    ]  # fmt: skip
    plain = obj("IPBlock", "b", spec)
    assert [one[1] for one in told("ipblocks", plain)] == ["Claimed"]


def test_workloads_are_reported_or_declared() -> None:
    born = obj("Workload", "a.h1", {"node": "h1", "origin": "Node"})
    assert told("workloads", born) == [("Normal", "Reported", "node h1 has attached it", BORN)]
    declared = obj("Workload", "a", {"node": "h1", "origin": "API"})
    assert told("workloads", declared)[0][1] == "Created"


def test_an_event_keeps_its_name_and_says_what_it_is_of() -> None:
    names = ["h1", "h-1.rack-2.example", "x" * 63 + ".y" * 95]
    for name in names:
        odd = condition("Odd.Type_x!", "True")
        events = events_of(KINDS["nodes"], obj("Node", name, {}, odd))
        for event in events:
            assert object_of(event["metadata"]["name"]) == ("node", name)
            assert event["involvedObject"] == {
                "apiVersion": "routed.dev/v1", "kind": "Node", "name": name, "uid": "u1",
            }  # fmt: skip
        again = events_of(KINDS["nodes"], obj("Node", name, {}, {**odd, "status": "False"}))
        for before, after in zip(events, again, strict=True):
            for field in ("name", "uid", "namespace"):
                assert before["metadata"][field] == after["metadata"][field]
        assert len({event["metadata"]["uid"] for event in events}) == 2


@pytest.fixture(scope="module")
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.http() as client:
        for name in ("h1", "h2"):
            assert client.post("/nodes", json={"metadata": {"name": name}}).status_code == 201
        pool = {"metadata": {"name": "main"}, "spec": {"cidr": "10.65.0.0/24"}}
        assert client.post("/ippools", json=pool).status_code == 201
        claim = {"spec": {"node": "h1", "pool": "main"}}
        assert client.post("/ipblocks", json=claim).status_code == 201
        yield client


def core(client: httpx.Client, path: str = "/events", **options: Any) -> httpx.Response:
    root = str(client.base_url).partition("/apis")[0]
    return client.get(f"{root}/api/v1{path}", **options)


def reasons(client: httpx.Client, fields: str) -> list[str]:
    answer = core(client, params={"fieldSelector": fields})
    assert answer.status_code == 200, answer.text
    return [one["reason"] for one in answer.json()["items"]]


def say(client: httpx.Client, node: str, status: str, reason: str) -> Document:
    ready = {"type": "Ready", "status": status, "reason": reason}
    change = json.dumps({"status": {"conditions": [ready]}})
    made = client.patch(f"/nodes/{node}/status", content=change, headers=MERGE).json()
    return made["status"]["conditions"][0]  # type: ignore[no-any-return]


def test_a_transition_is_an_event_at_its_time(admin: httpx.Client) -> None:
    name = "/namespaces/default/events/h1.node-is-ready"
    say(admin, "h1", "False", "NotReady")
    before = core(admin, name).json()
    assert (before["type"], before["reason"]) == ("Warning", "NotReady")
    said = say(admin, "h1", "True", "AgentReady")
    after = core(admin, name).json()
    assert (after["type"], after["reason"]) == ("Normal", "AgentReady")
    assert after["lastTimestamp"] == said["lastTransitionTime"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["resourceVersion"] > before["metadata"]["resourceVersion"]
    version = admin.get("/nodes/h1").json()["metadata"]["resourceVersion"]
    assert after["metadata"]["resourceVersion"] == version


def test_events_are_selected_by_what_they_are_of(admin: httpx.Client) -> None:
    say(admin, "h2", "False", "NotReady")
    uid = admin.get("/nodes/h2").json()["metadata"]["uid"]
    describe = "involvedObject.name=h2,involvedObject.namespace=,involvedObject.kind=Node"
    assert reasons(admin, f"{describe},involvedObject.uid={uid}") == ["Created", "NotReady"]
    assert reasons(admin, f"{describe},involvedObject.uid=other") == []
    apiversion = "involvedObject.apiVersion=routed.dev/v1"
    assert reasons(admin, f"involvedObject.kind=IPBlock,{apiversion}") == ["Claimed"]
    assert reasons(admin, "involvedObject.kind=IPBlock,involvedObject.apiVersion=v1") == []
    assert "NotReady" in reasons(admin, "type=Warning")
    assert "Created" not in reasons(admin, "type!=Normal")
    assert reasons(admin, "metadata.name=h2.node-is-ready") == ["NotReady"]
    assert reasons(admin, "metadata.name=h2.frog-is-ready") == []
    assert reasons(admin, "involvedObject.kind=Pod") == []
    wrong = core(admin, params={"fieldSelector": "spec.node=h1"})
    assert (wrong.status_code, wrong.json()["reason"]) == (400, "BadRequest")
    assert core(admin, params={"labelSelector": "a=b"}).json()["items"] == []


def test_pages_have_each_event_once_in_order_of_time(admin: httpx.Client) -> None:
    whole = core(admin).json()["items"]
    assert len(whole) >= 5
    times = [one["lastTimestamp"] for one in whole]
    assert times == sorted(times)
    paged: list[Document] = []
    query: Document = {"limit": 2}
    while True:
        page = core(admin, "/namespaces/default/events", params=query).json()
        assert len(page["items"]) <= 2
        paged += page["items"]
        query["continue"] = page["metadata"].get("continue", "")
        if not query["continue"]:
            break
    assert paged == whole


def test_what_there_is_not(admin: httpx.Client) -> None:
    assert core(admin, "/namespaces/other/events").json()["items"] == []
    for name in ("h9.node-created", "h1.node-is-hungry", "h1.frog-created", "h1"):
        missing = core(admin, f"/namespaces/default/events/{name}")
        assert (missing.status_code, missing.json()["reason"]) == (404, "NotFound"), name
    watching = core(admin, params={"watch": "1"})
    assert (watching.status_code, watching.json()["reason"]) == (405, "MethodNotAllowed")
    root = str(admin.base_url).partition("/apis")[0]
    made = admin.post(f"{root}/api/v1/namespaces/default/events", json={})
    assert made.status_code == 405, "nobody writes events"


def test_who_may_not_see_an_object_sees_none_of_its_events(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    config = tmp_path / "h2"
    config.write_text(admin.post("/nodes/h2/credentials").text)
    with service.http(config) as node:
        of = {one["involvedObject"]["name"] for one in core(node).json()["items"]}
        assert of == {"h2", "main"}, "itself, and the pools that all work from"
        assert core(node, "/namespaces/default/events/h2.node-created").status_code == 200
        assert core(node, "/namespaces/default/events/h1.node-created").status_code == 403
        assert reasons(node, "involvedObject.name=h1") == []
    rule = {"kinds": ["Node"], "verbs": ["get"]}
    role = {"metadata": {"name": "reader"}, "spec": {"rules": [rule]}}
    assert admin.post("/roles", json=role).status_code == 201
    config.write_text(admin.post("/users/ann/credentials", json={"role": "reader"}).text)
    with service.http(config) as ann:
        assert core(ann).status_code == 403, "she may list nothing"
        assert core(ann, "/namespaces/default/events/h1.node-created").status_code == 200


async def all_events(state: State) -> list[Document]:
    return [
        event
        for kind, item in await latest(state, ADMIN, About())
        for event in events_of(kind, document_of(item.value, item.revision))
    ]


def test_every_replica_tells_the_same_and_after_a_restart_too(tmp_path: Path) -> None:
    async def opened() -> tuple[Objects, SqliteStore]:
        store = SqliteStore(tmp_path / "s.db")
        return Objects(store), store

    async def body() -> None:
        seen = []
        first, second = await opened(), await opened()
        node: Document = {"metadata": {"name": "h1"}}
        node["status"] = {"conditions": [{"type": "Ready", "status": "False"}]}
        await first[0].create(KINDS["nodes"], node)
        for objects, store in (first, second, await opened()):
            seen.append(await all_events(await objects.mirror.fresh()))
            await objects.mirror.close()
            await store.close()
        again, store = await opened()
        seen.append(await all_events(await again.mirror.fresh()))
        await store.close()
        assert [one["reason"] for one in seen[0]] == ["Created", "Ready"]
        assert seen == [seen[0]] * 4

    asyncio.run(body())


def test_of_everything_only_what_changed_last_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "s.db")
        objects = Objects(store)
        kind = KINDS["networksets"]
        for start in (0, OBJECTS_MOST):
            made = ({"metadata": {"name": f"s{start + n}"}} for n in range(OBJECTS_MOST))
            await asyncio.gather(*(objects.create(kind, one) for one in made))
        state = await objects.mirror.fresh()
        found = await latest(state, ADMIN, About())
        names = {item.key.rpartition("/")[2] for _, item in found}
        assert names == {f"s{OBJECTS_MOST + n}" for n in range(OBJECTS_MOST)}
        named = await latest(state, ADMIN, About(name="s0"))
        assert [one.key for _, one in named] == ["/networksets/s0"]
        assert await latest(state, Identity("v", VIEWER), About("Tier")) == []
        await objects.mirror.close()
        await store.close()

    asyncio.run(body())
