"""token: credentials that are made, listed and ended by an administrator."""

from __future__ import annotations

from pathlib import Path

import typer
import yaml

from routed.ctl import files
from routed.ctl.connection import Connection
from routed.ctl.tables import aligned


def bootstrap(connection: Connection, node: str, seconds: int, to: Path | None) -> None:
    _given(connection.run(lambda client: client.bootstrap_token(node, seconds)) + "\n", to)


def kubeconfig(
    connection: Connection,
    path: str,
    wanted: dict[str, str],
    to: Path | None,
    *,
    bare: bool = False,
) -> None:
    """A kubeconfig, or the token in it alone."""
    text = connection.run(lambda client: client.credentials(path, wanted))
    if bare:
        text = yaml.safe_load(text)["users"][0]["user"]["token"] + "\n"
    _given(text, to)


def revoke(connection: Connection, path: str) -> None:
    connection.run(lambda client: client.raw("DELETE", f"/{path}/credentials"))
    typer.echo(f"{path} has no credentials any more")


def users(connection: Connection) -> None:
    listed = connection.run(lambda client: client.raw("GET", "/users"))["items"]
    rows = [[one["user"], one["role"], str(one["tokens"])] for one in listed]
    typer.echo(aligned([["USER", "ROLE", "TOKENS"], *rows]))


def _given(text: str, to: Path | None) -> None:
    """To a file that only its owner reads, or to whoever reads our output."""
    if to is None:
        typer.echo(text, nl=False)
        return
    files.keep(to, text.encode())
    typer.echo(f"{to}, mode 0600")
