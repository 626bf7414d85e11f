"""The service as its users meet it: a process, TLS, tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service import Service, tls_socket

from api.auth import kubeconfig
from api.client import Client, Unreachable
from api.resources import IPPool, Node, ObjectMeta
from api.resources.errors import Conflict, Invalid, NotFound


@pytest.fixture(scope="module")
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.http() as client:
        yield client
        for plural in ("workloads", "ipblocks", "ippools"):
            for item in client.get(f"/{plural}").json()["items"]:
                path = f"/{plural}/{item['metadata']['name']}"
                forced(client, path) if plural == "ipblocks" else client.delete(path)


@pytest.fixture(scope="module", autouse=True)
def world(admin: httpx.Client) -> None:
    for node in ("h1", "h2"):
        made = admin.post("/nodes", json=obj(node, {}))
        assert made.status_code == 201, made.text
    assert admin.post("/ippools", json=obj("main", {"cidr": "10.65.0.0/16"})).status_code == 201


def obj(name: str, spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "spec": spec}


def forced(admin: httpx.Client, path: str, statement: str = "it is off") -> httpx.Response:
    """Delete a block of a node that will never say that it has let go of it."""
    annotation = {"metadata": {"annotations": {"routed.dev/force-release": statement}}}
    merge = {"content-type": "application/merge-patch+json"}
    answer = admin.patch(path, content=json.dumps(annotation), headers=merge)
    assert answer.status_code == 200, answer.text
    return admin.delete(path)


def as_node(service: Service, admin: httpx.Client, node: str, directory: Path) -> httpx.Client:
    """A client with the node's own credentials."""
    config = directory / node
    config.write_text(admin.post(f"/nodes/{node}/credentials").text)
    return service.http(config)


def refused(answer: httpx.Response, code: int, reason: str, *parts: str) -> None:
    assert answer.status_code == code, answer.text
    status = answer.json()
    assert (status["kind"], status["reason"], status["code"]) == ("Status", reason, code)
    for part in parts:
        assert part in json.dumps(status), part


def test_an_object_lives_through_its_verbs(admin: httpx.Client) -> None:
    spec = {"peerIP": "192.0.2.1", "asNumber": 65001}
    made = admin.post("/bgppeers", json=obj("tor", spec)).json()
    assert made["spec"]["holdTime"] == 9
    assert made["metadata"]["generation"] == 1
    assert admin.get("/bgppeers/tor").json() == made
    refused(admin.post("/bgppeers", json=obj("tor", spec)), 409, "AlreadyExists")
    same = admin.put("/bgppeers/tor", json=made).json()
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    made["spec"]["holdTime"] = 3
    changed = admin.put("/bgppeers/tor", json=made).json()
    assert changed["metadata"]["generation"] == 2
    refused(admin.put("/bgppeers/tor", json=made), 409, "Conflict", "has been modified")
    del made["metadata"]["resourceVersion"]
    refused(admin.put("/bgppeers/tor", json=made), 422, "Invalid", "metadata.resourceVersion")
    patched = admin.patch(
        "/bgppeers/tor",
        content=json.dumps({"metadata": {"labels": {"a": "b"}}}),
        headers={"content-type": "application/merge-patch+json"},
    ).json()
    assert patched["metadata"]["labels"] == {"a": "b"}
    assert patched["metadata"]["generation"] == 2
    wrong = {"preconditions": {"uid": "other"}}
    refused(admin.request("DELETE", "/bgppeers/tor", json=wrong), 409, "Conflict")
    assert admin.delete("/bgppeers/tor").json()["status"] == "Success"
    refused(admin.get("/bgppeers/tor"), 404, "NotFound")


def test_status_and_spec_are_written_apart(admin: httpx.Client) -> None:
    node = admin.get("/nodes/h1").json()
    ready = [{"type": "Ready", "status": "True"}]
    node["status"] = {"conditions": ready, "versions": {}}
    node["spec"]["unschedulable"] = True
    done = admin.put("/nodes/h1/status", json=node).json()
    assert done["spec"]["unschedulable"] is False
    assert done["status"]["conditions"][0]["lastTransitionTime"]
    done["status"]["conditions"] = []
    done["spec"]["unschedulable"] = True
    after = admin.put("/nodes/h1", json=done).json()
    assert after["spec"]["unschedulable"] is True
    assert len(after["status"]["conditions"]) == 1


