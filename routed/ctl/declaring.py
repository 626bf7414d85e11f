"""Attaching and detaching through the service: a Workload that the node's agent carries out."""

from __future__ import annotations

from typing import Any

import typer

from api.resources.meta import API_VERSION
from api.resources.registry import KINDS
from routed.ctl.connection import Connection
from routed.ctl.output import Output
from routed.ctl.tables import Shown, said

Document = dict[str, Any]


def attach(
    connection: Connection, name: str, spec: Document, labels: dict[str, str], output: str
) -> None:
    kind, how = KINDS["workloads"], Shown(Output.of(output))
    document = {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {"name": name, "labels": labels},
        "spec": {**spec, "origin": "API"},
    }
    made = connection.run(lambda client: client.raw("POST", "/workloads", json=document))
    if output:
        typer.echo(how.text(kind, [made], single=True))
    else:
        typer.echo(f"{said(kind, name)} created on node {spec['node']}")


def detach(connection: Connection, name: str) -> None:
    connection.run(lambda client: client.raw("DELETE", f"/workloads/{name}"))
    typer.echo(f"{said(KINDS['workloads'], name)} deleted")
