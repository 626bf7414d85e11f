"""Server-side apply as a whole: what belongs to which subresource, and who may, when others write
in the same moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service import Service
from support.stores import Watched

from api.resources.errors import Forbidden, IntentError
from api.resources.registry import KINDS
from api.service.applying import apply
from api.service.codec import encoded
from api.service.objects import Objects, anything
from api.service.options import Options
from api.store.sqlite.store import SqliteStore

PEERS = KINDS["bgppeers"]
KEY = "/bgppeers/tor"
TOR = {"metadata": {"name": "tor"}, "spec": {"peerIP": "192.0.2.1", "asNumber": 65001}}
YAML = {"content-type": "application/apply-patch+yaml"}


@pytest.fixture(scope="module")
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.http() as client:
        yield client


def applied(client: httpx.Client, path: str, document: dict[str, Any], **query: str) -> Any:
    answer = client.patch(
        path, content=json.dumps(document), headers=YAML, params={"fieldManager": "ann", **query}
    )
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def owned(document: dict[str, Any], subresource: str = "") -> set[str]:
    """The top-level fields that somebody applied there."""
    entries = document["metadata"].get("managedFields", [])
    return {
        field
        for entry in entries
        if entry.get("subresource", "") == subresource and entry["operation"] == "Apply"
        for field in entry["fieldsV1"]
    }


def test_a_status_is_not_applied_with_the_rest(admin: httpx.Client) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "versions": {"a": "1"}}
    node = {"metadata": {"name": "n1", "labels": {"a": "b"}}, "status": ready}
    made = applied(admin, "/nodes/n1", node)
    assert made["status"] == {"addresses": [], "conditions": [], "versions": {}}
    assert owned(made) == {"f:metadata"}
    said = applied(admin, "/nodes/n1/status", node, fieldManager="agent")
    assert said["status"]["versions"] == {"a": "1"}
    node["status"] = {"versions": {"a": "2"}}
    again = applied(admin, "/nodes/n1", node)
    assert again == said, "no conflict with who said the status, and nothing of it is changed"
    assert owned(again, "status") == {"f:status"}


def test_the_rest_is_not_applied_with_a_status(admin: httpx.Client) -> None:
    applied(admin, "/nodes/n2", {"metadata": {"name": "n2"}, "spec": {"unschedulable": True}})
    node = {
        "metadata": {"name": "n2", "labels": {"x": "y"}},
        "spec": {"unschedulable": False},
        "status": {"versions": {"a": "1"}},
    }
    said = applied(admin, "/nodes/n2/status", node, fieldManager="bob")
    assert (said["spec"]["unschedulable"], said["metadata"]["labels"]) == (True, {})
    assert said["status"]["versions"] == {"a": "1"}
    assert owned(said, "status") == {"f:status"}
    assert owned(said) == {"f:spec"}


def with_tor(path: Path, body: Callable[[Objects, Watched], Awaitable[None]]) -> None:
    """A service with one peer, and a store that others write to."""

    async def whole() -> None:
        store = Watched(path / "s.db")
        objects = Objects(store)
        await objects.create(PEERS, TOR)
        try:
            await body(objects, store)
        finally:
            await objects.mirror.close()
            await store.close()

    asyncio.run(whole())


def no(verb: str) -> Callable[[Any], None]:
    def may(document: Any) -> None:
        raise Forbidden(f"cannot {verb}")

    return may


async def hold(objects: Objects, seconds: int, may: Any, may_create: Any) -> dict[str, Any]:
    document = {"metadata": {"name": "tor"}, "spec": {**TOR["spec"], "holdTime": seconds}}
    options = Options(manager="ann")
    made, _ = await apply(objects, PEERS, "tor", document, may, may_create, options=options)
    held: dict[str, Any] = json.loads(made.value)
    return held


async def others(path: Path, *values: bytes | None) -> None:
    """What another replica writes meanwhile."""
    store = SqliteStore(path / "s.db")
    _, found = await store.scan(KEY)
    revision = found[0].revision if found else 0
    for value in values:
        revision = (await store.commit({KEY: revision}, {KEY: value})).get(KEY, 0)
    await store.close()


def test_who_may_only_patch_creates_nothing_while_another_deletes(tmp_path: Path) -> None:
    async def body(objects: Objects, store: Watched) -> None:
        async def meanwhile(puts: Any) -> None:
            store.before = None
            await others(tmp_path, None)

        store.before = meanwhile
        with pytest.raises(Forbidden, match="cannot create"):
            await hold(objects, 30, anything, no("create"))
        assert (await objects.list(PEERS))[1] == []
        made = await hold(objects, 30, anything, anything)
        assert made["spec"]["holdTime"] == 30, "who may both goes on with what is so by then"

    with_tor(tmp_path, body)


def test_who_may_apply_both_ways_creates_what_another_deletes(tmp_path: Path) -> None:
    async def body(objects: Objects, store: Watched) -> None:
        before = json.loads((await objects.get(PEERS, "tor")).value)["metadata"]["uid"]

        async def meanwhile(puts: Any) -> None:
            store.before = None
            await others(tmp_path, None)

        store.before = meanwhile
        made = await hold(objects, 30, anything, anything)
        assert made["metadata"]["uid"] != before

    with_tor(tmp_path, body)


def test_who_may_create_changes_nothing_of_another_that_appears(tmp_path: Path) -> None:
    async def body(objects: Objects, store: Watched) -> None:
        theirs = json.loads((await objects.get(PEERS, "tor")).value)
        theirs["metadata"]["labels"] = {"team": "red"}
        await others(tmp_path, None)

        async def meanwhile(puts: Any) -> None:
            store.before = None
            await others(tmp_path, encoded(theirs))

        def not_of_red(document: Any) -> None:
            if document["metadata"].get("labels"):
                raise Forbidden("cannot patch what is red")

        store.before = meanwhile
        with pytest.raises(Forbidden, match="cannot patch"):
            await hold(objects, 30, not_of_red, anything)
        held = json.loads((await objects.get(PEERS, "tor")).value)
        assert held == theirs

    with_tor(tmp_path, body)


@pytest.mark.parametrize(
    ("verbs", "creates", "changes"),
    [(["patch"], 403, 200), (["create"], 403, 403), (["create", "patch"], 201, 200)],
)
def test_apply_needs_patch_and_for_what_is_new_create(
    service: Service, admin: httpx.Client, tmp_path: Path,
    verbs: list[str], creates: int, changes: int,
) -> None:  # fmt: skip
    user = "-".join(verbs)
    rule = {"kinds": ["BGPPeer"], "verbs": verbs}
    role = {"metadata": {"name": user}, "spec": {"rules": [rule]}}
    assert admin.post("/roles", json=role).status_code == 201
    config = tmp_path / user
    config.write_text(admin.post(f"/users/{user}/credentials", json={"role": user}).text)
    query = {"fieldManager": user, "force": "true"}
    with service.http(config) as somebody:
        for code in (creates, changes):
            answer = somebody.patch(
                "/bgppeers/tor", content=json.dumps(TOR), headers=YAML, params=query
            )
            assert answer.status_code == code, answer.text
            if code == 403:
                assert "does not allow it" in answer.json()["message"]
            if admin.get("/bgppeers/tor").status_code == 404:
                assert admin.post("/bgppeers", json=TOR).status_code == 201
    assert admin.delete("/bgppeers/tor").status_code == 200


def test_what_is_unknown_is_neither_kept_nor_owned(admin: httpx.Client) -> None:
    document = {"metadata": {"name": "odd"}, "spec": {**TOR["spec"], "colour": {"is": "red"}}}
    made = applied(admin, "/bgppeers/odd", document)
    assert "colour" not in json.dumps(made)
    strict = admin.patch(
        "/bgppeers/odd", content=json.dumps(document), headers=YAML,
        params={"fieldManager": "ann", "fieldValidation": "Strict"},
    )  # fmt: skip
    assert (strict.status_code, strict.json()["reason"]) == (400, "BadRequest")
    assert admin.delete("/bgppeers/odd").status_code == 200


def test_another_kind_is_not_applied(admin: httpx.Client) -> None:
    for wrong in ({"kind": "IPPool"}, {"apiVersion": "v1"}):
        answer = admin.patch(
            "/bgppeers/tor", content=json.dumps(TOR | wrong), headers=YAML,
            params={"fieldManager": "ann"},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest"), wrong
        assert "cannot read BGPPeer 'tor'" in answer.json()["message"]
    assert admin.get("/bgppeers/tor").status_code == 404


def test_a_block_is_claimed_not_applied(tmp_path: Path) -> None:
    async def body(objects: Objects, store: Watched) -> None:
        document = {"metadata": {"name": "10-0-0-0-26"}, "spec": {"node": "h1", "pool": "main"}}
        kind = KINDS["ipblocks"]
        with pytest.raises(IntentError, match="claimed by creating"):
            await apply(
                objects, kind, "10-0-0-0-26", document, anything, anything,
                options=Options(manager="ann"),
            )  # fmt: skip

    with_tor(tmp_path, body)