def test_nodes_get_asns_of_their_own(admin: httpx.Client) -> None:
    numbers = [item["spec"]["asNumber"] for item in admin.get("/nodes").json()["items"]]
    assert sorted(numbers) == [4200000000, 4200000001]


def test_pools_never_overlap_and_are_immutable_where_it_matters(admin: httpx.Client) -> None:
    for cidr in ("10.65.4.0/24", "10.64.0.0/10", "10.65.0.0/16"):
        refused(admin.post("/ippools", json=obj("b", {"cidr": cidr})), 422, "Invalid", "pool main")
    pool = admin.get("/ippools/main").json()
    pool["spec"]["cidr"] = "10.70.0.0/16"
    pool["spec"]["blockSize"] = 27
    refused(admin.put("/ippools/main", json=pool), 422, "Invalid", "spec.cidr", "spec.blockSize")
    six = admin.post("/ippools", json=obj("six", {"cidr": "fd00:65::/64"}))
    assert six.json()["spec"]["blockSize"] == 122


def test_blocks_are_claimed_once(admin: httpx.Client) -> None:
    first = admin.post("/ipblocks", json={"spec": {"node": "h1", "pool": "main"}}).json()
    assert first["metadata"]["name"] == "10-65-0-0-26"
    second = admin.post("/ipblocks", json={"spec": {"node": "h2", "pool": "main"}}).json()
    assert second["spec"]["cidr"] == "10.65.0.64/26"
    again = admin.post("/ipblocks", json={"spec": {"node": "h1", "address": "10.65.0.9"}})
    assert again.status_code == 200
    assert again.json()["metadata"]["name"] == "10-65-0-0-26"
    other = admin.post("/ipblocks", json={"spec": {"node": "h2", "address": "10.65.0.9"}})
    refused(other, 409, "Conflict", "10.65.0.0/26", "node h1")
    refused(admin.post("/ipblocks", json={"spec": {"node": "h9", "pool": "main"}}), 422, "Invalid")
    refused(admin.delete("/ippools/main"), 409, "Conflict", "10-65-0-0-26")


def test_workloads_that_no_node_could_carry_out(admin: httpx.Client) -> None:
    def declare(name: str, address: str, node: str = "h1") -> httpx.Response:
        return admin.post("/workloads", json=obj(name, {"node": node, "addresses": [address]}))

    assert declare("one", "10.65.0.3").status_code == 201
    refused(declare("two", "10.65.0.3"), 409, "Conflict", "workload one", "node h1")
    refused(declare("two", "192.0.2.1"), 422, "Invalid", "outside every pool", "main 10.65.0.0/16")
    refused(declare("two", "10.65.0.70"), 409, "Conflict", "10.65.0.64/26", "node h2")
    refused(declare("two", "10.65.0.4", "h9"), 422, "Invalid", "no node 'h9'")
    refused(declare("two.h1", "10.65.0.4"), 422, "Invalid", "metadata.name")
    held = admin.get("/workloads/one").json()
    held["spec"]["origin"] = "Node"
    refused(admin.put("/workloads/one", json=held), 422, "Invalid")


def test_lists_are_selected_and_paged(admin: httpx.Client) -> None:
    for place in range(5):
        spec = {"peerIP": f"192.0.2.{place + 1}", "asNumber": 1}
        admin.post("/bgppeers", json=obj(f"p{place}", spec, labels={"odd": str(place % 2)}))
    odd = admin.get("/bgppeers", params={"labelSelector": "odd=1"}).json()
    assert [item["metadata"]["name"] for item in odd["items"]] == ["p1", "p3"]
    names: list[str] = []
    token = ""
    while True:
        page = admin.get("/bgppeers", params={"limit": 2, "continue": token}).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"p{place}" for place in range(5)]
    refused(admin.get("/bgppeers", params={"limit": "x"}), 400, "BadRequest")
    refused(admin.get("/bgppeers", params={"fieldSelector": "spec.x=1"}), 400, "BadRequest")


