"""The official Python client, `kubernetes`: CustomObjectsApi, the dynamic client and core/v1
events, over TLS with the kubeconfig that the service wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.dynamic.exceptions import (
    ConflictError,
    NotFoundError,
    UnprocessibleEntityError,
)
from support.service import Service

GROUP, VERSION = "routed.dev", "v1"
API = f"{GROUP}/{VERSION}"
SECONDS = 20


def peer(name: str, address: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": API, "kind": "BGPPeer", "metadata": {"name": name, "labels": labels},
        "spec": {"peerIP": address, "asNumber": 65001},
    }  # fmt: skip


@pytest.fixture
def api(service: Service) -> Iterator[client.ApiClient]:
    made = config.new_client_from_config(str(service.admin))
    with made:
        yield made


@pytest.fixture
def custom(api: client.ApiClient) -> Iterator[client.CustomObjectsApi]:
    found = client.CustomObjectsApi(api)
    yield found
    found.delete_collection_cluster_custom_object(GROUP, VERSION, "bgppeers")


@pytest.fixture
def peers(api: client.ApiClient) -> Iterator[Any]:
    found = dynamic.DynamicClient(api).resources.get(api_version=API, kind="BGPPeer")
    yield found
    found.delete(field_selector="metadata.name!=none")


def refused(code: int, reason: str, call: Any, *words: Any, **more: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        call(*words, **more)
    assert caught.value.status == code
    assert f'"reason":"{reason}"' in caught.value.body


def test_custom_objects_through_their_life(custom: client.CustomObjectsApi) -> None:
    place = (GROUP, VERSION, "bgppeers")
    made = custom.create_cluster_custom_object(*place, peer("tor1", "192.0.2.1", rack="r1"))
    assert made["spec"]["holdTime"] == 9
    custom.create_cluster_custom_object(*place, peer("tor2", "192.0.2.2", rack="r2"))
    refused(409, "AlreadyExists", custom.create_cluster_custom_object, *place,
            peer("tor1", "192.0.2.9"))  # fmt: skip
    assert custom.get_cluster_custom_object(*place, "tor1") == made
    listed = custom.list_cluster_custom_object(*place)
    assert [one["metadata"]["name"] for one in listed["items"]] == ["tor1", "tor2"]
    for selector in ({"label_selector": "rack=r2"}, {"field_selector": "metadata.name=tor2"}):
        found = custom.list_cluster_custom_object(*place, **selector)["items"]
        assert [one["metadata"]["name"] for one in found] == ["tor2"]
    page = custom.list_cluster_custom_object(*place, limit=1)
    rest = custom.list_cluster_custom_object(
        *place, limit=1, _continue=page["metadata"]["continue"]
    )
    assert [one["metadata"]["name"] for one in page["items"] + rest["items"]] == ["tor1", "tor2"]
    changed = custom.patch_cluster_custom_object(*place, "tor1", {"spec": {"holdTime": 30}})
    assert (changed["spec"]["holdTime"], changed["metadata"]["generation"]) == (30, 2)
    operation = [{"op": "replace", "path": "/spec/holdTime", "value": 60}]
    changed = custom.patch_cluster_custom_object(
        *place, "tor1", operation, _content_type="application/json-patch+json"
    )
    assert changed["spec"]["holdTime"] == 60
    changed["spec"]["holdTime"] = 90
    replaced = custom.replace_cluster_custom_object(*place, "tor1", changed)
    assert replaced["spec"]["holdTime"] == 90
    refused(409, "Conflict", custom.replace_cluster_custom_object, *place, "tor1", changed)
    refused(422, "Invalid", custom.patch_cluster_custom_object, *place, "tor1",
            {"spec": {"holdTime": 2}})  # fmt: skip
    dry = custom.patch_cluster_custom_object(
        *place, "tor1", {"spec": {"holdTime": 3}}, dry_run="All"
    )
    assert dry["spec"]["holdTime"] == 3
    assert custom.get_cluster_custom_object(*place, "tor1")["spec"]["holdTime"] == 90
    assert custom.delete_cluster_custom_object(*place, "tor1")["status"] == "Success"
    refused(404, "NotFound", custom.get_cluster_custom_object, *place, "tor1")
    custom.delete_collection_cluster_custom_object(*place, label_selector="rack=r2")
    assert custom.list_cluster_custom_object(*place)["items"] == []


def test_a_status_is_written_apart(custom: client.CustomObjectsApi) -> None:
    place = (GROUP, VERSION, "nodes")
    node = {"apiVersion": API, "kind": "Node", "metadata": {"name": "h1"}}
    custom.create_cluster_custom_object(*place, node)
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "AgentReady"}]}
    said = custom.patch_cluster_custom_object_status(*place, "h1", {"status": ready})
    assert said["status"]["conditions"][0]["lastTransitionTime"]
    held = custom.get_cluster_custom_object_status(*place, "h1")
    held["spec"]["unschedulable"] = True
    held["status"]["versions"] = {"routed": "1"}
    after = custom.replace_cluster_custom_object_status(*place, "h1", held)
    assert after["spec"]["unschedulable"] is False
    assert after["status"]["versions"] == {"routed": "1"}
    custom.delete_cluster_custom_object(*place, "h1")


def test_unknown_fields_are_refused_warned_of_or_dropped(custom: client.CustomObjectsApi) -> None:
    place = (GROUP, VERSION, "bgppeers")
    odd = peer("odd", "192.0.2.1")
    odd["spec"]["colour"] = "red"
    refused(400, "BadRequest", custom.create_cluster_custom_object, *place, odd,
            field_validation="Strict")  # fmt: skip
    made, code, headers = custom.create_cluster_custom_object_with_http_info(*place, odd)
    assert code == 201
    assert "colour" not in made["spec"]
    assert headers["warning"] == '299 - "unknown field \\"spec.colour\\""'
    *_, headers = custom.patch_cluster_custom_object_with_http_info(
        *place, "odd", {"spec": {"colour": "blue"}}, field_validation="Ignore"
    )
    assert "warning" not in headers


def test_custom_objects_are_watched(service: Service, custom: client.CustomObjectsApi) -> None:
    place = (GROUP, VERSION, "bgppeers")
    custom.create_cluster_custom_object(*place, peer("tor1", "192.0.2.1", rack="r1"))
    begun = threading.Event()

    def change() -> None:
        assert begun.wait(SECONDS)
        with config.new_client_from_config(str(service.admin)) as other:
            writer = client.CustomObjectsApi(other)
            writer.create_cluster_custom_object(*place, peer("tor2", "192.0.2.2", rack="r2"))
            writer.patch_cluster_custom_object(*place, "tor1", {"spec": {"holdTime": 30}})
            writer.delete_cluster_custom_object(*place, "tor1")

    writing = threading.Thread(target=change)
    writing.start()
    seen = []
    watching = watch.Watch()
    for event in watching.stream(
        custom.list_cluster_custom_object, *place, label_selector="rack=r1",
        timeout_seconds=SECONDS,
    ):  # fmt: skip
        begun.set()
        name, held = event["object"]["metadata"]["name"], event["object"]["spec"]["holdTime"]
        seen.append((event["type"], name, held))
        if event["type"] == "DELETED":
            watching.stop()
    writing.join()
    assert seen == [("ADDED", "tor1", 9), ("MODIFIED", "tor1", 30), ("DELETED", "tor1", 30)]


def test_the_dynamic_client_through_its_verbs(peers: Any) -> None:
    made = peers.create(body=peer("tor1", "192.0.2.1", rack="r1"))
    assert (made.kind, made.spec.holdTime) == ("BGPPeer", 9)
    peers.create(body=peer("tor2", "192.0.2.2", rack="r2"))
    with pytest.raises(ConflictError):
        peers.create(body=peer("tor1", "192.0.2.9"))
    assert peers.get(name="tor1").metadata.uid == made.metadata.uid
    assert [one.metadata.name for one in peers.get(label_selector="rack in (r2)").items] == ["tor2"]
    by_field = peers.get(field_selector="metadata.name=tor1").items
    assert [one.metadata.name for one in by_field] == ["tor1"]
    merge = "application/merge-patch+json"
    changed = peers.patch(name="tor1", body={"spec": {"holdTime": 30}}, content_type=merge)
    assert changed.spec.holdTime == 30
    replaced = peers.replace(body={**changed.to_dict(), "spec": {**changed.spec.to_dict(),
                                                                 "holdTime": 60}})  # fmt: skip
    assert replaced.spec.holdTime == 60
    with pytest.raises(ConflictError):
        peers.replace(body=changed.to_dict())
    with pytest.raises(UnprocessibleEntityError, match=r"spec\.holdTime"):
        peers.patch(name="tor1", body={"spec": {"holdTime": 1}}, content_type=merge)
    assert peers.delete(name="tor1").status == "Success"
    with pytest.raises(NotFoundError):
        peers.get(name="tor1")
    peers.delete(label_selector="rack=r2")
    assert peers.get().items == []


def test_the_dynamic_client_applies(peers: Any) -> None:
    def applied(manager: str, seconds: int, **more: Any) -> Any:
        document = peer("tor1", "192.0.2.1")
        document["spec"]["holdTime"] = seconds
        return peers.server_side_apply(body=document, name="tor1", field_manager=manager, **more)

    assert applied("ann", 30).spec.holdTime == 30
    with pytest.raises(ConflictError, match="ann"):
        applied("bob", 60)
    taken = applied("bob", 60, force_conflicts=True)
    assert taken.spec.holdTime == 60
    assert {entry.manager for entry in taken.metadata.managedFields} == {"ann", "bob"}


def test_the_dynamic_client_watches(service: Service, peers: Any) -> None:
    begun = threading.Event()
    peers.create(body=peer("tor1", "192.0.2.1"))

    def change() -> None:
        assert begun.wait(SECONDS)
        with config.new_client_from_config(str(service.admin)) as other:
            found = dynamic.DynamicClient(other).resources.get(api_version=API, kind="BGPPeer")
            found.delete(name="tor1")

    writing = threading.Thread(target=change)
    writing.start()
    seen, watcher = [], watch.Watch()
    for event in peers.watch(timeout=SECONDS, watcher=watcher):
        begun.set()
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watcher.stop()
    writing.join()
    assert seen == [("ADDED", "tor1"), ("DELETED", "tor1")]


def test_the_dynamic_client_finds_every_kind(api: client.ApiClient) -> None:
    found = dynamic.DynamicClient(api)
    kinds = {
        one.kind for one in found.resources.search(group=GROUP) if not one.kind.endswith("List")
    }
    assert {"Node", "IPPool", "IPBlock", "Workload", "Role", "VirtualIP"} <= kinds
    assert found.resources.get(api_version=API, kind="IPPool").namespaced is False
    nothing = found.resources.get(api_version=API, kind="Role").get()
    assert nothing.kind == "RoleList"


def test_events_are_typed_ones_of_core(api: client.ApiClient) -> None:
    nodes = dynamic.DynamicClient(api).resources.get(api_version=API, kind="Node")
    nodes.create(body={"apiVersion": API, "kind": "Node", "metadata": {"name": "h7"}})
    core = client.CoreV1Api(api)
    selector = "involvedObject.kind=Node,involvedObject.name=h7"
    for listed in (
        core.list_event_for_all_namespaces(field_selector=selector),
        core.list_namespaced_event("default", field_selector=selector),
    ):
        (event,) = listed.items
        assert (event.reason, event.type, event.count) == ("Created", "Normal", 1)
        assert event.involved_object.name == "h7"
        assert event.last_timestamp.tzinfo is not None
    one = core.read_namespaced_event("h7.node-created", "default")
    assert one.message == "Node h7 was created"
    assert core.list_namespaced_event("other").items == []
    nodes.delete(name="h7")


def test_who_may_do_what_is_asked_by_a_review(api: client.ApiClient) -> None:
    reviews = client.AuthorizationV1Api(api)
    asked = client.V1ResourceAttributes(verb="create", group=GROUP, resource="ippools")
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
    review = client.V1SelfSubjectAccessReview(spec=spec)
    assert reviews.create_self_subject_access_review(review).status.allowed is True


def test_discovery_is_what_its_models_ask_for(api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().git_version.startswith("v1.")
    assert client.CoreApi(api).get_api_versions().versions == ["v1"]
    groups = {one.name for one in client.ApisApi(api).get_api_versions().groups}
    assert GROUP in groups
    (event,) = client.CoreV1Api(api).get_api_resources().resources
    assert (event.name, event.namespaced, event.short_names) == ("events", True, ["ev"])
    listed = client.CustomObjectsApi(api).get_api_resources(GROUP, VERSION)
    assert "ippools" in {one.name for one in listed.resources}
