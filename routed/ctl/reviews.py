"""auth can-i and whoami: what the service says of whoever asks."""

from __future__ import annotations

from typing import Any

import typer

from api.client import Client
from api.resources.meta import API_GROUP
from api.resources.registry import KINDS
from routed.ctl.connection import Connection
from routed.ctl.tables import aligned
from routed.ctl.targets import kind_of

Document = dict[str, Any]
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"


async def reviewed(client: Client, api: str, kind: str, spec: Document) -> Document:
    """The status of a review."""
    body = {"apiVersion": api.removeprefix("/apis/"), "kind": kind, "spec": spec}
    path = f"{client.server}{api}/{kind.lower()}s"
    status: Document = (await client.raw("POST", path, json=body))["status"]
    return status


async def user_of(client: Client) -> Document:
    """``username`` and ``groups`` of whoever asks."""
    status = await reviewed(client, AUTHENTICATION, "SelfSubjectReview", {})
    info: Document = status["userInfo"]
    return info


def whoami(connection: Connection) -> None:
    info = connection.run(user_of)
    rows = [["ATTRIBUTE", "VALUE"], ["Username", info["username"]]]
    typer.echo(aligned([*rows, ["Groups", f"[{' '.join(info['groups'])}]"]]))


def can_i(connection: Connection, verb: str, what: str, *, subresource: str, quiet: bool) -> bool:
    """Say yes or no."""
    name, _, object_name = what.partition("/")
    plural = name if name == "*" else kind_of(name).plural
    attributes = {"verb": verb, "group": API_GROUP, "resource": plural}
    attributes |= {"subresource": subresource, "name": object_name}
    spec = {"resourceAttributes": {key: value for key, value in attributes.items() if value}}
    status = connection.run(
        lambda client: reviewed(client, AUTHORIZATION, "SelfSubjectAccessReview", spec)
    )
    allowed = bool(status["allowed"])
    if not quiet:
        why = f" - {status['reason']}" if status.get("reason") else ""
        typer.echo(f"{'yes' if allowed else 'no'}{why}")
    return allowed


def all_i_can(connection: Connection) -> None:
    """A line for each kind and what may be done with it."""
    status = connection.run(
        lambda client: reviewed(client, AUTHORIZATION, "SelfSubjectRulesReview", {})
    )
    rows = [["RESOURCES", "VERBS"]]
    for rule in status["resourceRules"]:
        names = ",".join(rule["resources"])
        if names.partition("/")[0] in KINDS:
            rows.append([f"{names}.{API_GROUP}", f"[{' '.join(rule['verbs'])}]"])
    typer.echo(aligned(rows))