def test_a_watch_shows_the_set_then_changes(service: Service) -> None:
    async def body() -> None:
        client = Client.from_kubeconfig(service.admin)
        seen: list[str] = []
        whole = asyncio.Event()
        deleted = asyncio.Event()

        async def watch() -> None:
            async for event in client.watch("nodes", field_selector="metadata.name=w1"):
                name = event.object.metadata.name if event.object else ""
                seen.append(f"{event.type} {name}".strip())
                whole.set() if event.type == "END" else None
                deleted.set() if event.type == "DELETED" else None

        watching = asyncio.create_task(watch())
        await asyncio.wait_for(whole.wait(), 10)
        made = await client.create(Node(kind="Node", metadata=ObjectMeta(name="w1")))
        await client.create(Node(kind="Node", metadata=ObjectMeta(name="w2")))
        await client.patch(Node, made.metadata.name, {"spec": {"unschedulable": True}})
        await client.delete(Node, "w1")
        await client.delete(Node, "w2")
        await asyncio.wait_for(deleted.wait(), 10)
        watching.cancel()
        assert seen == ["BEGIN", "END", "ADDED w1", "MODIFIED w1", "DELETED w1"]
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()

    asyncio.run(body())


def test_the_clients_errors_are_typed(service: Service) -> None:
    async def body() -> None:
        client = Client.from_kubeconfig(service.admin)
        with pytest.raises(NotFound):
            await client.get(IPPool, "none")
        pool = await client.get(IPPool, "main")
        with pytest.raises(Invalid) as caught:
            await client.create(pool.model_copy(update={"metadata": ObjectMeta(name="main2")}))
        assert caught.value.causes[0].field == "spec.cidr"
        stale = {"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}}
        with pytest.raises(Conflict):
            await client.patch(IPPool, "main", stale)
        await client.close()
        nobody = Client.from_kubeconfig(service.admin, "https://127.0.0.1:1")
        with pytest.raises(Unreachable):
            await nobody.get(IPPool, "main")
        await nobody.close()

    asyncio.run(body())


def test_who_is_nobody_gets_nothing(service: Service) -> None:
    for token in ("", "rt-wrong"):
        with service.http(token=token) as client:
            refused(client.get("/nodes"), 401, "Unauthorized")
            refused(client.post("/nodes", json=obj("x", {})), 401, "Unauthorized")


def test_a_node_touches_only_its_own(service: Service, admin: httpx.Client, tmp_path: Path) -> None:
    text = admin.post("/nodes/h1/credentials").text
    config = tmp_path / "h1"
    config.write_text(text)
    merge = {"content-type": "application/merge-patch+json"}
    with service.http(config) as node:
        assert [one["metadata"]["name"] for one in node.get("/nodes").json()["items"]] == ["h1"]
        own = node.post("/ipblocks", json={"spec": {"node": "h1", "pool": "main"}})
        assert own.status_code == 201
        report = obj("a.h1", {"node": "h1", "origin": "Node"})
        assert node.post("/workloads", json=report).status_code == 201
        assert node.delete("/workloads/a.h1").status_code == 200
        foreign = admin.get("/nodes/h2").json()
        block = admin.get("/ipblocks/10-65-0-64-26").json()
        for answer in (
            node.post("/ipblocks", json={"spec": {"node": "h2", "pool": "main"}}),
            node.delete("/ipblocks/10-65-0-64-26"),
            node.put("/ipblocks/10-65-0-64-26/status", json=block),
            node.put("/nodes/h2", json=foreign),
            node.put("/nodes/h2/status", json=foreign),
            node.patch("/nodes/h2", content="{}", headers=merge),
            node.delete("/nodes/h1"),
            node.post("/workloads", json=obj("a.h2", {"node": "h2", "origin": "Node"})),
            node.post("/workloads", json=obj("a", {"node": "h1"})),
            node.delete("/workloads/one"),
            node.post("/ippools", json=obj("mine", {"cidr": "10.99.0.0/16"})),
            node.delete("/ippools/main"),
            node.post("/bgppeers", json=obj("p", {"peerIP": "192.0.2.9", "asNumber": 1})),
            node.post("/nodes/h1/credentials"),
            node.post("/nodes/h2/credentials"),
            node.delete("/nodes/none"),
        ):
            refused(answer, 403, "Forbidden")
    newer = admin.post("/nodes/h1/credentials").text
    assert newer != text
    with service.http(config) as node:
        refused(node.get("/nodes"), 401, "Unauthorized")


def test_what_is_too_large_or_no_json_is_refused(admin: httpx.Client) -> None:
    refused(admin.post("/nodes", content=b" " * (2 << 20)), 413, "RequestEntityTooLarge")
    refused(admin.post("/nodes", content=b"{"), 400, "BadRequest")
    refused(admin.post("/nodes", content=b"[]"), 400, "BadRequest")
    refused(admin.get("/nowhere"), 404, "NotFound")


def test_discovery_is_open_and_never_an_empty_v1(service: Service) -> None:
    with service.http(token="") as client:
        root = str(client.base_url).partition("/apis")[0]
        assert client.get(f"{root}/api").json()["versions"] == ["v1"]
        core = client.get(f"{root}/api/v1").json()["resources"]
        assert [(one["name"], one["verbs"]) for one in core] == [("events", ["get", "list"])]
        kinds = client.get(f"{root}/apis/routed.dev/v1").json()["resources"]
        assert {"name": "workloads", "kind": "Workload"}.items() <= next(
            entry for entry in kinds if entry["name"] == "workloads"
        ).items()
        assert client.get(f"{root}/readyz").text == "ok"
        assert client.get(f"{root}/docs").status_code == 200


def test_secrets_are_the_owners_alone(service: Service) -> None:
    for path in service.directory.iterdir():
        if path.suffix in (".kubeconfig", ".key", ".crt", ".db"):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"metadata":{"name":"q"},"spec":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"metadata":{"name":"q","labels":{"a":"\\ud800"}},"spec":{"cidr":"10.70.0.0/16"}}',
    ],
)
def test_a_body_that_cannot_be_kept_is_a_bad_request(admin: httpx.Client, body: bytes) -> None:
    refused(admin.post("/ippools", content=body), 400, "BadRequest", "cannot read the request")
    assert admin.get("/ippools/q").status_code == 404


