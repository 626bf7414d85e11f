"""The OpenAPI documents of the group, 3.0 and 2.0: what kubectl validates with and explains from.

Pure, generated from the registry. kubectl looks here for what the service can do: an operation with
the query parameter `dryRun` or `fieldValidation` says that it is honoured.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from api.resources.event import CORE_VERSION, EVENTS
from api.resources.meta import API_VERSION
from api.resources.registry import KINDS, Kind
from api.service import schemas
from api.service.schemas import Schema, gvk, reference

TITLE = "routed"
BASE = f"/apis/{API_VERSION}"
CORE = f"/api/{CORE_VERSION}"
JSON = "application/json"
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)

_WRITING = {
    "dryRun": "All: say what would be, change nothing",
    "fieldManager": "who sets the fields",
    "fieldValidation": "Strict, Warn (if not said) or Ignore: what becomes of unknown fields",
}
_READING = {
    "labelSelector": "such as app=web,tier in (a,b)",
    "fieldSelector": "such as metadata.name=web",
    "limit": "at most so many at once",
    "continue": "from where the last answer ended",
    "resourceVersion": "for a watch: changes after this",
    "watch": "true: go on with changes, a JSON object a line",
    "allowWatchBookmarks": "true: say now and then how far the watch is",
    "sendInitialEvents": "true: the present objects first",
    "timeoutSeconds": "end the watch after so many",
}


@cache
def v3(version: str) -> dict[str, Any]:
    """The document of the group."""
    paths: dict[str, Any] = {}
    for kind in KINDS.values():
        paths |= _paths(kind)
    return _document(version, paths)


@cache
def core(version: str) -> dict[str, Any]:
    """The document of core/v1: events."""
    return _document(version, _event_paths())


def _document(version: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": version},
        "paths": paths,
        "components": {"schemas": schemas.components()},
    }


@cache
def v2(version: str) -> dict[str, Any]:
    """Both as Swagger 2.0."""
    both = {**v3(version), "paths": v3(version)["paths"] | core(version)["paths"]}
    whole = _plain(json.loads(json.dumps(both).replace(schemas.REF, "#/definitions/")))
    for item in whole["paths"].values():
        named = item.pop("parameters", [])
        for operation in item.values():
            operation["parameters"] += [dict(one) for one in named]
            _to_v2(operation)
    return {
        "swagger": "2.0",
        "info": whole["info"],
        "paths": whole["paths"],
        "definitions": whole["components"]["schemas"],
    }


def _plain(held: Any) -> Any:
    """A reference beside its description, which kubectl's parser of 2.0 reads, and no allOf."""
    if isinstance(held, list):
        return [_plain(one) for one in held]
    if not isinstance(held, dict):
        return held
    made = {name: _plain(value) for name, value in held.items()}
    return {**made.pop("allOf")[0], **made} if isinstance(made.get("allOf"), list) else made


def _to_v2(operation: dict[str, Any]) -> None:
    body = operation.pop("requestBody", None)
    for one in operation["parameters"]:
        one.update(one.pop("schema"))
    if body is not None:
        content = body["content"]
        operation["consumes"] = list(content)
        held = next(iter(content.values()))["schema"]
        operation["parameters"].append({"name": "body", "in": "body", "schema": held})
    operation["produces"] = [JSON]
    for answer in operation["responses"].values():
        answer["schema"] = answer.pop("content")[JSON]["schema"]


def _paths(kind: Kind) -> dict[str, Any]:
    at = f"{BASE}/{kind.plural}"
    held, whole = reference(schemas.of(kind)), reference(f"{schemas.of(kind)}List")
    options, status = reference(schemas.DELETE_OPTIONS), reference(schemas.STATUS)

    def one(verb: str, action: str, answer: Schema, **more: Any) -> dict[str, Any]:
        return _operation(kind, f"{verb}{kind.kind}", action, answer, **more)

    named = {"parameters": [_parameter("name", "path", "name of the object")]}
    put: dict[str, Any] = {"body": {JSON: held}, "query": _WRITING}
    patch: dict[str, Any] = {
        "body": dict.fromkeys(PATCHES, held),
        "query": {**_WRITING, "force": "take fields over"},
    }
    gone: dict[str, Any] = {"body": {JSON: options}, "query": {"dryRun": _WRITING["dryRun"]}}
    return {
        at: {
            "get": one("list", "list", whole, query=_READING),
            "post": one("create", "post", held, code="201", **put),
            "delete": one(
                "deleteCollectionOf", "deletecollection", status,
                body=gone["body"], query={**_READING, **gone["query"]},
            ),
        },
        f"{at}/{{name}}": {
            **named,
            "get": one("read", "get", held),
            "put": one("replace", "put", held, **put),
            "patch": one("patch", "patch", held, **patch),
            "delete": one("delete", "delete", status, **gone),
        },
        f"{at}/{{name}}/status": {
            **named,
            "get": one("readStatusOf", "get", held),
            "put": one("replaceStatusOf", "put", held, **put),
            "patch": one("patchStatusOf", "patch", held, **patch),
        },
    }  # fmt: skip


def _event_paths() -> dict[str, Any]:
    at = f"{CORE}/namespaces/{{namespace}}/events"
    held = reference(schemas.of(EVENTS))
    whole = reference(f"{schemas.of(EVENTS)}List")
    place = _parameter("namespace", "path", "that of the events")
    named = _parameter("name", "path", "name of the event")
    query = {name: _READING[name] for name in ("fieldSelector", "limit", "continue")}
    listed = _operation(EVENTS, "listEvent", "list", whole, query=query)
    read = _operation(EVENTS, "readEvent", "get", held)
    return {
        at: {"parameters": [place], "get": listed},
        f"{at}/{{name}}": {"parameters": [place, named], "get": read},
    }


def _operation(
    kind: Kind,
    name: str,
    action: str,
    answer: Schema,
    *,
    body: dict[str, Schema] | None = None,
    query: dict[str, str] | None = None,
    code: str = "200",
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [kind.kind],
        "parameters": [_parameter(n, "query", said) for n, said in (query or {}).items()],
        "responses": {code: {"description": "OK", "content": {JSON: {"schema": answer}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind.kind),
    }
    if body is not None:
        content = {media: {"schema": schema} for media, schema in body.items()}
        made["requestBody"] = {"content": content}
    return made


def _parameter(name: str, place: str, said: str) -> dict[str, Any]:
    held = {"name": name, "in": place, "description": said, "schema": {"type": "string"}}
    return held | ({"required": True} if place == "path" else {})
