"""Certificates of people: `routectl user`.

A key is made where its holder is and stays there, in a file of mode 0600. What is handed to an
administrator is a request, which is no secret, and so is what comes back: a kubeconfig that lacks
the key. The holder puts the two together, and renews the certificate before it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from api.auth.kubeconfig import Access
    from routed.ctl.remote import Remote

To = Annotated[Path, typer.Option("--to", help="Written, mode 0600.")]
Key = Annotated[Path, typer.Option("--key", help="The key that `user request` has made.")]


def commands(remote: Callable[[], Remote]) -> typer.Typer:
    """`routectl user`; `remote` is where the service is."""
    app = typer.Typer(help="Certificates of people.", no_args_is_help=True)

    @app.command()
    def request(
        key: Annotated[Path, typer.Option("--key", help="Made if it is missing, mode 0600.")],
    ) -> None:
        """Make a key and print a request for its certificate, which an administrator signs."""
        typer.echo(_request(key), nl=False)

    @app.command()
    def certificate(
        name: Annotated[str, typer.Argument(help="The user.")],
        role: Annotated[str, typer.Option(help="admin, operator, viewer, or a Role's name.")],
        asked: Annotated[
            typer.FileText, typer.Option("--request", metavar="F", help="The request; - for stdin.")
        ],
        to: Annotated[Path | None, typer.Option("--to", help="Default: printed.")] = None,
    ) -> None:
        """Sign a user's request: print a kubeconfig that lacks the key.

        What the user had before, tokens too, stops to work.

            routectl user request --key alice.key > alice.csr

            routectl user certificate alice --role viewer --request alice.csr > alice.signed

            routectl user accept alice.signed --key alice.key --to alice.kubeconfig
        """
        from api.auth import kubeconfig

        made = _signed(remote(), name, asked.read(), role)
        text = kubeconfig.render(replace(made, user=name))
        if to is None:
            typer.echo(text, nl=False)
        else:
            _write(to, text)

    @app.command()
    def accept(signed: Path, key: Key, to: To) -> None:
        """Put what an administrator has signed and the key together to a kubeconfig."""
        from api.auth import certificates, kubeconfig
        from api.resources.errors import Cause, ConfigError

        access, held = kubeconfig.read(signed), _read(key)
        try:
            if not certificates.belong(access.certificate, held):
                raise ValueError(f"its certificate is of another key than {key}")
        except ValueError as error:
            raise ConfigError(str(signed), [Cause("", str(error))]) from error
        _write(to, kubeconfig.render(replace(access, key=held)))

    @app.command()
    def renew() -> None:
        """Replace the certificate and key of the kubeconfig in use by new ones, in place.

        It can be done until the certificate ends; `routectl user show` says when.
        """
        from api.auth import certificates, kubeconfig

        where = remote()
        before = _of_certificate(where.path)
        fresh, asked = certificates.key_and_request()
        made = _signed(where, before.user, asked, "")
        server = before.server  # as the file has it, whatever --server says now
        _write(where.path, kubeconfig.render(replace(made, server=server, key=fresh)))
        typer.echo(f"{before.user}: good until {_ends(made.certificate)}")

    @app.command()
    def show() -> None:
        """Who the kubeconfig in use is, and until when."""
        access = _of_certificate(remote().path)
        typer.echo(f"{access.user}: good until {_ends(access.certificate)}")

    return app


def _signed(where: Remote, user: str, request: str, role: str) -> Access:
    """What the service signs for `user`, with the CA of our own kubeconfig and without a key."""
    from api.auth import kubeconfig
    from api.client import Client

    access = kubeconfig.read(where.path)
    access = replace(access, server=where.server or access.server)

    async def asked() -> bytes:
        client = Client(access)
        try:
            return await client.user_certificate(user, request, role)
        finally:
            await client.close()

    return replace(access, token="", certificate=asyncio.run(asked()), key=b"")


def _of_certificate(path: Path) -> Access:
    from api.auth import kubeconfig
    from api.resources.errors import Cause, ConfigError

    access = kubeconfig.read(path)
    if not access.certificate:
        said = "it has a token, which does not end"
        raise ConfigError(f"kubeconfig {path}", [Cause("", said)])
    return access


def _request(path: Path) -> str:
    from api.auth import ca, certificates
    from api.resources.errors import Cause, ConfigError

    if not path.exists():
        key, made = certificates.key_and_request()
        try:
            ca.write_secret(path, key)
        except OSError as error:
            problem = f"cannot write it: {error.strerror}"
            raise ConfigError(str(path), [Cause("", problem)]) from error
        return made
    try:
        return certificates.request_of(_read(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(path), [Cause("", f"is no key: {error}")]) from error


def _read(path: Path) -> bytes:
    from api.resources.errors import Cause, ConfigError

    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot read it: {error.strerror}")]) from error


def _write(path: Path, text: str) -> None:
    from api.auth.ca import write_secret
    from api.resources.errors import Cause, ConfigError

    try:
        write_secret(path, text.encode())
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot write it: {error.strerror}")]) from error
    typer.echo(f"{path}, mode 0600", err=True)


def _ends(certificate: bytes) -> str:
    from api.auth import bootstrap, certificates

    return bootstrap.said(certificates.life_of(certificate).expires)
