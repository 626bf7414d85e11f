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
from api.service import schemas, selections_schema
from api.service.options import VALIDATION
from api.service.patches import KNOWN, OPERATIONS_MOST
from api.service.schemas import Schema, gvk, reference

TITLE = "routed"
BASE = f"/apis/{API_VERSION}"
CORE = f"/api/{CORE_VERSION}"
JSON = "application/json"

_TEXT: Schema = {"type": "string"}
_TRUTH: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
Query = dict[str, tuple[Schema, str]]  # type and meaning by name
_WRITING: Query = {
    "dryRun": ({"type": "string", "enum": ["All"]}, "say what would be, change nothing"),
    "fieldManager": ({"type": "string", "maxLength": 128}, "who sets the fields"),
    "fieldValidation": (
        {"type": "string", "enum": list(VALIDATION)},
        "what becomes of unknown fields; Warn, if it is not said",
    ),
}
_READING: Query = {
    "labelSelector": (_TEXT, "such as app=web,tier in (a,b)"),
    "fieldSelector": (_TEXT, "such as metadata.name=web"),
    "limit": (_NUMBER, "at most so many at once"),
    "continue": (_TEXT, "from where the last answer ended"),
    "resourceVersion": (_NUMBER, "for a watch: changes after this"),
    "watch": (_TRUTH, "go on with changes, a JSON object a line"),
    "allowWatchBookmarks": (_TRUTH, "say now and then how far the watch is"),
    "sendInitialEvents": (_TRUTH, "the present objects first"),
    "timeoutSeconds": (_NUMBER, "end the watch after so many"),
}
_ERRORS = {
    "400": "it cannot be read",
    "401": "whoever asks is nobody",
    "403": "it is not allowed",
    "404": "there is no such object",
    "409": "it conflicts with what is",
    "410": "it is of a store that is no more",
    "413": "it is too large",
    "415": "its media type is not known",
    "422": "the object is wrong, with a cause for each field",
    "429": "too many requests",
    "503": "the store cannot be read or written",
    "507": "the store is full",
}
_ALWAYS = ("400", "401", "403", "429", "503")


@cache
def v3(version: str) -> dict[str, Any]:
    """The document of the group."""
    paths: dict[str, Any] = {}
    for kind in KINDS.values():
        paths |= _paths(kind)
    return _document(version, paths | selections_schema.paths(BASE, _ERRORS, _ALWAYS))


@cache
def core(version: str) -> dict[str, Any]:
    """The document of core/v1: events."""
    return _document(version, _event_paths())


def _document(version: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],  # or a client certificate, for which 3.0 has no word
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
        held = list(content.values())[-1]["schema"]
        operation["parameters"].append({"name": "body", "in": "body", "schema": held})
    operation["produces"] = list(operation["responses"]["200"]["content"])
    for answer in operation["responses"].values():
        (content,) = answer.pop("content").values()
        answer["schema"] = content["schema"]


def _paths(kind: Kind) -> dict[str, Any]:
    at = f"{BASE}/{kind.plural}"
    held, whole = reference(schemas.of(kind)), reference(f"{schemas.of(kind)}List")
    options, status = reference(schemas.DELETE_OPTIONS), reference(schemas.STATUS)

    def one(verb: str, action: str, answer: Schema, **more: Any) -> dict[str, Any]:
        return _operation(kind, f"{verb}{kind.kind}", action, answer, **more)

    named = {"parameters": [_parameter("name", "path", _TEXT, "name of the object")]}
    wrong = ("409", "413", "422", "507")
    put: dict[str, Any] = {
        "body": {JSON: held},
        "query": _WRITING,
        "errors": (*wrong, "404"),
        "required": True,
    }
    patch: dict[str, Any] = {
        "body": dict(
            zip(KNOWN, (_operations(), {"type": "object"}, {"type": "object"}, held), strict=True)
        ),
        "query": {**_WRITING, "force": (_TRUTH, "take fields over")},
        "errors": (*wrong, "404", "415"),
        "codes": ("200", "201"),
        "required": True,
    }
    gone: dict[str, Any] = {
        "body": {JSON: options},
        "query": {"dryRun": _WRITING["dryRun"]},
        "errors": ("404", "409", "413", "507"),
    }
    return {
        at: {
            "get": one("list", "list", whole, query=_READING, errors=("410",)),
            "post": one("create", "post", held, codes=("201", "200"), **put),
            "delete": one(
                "deleteCollectionOf", "deletecollection", status,
                **{**gone, "query": {**_READING, **gone["query"]}},
            ),
        },
        f"{at}/{{name}}": {
            **named,
            "get": one("read", "get", held, errors=("404",)),
            "put": one("replace", "put", held, **put),
            "patch": one("patch", "patch", held, **patch),
            "delete": one("delete", "delete", status, **gone),
        },
        f"{at}/{{name}}/status": {
            **named,
            "get": one("readStatusOf", "get", held, errors=("404",)),
            "put": one("replaceStatusOf", "put", held, **put),
            "patch": one("patchStatusOf", "patch", held, **patch),
        },
    }  # fmt: skip


def _event_paths() -> dict[str, Any]:
    at = f"{CORE}/namespaces/{{namespace}}/events"
    held = reference(schemas.of(EVENTS))
    whole = reference(f"{schemas.of(EVENTS)}List")
    place = _parameter("namespace", "path", _TEXT, "that of the events")
    named = _parameter("name", "path", _TEXT, "name of the event")
    query = {name: _READING[name] for name in ("fieldSelector", "limit", "continue")}
    listed = _operation(EVENTS, "listEvent", "list", whole, query=query)
    read = _operation(EVENTS, "readEvent", "get", held, errors=("404",))
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
    required: bool = False,
    query: Query | None = None,
    codes: tuple[str, ...] = ("200",),
    errors: tuple[str, ...] = (),
) -> dict[str, Any]:
    told = {code: ("OK", answer) for code in codes}
    status = reference(schemas.STATUS)
    told |= {code: (_ERRORS[code], status) for code in sorted((*_ALWAYS, *errors))}
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [kind.kind],
        "parameters": [_parameter(n, "query", *said) for n, said in (query or {}).items()],
        "responses": {
            code: {"description": said, "content": {JSON: {"schema": schema}}}
            for code, (said, schema) in told.items()
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind.kind),
    }
    if body is not None:
        content = {media: {"schema": schema} for media, schema in body.items()}
        made["requestBody"] = {"content": content, "required": required}
    return made


def _operations() -> Schema:
    """RFC 6902."""
    words = ["add", "remove", "replace", "move", "copy", "test"]
    fields = {"op": {"type": "string", "enum": words}, "path": _TEXT, "from": _TEXT, "value": {}}
    one = {"type": "object", "required": ["op", "path"], "properties": fields}
    return {"type": "array", "items": one, "maxItems": OPERATIONS_MOST}


def _parameter(name: str, place: str, schema: Schema, said: str) -> dict[str, Any]:
    held = {"name": name, "in": place, "description": said, "schema": schema}
    return held | ({"required": True} if place == "path" else {})
