"""Discovery: what clients of the Kubernetes API ask before anything else. Open to everybody,
like the health routes: it says nothing about the objects."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from api.resources.meta import API_GROUP, API_VERSION
from api.resources.registry import KINDS

VERSION = "0.1.0"
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


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
    for path, answer in answers.items():
        app.add_route(path, _answering(answer), include_in_schema=False)


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