@pytest.mark.parametrize("preconditions", [[1], "abc", 7])
def test_preconditions_of_a_wrong_type(admin: httpx.Client, preconditions: object) -> None:
    options = {"preconditions": preconditions}
    refused(admin.request("DELETE", "/ippools/main", json=options), 400, "BadRequest")


def test_an_update_without_asn_keeps_what_the_service_chose(admin: httpx.Client) -> None:
    """A file with labels only, applied to a node, must not end the node's sessions."""
    node = admin.get("/nodes/h1").json()
    version = node["metadata"]["resourceVersion"]
    document = obj("h1", {}, resourceVersion=version, labels={"rack": "r1"})
    changed = admin.put("/nodes/h1", json=document).json()
    assert changed["metadata"]["labels"] == {"rack": "r1"}
    assert changed["spec"]["asNumber"] == node["spec"]["asNumber"]
    assert changed["spec"]["addresses"] == node["spec"]["addresses"]


def test_a_block_in_use_is_not_deleted(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    claim = {"spec": {"node": "h1", "pool": "main"}}
    block = admin.post("/ipblocks", json=claim).json()
    path = f"/ipblocks/{block['metadata']['name']}"
    with as_node(service, admin, "h1", tmp_path) as owner:
        for status in ({"assigned": 1}, {"cooling": 1}):
            held = admin.get(path).json()
            assert admin.put(f"{path}/status", json={**held, "status": status}).status_code == 200
            refused(owner.delete(path), 409, "Conflict", "cannot delete block", "h1")
        held = admin.get(path).json()
        assert admin.put(f"{path}/status", json={**held, "status": {}}).status_code == 200
        assert owner.delete(path).status_code == 200
    refused(admin.get(path), 404, "NotFound")


def test_whoever_else_deletes_a_block_asks_its_owner(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    claim = {"spec": {"node": "h1", "address": "10.65.220.1"}}
    path = f"/ipblocks/{admin.post('/ipblocks', json=claim).json()['metadata']['name']}"
    assert admin.delete(path).status_code == 200
    asked = admin.get(path).json()
    assert asked["metadata"]["deletionTimestamp"]
    assert admin.delete(path).status_code == 200
    assert admin.get(path).json() == asked, "once is enough"
    with as_node(service, admin, "h1", tmp_path) as owner:
        assert owner.delete(path).status_code == 200
    refused(admin.get(path), 404, "NotFound")


def test_an_operator_who_states_that_a_node_is_off_is_remembered(admin: httpx.Client) -> None:
    claim = {"spec": {"node": "h1", "address": "10.65.221.1"}}
    path = f"/ipblocks/{admin.post('/ipblocks', json=claim).json()['metadata']['name']}"
    assert forced(admin, path, "  ").status_code == 200
    assert admin.get(path).json()["metadata"]["deletionTimestamp"], "blanks state nothing"
    assert forced(admin, path, "h1 burnt down").status_code == 200
    claim["spec"]["node"] = "h2"
    given = admin.post("/ipblocks", json=claim).json()["metadata"]
    assert "deletionTimestamp" not in given
    assert given["annotations"] == {
        "routed.dev/reclaimed-from": "h1",
        "routed.dev/reclaimed-by": "admin",
        "routed.dev/reclaimed-statement": "h1 burnt down",
    }
    forced(admin, path)
    with_new_owner = admin.post("/ipblocks", json=claim).json()["metadata"]["annotations"]
    assert with_new_owner["routed.dev/reclaimed-from"] == "h2", "the last one's only"


def test_a_statement_with_the_deletion_leaves_none_behind(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    claim = {"spec": {"node": "h1", "address": "10.65.224.1"}}
    made = admin.post("/ipblocks", json=claim).json()
    path = f"/ipblocks/{made['metadata']['name']}"

    def take(by: httpx.Client, statement: object, **conditions: str) -> httpx.Response:
        body = {"statement": statement, "preconditions": conditions}
        return by.request("DELETE", path, json=body)

    refused(take(admin, "it is off", uid="another"), 409, "Conflict", "precondition failed")
    assert admin.get(path).json() == made, "what was refused leaves nothing"
    refused(take(admin, 1), 400, "BadRequest", "cannot read statement")
    refused(
        admin.request("DELETE", "/ipblocks", json={"statement": "all are off"}), 400, "BadRequest"
    )
    rule = {"kinds": ["IPBlock"], "verbs": ["get", "delete"]}
    assert admin.post("/roles", json=obj("asker", {"rules": [rule]})).status_code == 201
    config = tmp_path / "asker"
    config.write_text(admin.post("/users/asks/credentials", json={"role": "asker"}).text)
    with service.http(config) as asker:
        refused(take(asker, "it is off"), 403, "Forbidden", "cannot update ipblocks")
        assert admin.get(path).json() == made
        assert asker.delete(path).status_code == 200
    assert admin.get(path).json()["metadata"]["deletionTimestamp"], "who may ask has asked"
    assert take(admin, "it is off", uid=made["metadata"]["uid"]).status_code == 200
    refused(admin.get(path), 404, "NotFound")
    claim["spec"]["node"] = "h2"
    given = admin.post("/ipblocks", json=claim).json()["metadata"]["annotations"]
    assert given["routed.dev/reclaimed-statement"] == "it is off"


def test_every_owner_has_a_greater_epoch(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    epochs = []
    for node in ("h1", "h2", "h1"):
        claim = {"spec": {"node": node, "address": "10.65.223.1", "epoch": 1}}
        made = admin.post("/ipblocks", json=claim).json()
        again = admin.post("/ipblocks", json=claim).json()
        assert again["spec"] == made["spec"], "the same claim, answered once more"
        path = f"/ipblocks/{made['metadata']['name']}"
        epochs.append(made["spec"]["epoch"])
        if node == "h2":
            forced(admin, path)
        elif len(epochs) == 1:
            with as_node(service, admin, node, tmp_path) as owner:
                assert owner.delete(path).status_code == 200
    assert epochs == sorted(set(epochs)), "also where it goes back and forth"
    merge = {"content-type": "application/merge-patch+json"}
    with as_node(service, admin, "h1", tmp_path) as owner:

        def report(epoch: int) -> httpx.Response:
            said = {"spec": {"epoch": epoch}, "status": {"assigned": 3}}
            return owner.patch(f"{path}/status", content=json.dumps(said), headers=merge)

        stale = report(epochs[0])
        refused(stale, 409, "Conflict", "spec.epoch", str(epochs[0]), str(epochs[-1]))
        assert admin.get(path).json() == made, "fenced: what it said before is not said of this"
        assert report(epochs[-1]).status_code == 200
        uid = {"preconditions": {"uid": "the first's"}}
        refused(owner.request("DELETE", path, json=uid), 409, "Conflict", "uid")
    spec = {**made, "spec": {**made["spec"], "epoch": epochs[0]}}
    spec["metadata"]["resourceVersion"] = admin.get(path).json()["metadata"]["resourceVersion"]
    refused(admin.put(path, json=spec), 422, "Invalid", "spec.epoch")
    del spec["spec"]["epoch"]
    assert admin.put(path, json=spec).json()["spec"]["epoch"] == epochs[-1]


def test_a_node_that_owns_blocks_is_not_deleted(admin: httpx.Client) -> None:
    assert admin.post("/nodes", json=obj("h3", {})).status_code == 201
    block = admin.post("/ipblocks", json={"spec": {"node": "h3", "pool": "main"}}).json()
    name = block["metadata"]["name"]
    refused(admin.delete("/nodes/h3"), 409, "Conflict", name, "routectl drain", "--force")
    forced(admin, f"/ipblocks/{name}")
    assert admin.delete("/nodes/h3").status_code == 200


def test_a_block_that_became_anothers_is_not_deleted(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    """A node's delete, begun while the block is its own, ends when it is another node's."""
    claim = {"spec": {"node": "h1", "address": "10.65.200.1"}}
    path = f"/ipblocks/{admin.post('/ipblocks', json=claim).json()['metadata']['name']}"
    as_node(service, admin, "h1", tmp_path).close()
    access = kubeconfig.read(tmp_path / "h1")
    with tls_socket(access) as slow:
        head = f"DELETE /apis/routed.dev/v1{path} HTTP/1.1\r\nhost: service\r\n"
        head += f"authorization: Bearer {access.token}\r\ncontent-length: 2\r\n\r\n"
        slow.sendall(head.encode())
        admin.get("/nodes")  # the head is there by now: it was sent before this
        assert forced(admin, path).status_code == 200
        claim["spec"]["node"] = "h2"
        assert admin.post("/ipblocks", json=claim).status_code == 201
        slow.sendall(b"{}")
        assert b" 403 " in slow.recv(4096).partition(b"\r\n")[0]
    assert admin.get(path).json()["spec"]["node"] == "h2"


def test_a_report_takes_no_address_of_another_node(admin: httpx.Client) -> None:
    for node, address in (("h1", "10.65.210.1"), ("h2", "10.65.211.1")):
        claim = {"spec": {"node": node, "address": address}}
        assert admin.post("/ipblocks", json=claim).status_code == 201
    report = obj("r.h1", {"node": "h1", "origin": "Node"})
    held = admin.post("/workloads", json=report).json()

    def say(*addresses: str) -> httpx.Response:
        document = {**held, "status": {"addresses": list(addresses)}}
        return admin.put("/workloads/r.h1/status", json=document)

    refused(say("10.65.210.1", "10.65.211.1"), 409, "Conflict", "10.65.211.1", "node h2")
    held = say("10.65.210.1").json()
    assert held["status"]["addresses"] == ["10.65.210.1"]
    other = obj("r.h2", {"node": "h2", "origin": "Node"}) | {"status": {"addresses": ["192.0.2.7"]}}
    assert admin.post("/workloads", json=other).status_code == 201
    refused(say("192.0.2.7"), 409, "Conflict", "in use by workload r.h2", "node h2")
    held = say().json()
    assert held["status"]["addresses"] == []


def test_a_watch_from_the_future_is_told_to_list_again(service: Service) -> None:
    with service.http() as api:
        present = int(api.get("/ippools").json()["metadata"]["resourceVersion"])
        query = {"watch": "1", "resourceVersion": str(present + 10**9)}
        answer = api.get("/ippools", params=query)
    assert answer.status_code == 410
    assert answer.json()["reason"] == "Expired"


def test_what_is_reserved_is_claimed_by_nobody(admin: httpx.Client) -> None:
    spec = {"reservedCIDRs": ["10.65.240.0/29", "10.65.240.64/26"]}
    made = admin.post("/ipreservations", json=obj("gateways", spec))
    assert made.status_code == 201, made.text
    wrong = {"reservedCIDRs": ["10.65.240.1/29", "10.65.0.0/16", "10.65.0.0/16"]}
    answer = admin.post("/ipreservations", json=obj("bad", wrong))
    refused(answer, 422, "Invalid", "spec.reservedCIDRs[0]", "10.65.240.0/29 would be right")
    twice = {"reservedCIDRs": ["10.65.0.0/16", "10.65.0.0/16"]}
    refused(admin.post("/ipreservations", json=obj("bad", twice)), 422, "Invalid", "CIDRs[1]")
    claim = {"spec": {"node": "h1", "address": "10.65.240.3"}}
    refused(admin.post("/ipblocks", json=claim), 409, "Conflict", "IPReservation gateways")
    asked = obj("pinned", {"node": "h1", "netns": "x", "addresses": ["10.65.240.70"]})
    refused(admin.post("/workloads", json=asked), 409, "Conflict", "spec.addresses", "gateways")
    held = made.json()
    held["spec"]["reservedCIDRs"] = ["10.65.240.64/26"]
    assert admin.put("/ipreservations/gateways", json=held).status_code == 200
    claimed = admin.post("/ipblocks", json=claim)
    assert claimed.status_code == 201, claimed.text
    assert claimed.json()["spec"]["cidr"] == "10.65.240.0/26"
    assert admin.delete("/ipreservations/gateways").status_code == 200


def test_what_only_the_service_says_is_not_taken_from_a_client(
    service: Service, admin: httpx.Client, tmp_path: Path
) -> None:
    forged = {"deletionTimestamp": "never", "managedFields": [{"x": 1}], "uid": "mine"}
    peer = obj("forged", {"peerIP": "192.0.2.9", "asNumber": 65001}, **forged)
    made = admin.post("/bgppeers", json=peer).json()
    assert not {"deletionTimestamp", "managedFields"} & made["metadata"].keys()
    assert made["metadata"]["uid"] != "mine"
    assert admin.delete("/bgppeers/forged").status_code == 200
    claim = {
        "metadata": {"annotations": {"routed.dev/force-release": "x", "note": "y"}},
        "spec": {"node": "h1", "address": "10.65.222.1"},
    }
    with as_node(service, admin, "h1", tmp_path) as owner:
        block = owner.post("/ipblocks", json=claim).json()
        assert block["metadata"]["annotations"] == {"note": "y"}
    path = f"/ipblocks/{block['metadata']['name']}"
    assert admin.delete(path).status_code == 200
    assert admin.get(path).json()["metadata"]["deletionTimestamp"], "it is only asked for"
    forced(admin, path)
    rule = {"kinds": ["Workload"], "verbs": ["*"]}
    assert admin.post("/roles", json=obj("writer", {"rules": [rule]})).status_code == 201
    config = tmp_path / "bob"
    config.write_text(admin.post("/users/bob/credentials", json={"role": "writer"}).text)
    with service.http(config) as bob:
        workload = obj("bobs", {"node": "h2", "netns": "x"}) | {"status": {"phase": "Ready"}}
        made = bob.post("/workloads", json=workload).json()
    assert made["status"]["phase"] == "Pending", "statuses are said by those who carry it out"
    assert admin.delete("/workloads/bobs").status_code == 200


@pytest.mark.parametrize("body", [{"dryRun": 5}, {"dryRun": True}, {"dryRun": {}}])
def test_options_of_a_wrong_type_are_a_bad_request(admin: httpx.Client, body: object) -> None:
    answer = admin.request("DELETE", "/bgppeers/none", json=body)
    assert answer.status_code in (400, 404), answer.text


def test_what_is_nested_too_deeply_is_a_bad_request(admin: httpx.Client) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    query = {"fieldValidation": "Warn"}
    answer = admin.post("/bgppeers", json=obj("x", {"odd": deep}), params=query)
    refused(answer, 400, "BadRequest", "nested too deeply")
