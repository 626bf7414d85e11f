"""Certificates of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from routed.ctl.help import group, verb
from routed.ctl.invocation import connection

app = group()
user = group("user", "Certificates of people.")
app.add_typer(user)

To = Annotated[Path, typer.Option("--to", help="Written, mode 0600.")]
Key = Annotated[Path, typer.Option("--key", help="The key that `user request` has made.")]


@verb(user, "routectl user request --key alice.key > alice.csr")
def request(
    key: Annotated[Path, typer.Option("--key", help="Made if it is missing, mode 0600.")],
) -> None:
    """Make a key and print a request for its certificate, which an administrator signs."""
    from routed.ctl import people

    typer.echo(people.request(key), nl=False)


@verb(user, "routectl user certificate alice --role viewer --request alice.csr > alice.signed")
def certificate(
    name: Annotated[str, typer.Argument(help="The user.")],
    role: Annotated[str, typer.Option(help="admin, operator, viewer, or a Role's name.")],
    asked: Annotated[
        Path,
        typer.Option("--request", metavar="F", readable=False, help="The request; - for stdin."),
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Default: printed.")] = None,
) -> None:
    """Sign a user's request: print a kubeconfig that lacks the key.

    What the user had before, tokens too, stops to work.
    """
    from routed.ctl import people

    people.certificate(connection(), name, role, people.asked(asked), to)


@verb(user, "routectl user accept alice.signed --key alice.key --to alice.kubeconfig")
def accept(signed: Path, key: Key, to: To) -> None:
    """Put what an administrator has signed and the key together to a kubeconfig."""
    from routed.ctl import people

    people.accept(signed, key, to)


@verb(user, "routectl user renew")
def renew() -> None:
    """Replace the certificate and key of the context in use by new ones, in place.

    It can be done until the certificate ends; `routectl user show` says when.
    """
    from routed.ctl import people

    typer.echo(people.renew(connection()))


@verb(user, "routectl user show")
def show() -> None:
    """Who the context in use is, and until when."""
    from routed.ctl import people

    typer.echo(people.shown(connection()))
