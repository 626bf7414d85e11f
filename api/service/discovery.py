"""Discovery: what clients of the Kubernetes API ask before anything else. Open to everybody,
like the health routes: it says nothing about the objects."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from api.resources.event import CORE_VERSION, EVENTS
from api.resources.meta import API_GROUP, API_VERSION
from api.resources.registry import KINDS
from api.resources.versions import VERSION
from api.service import gnostic, openapi

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def add_routes(app: FastAPI) -> None:
    """Add the discovery routes to `app`; they are not part of its OpenAPI document."""
    version = {"groupVersion": API_VERSION, "version": API_VERSION.partition("/")[2]}
    group = {"name": API_GROUP, "versions": [version], "preferredVersion": version}
    answers: dict[str, dict[str, Any]] = {
        "/version": _version(),
        "/api": {
            "kind": "APIVersions",
            "versions": [CORE_VERSION],
            "serverAddressByClientCIDRs": [],
        },
        f"/api/{CORE_VERSION}": {
            "kind": "APIResourceList",
            "groupVersion": CORE_VERSION,
            "resources": [_events()],
        },
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        f"/apis/{API_GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **group},
        f"/apis/{API_VERSION}": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": API_VERSION,
            "resources": _resources(),
        },
    }
    # Kubernetes answers with a slash at the end too, and its Python client asks so
    answers |= {f"{path}/": answer for path, answer in answers.items()}
    documents = {openapi.BASE: openapi.v3(VERSION), openapi.CORE: openapi.core(VERSION)}
    at = {base[1:]: {"serverRelativeURL": f"/openapi/v3{base}"} for base in documents}
    answers["/openapi/v3"] = {"paths": at}
    answers |= {f"/openapi/v3{base}": document for base, document in documents.items()}
    for path, answer in answers.items():
        app.add_route(path, _answering(answer), include_in_schema=False)
    app.add_route("/openapi/v2", _swagger, include_in_schema=False)


async def _swagger(request: Request) -> Response:
    """As protobuf for those who name it, as JSON else."""
    document = openapi.v2(VERSION)
    if "proto-openapi" in request.headers.get("accept", ""):
        return Response(gnostic.document(document), media_type=gnostic.MEDIA_TYPE)
    return JSONResponse(document)


def _answering(answer: dict[str, Any]) -> Any:
    async def route(request: Request) -> Response:
        return JSONResponse(answer)

    return route


def _version() -> dict[str, str]:
    """How Kubernetes says it; clients with typed models need every field of it."""
    unsaid = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
    said = {"major": "1", "minor": "30", "gitVersion": f"v1.30.0-routed.{VERSION}"}
    return {**said, **dict.fromkeys(unsaid, "")}


def _events() -> dict[str, Any]:
    """All of core/v1: it must not be empty, kubectl takes that for a service that is broken."""
    return {
        "name": EVENTS.plural,
        "singularName": EVENTS.singular,
        "namespaced": True,
        "kind": EVENTS.kind,
        "verbs": ["get", "list"],
        "shortNames": list(EVENTS.short),
    }


def _resources() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        entry = {"namespaced": False, "kind": kind.kind}
        found.append(
            {
                **entry,
                "name": kind.plural,
                "singularName": kind.singular,
                "verbs": VERBS,
                "shortNames": list(kind.short),
                "categories": ["routed"],
            }
        )
        status = {"name": f"{kind.plural}/status", "singularName": ""}
        found.append({**entry, **status, "verbs": ["get", "patch", "update"]})
    return found
