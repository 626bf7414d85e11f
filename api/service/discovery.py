"""Discovery: what clients of the Kubernetes API ask before anything else. Open to everybody,
like the health routes: it says nothing about the objects."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

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
        "/version": {"major": "1", "minor": "30", "gitVersion": f"v1.30.0-routed.{VERSION}"},
        "/api": {"kind": "APIVersions", "versions": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        f"/apis/{API_GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **group},
        f"/apis/{API_VERSION}": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": API_VERSION,
            "resources": _resources(),
        },
    }
    at = f"/openapi/v3{openapi.BASE}"
    answers["/openapi/v3"] = {"paths": {openapi.BASE[1:]: {"serverRelativeURL": at}}}
    answers[at] = openapi.v3(VERSION)
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
