"""Certificates of people: `routectl user`.

A key is made where its holder is and stays there, in a file of mode 0600. What is handed to an
administrator is a request, which is no secret, and so is what comes back: a kubeconfig that lacks
the key. The holder puts the two together, and renews the certificate before it ends.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import typer

from api.auth import bootstrap, certificates, kubeconfig
from api.auth.kubeconfig import Access, proof_of
from api.resources.errors import Cause, ConfigError
from routed.ctl import files
from routed.ctl.connection import Connection
from routed.ctl.contexts import Entry
from routed.ctl.reviews import user_of


def request(path: Path) -> str:
    """A request for the key in `path`, which is made if it is missing."""
    if not path.exists():
        key, made = certificates.key_and_request()
        files.keep(path, key)
        return made
    try:
        return certificates.request_of(files.data(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(path), [Cause("", f"is no key: {error}")]) from error


def asked(path: Path) -> str:
    """The request in a file, or on standard input."""
    if str(path) == "-":
        return sys.stdin.read()
    return files.data(path).decode(errors="replace")


def certificate(connection: Connection, name: str, role: str, wanted: str, to: Path | None) -> None:
    made = replace(_signed(connection, name, wanted, role), user=name)
    text = kubeconfig.render(made)
    if to is None:
        typer.echo(text, nl=False)
    else:
        _write(to, text)


def accept(signed: Path, key: Path, to: Path) -> None:
    access, held = kubeconfig.read(signed), files.data(key)
    try:
        if not certificates.belong(access.certificate, held):
            raise ValueError(f"its certificate is of another key than {key}")
    except ValueError as error:
        raise ConfigError(str(signed), [Cause("", str(error))]) from error
    _write(to, kubeconfig.render(replace(access, key=held)))


def renew(connection: Connection) -> str:
    """Another certificate and key in the place of those of the context in use; what to say."""
    _certificate(connection)
    held = connection.files()
    user = str(connection.run(user_of)["username"])
    fresh, wanted = certificates.key_and_request()
    made = replace(_signed(connection, user, wanted, ""), key=fresh)
    entry = held.context(connection.context)["user"]
    held.change([Entry("users", entry, proof_of(made))])
    return f"{user}: good until {_ends(made.certificate)}"


def shown(connection: Connection) -> str:
    held = _certificate(connection)
    return f"{certificates.name_of(held)}: good until {_ends(held)}"


def _signed(connection: Connection, user: str, wanted: str, role: str) -> Access:
    """What the service signs for `user`, with the CA of our own kubeconfig and without a key."""
    made = connection.run(lambda client: client.user_certificate(user, wanted, role))
    return replace(connection.access(), token="", certificate=made, key=b"")


def _certificate(connection: Connection) -> bytes:
    """That of the context in use."""
    access = connection.access()
    if not access.certificate:
        said = "it has a token, which does not end"
        raise ConfigError(connection.files().source, [Cause("", said)])
    return access.certificate


def _write(path: Path, text: str) -> None:
    files.keep(path, text.encode())
    typer.echo(f"{path}, mode 0600", err=True)


def _ends(certificate: bytes) -> str:
    return bootstrap.said(certificates.life_of(certificate).expires)
