"""login and logout: a context of one's own in the kubeconfig, made and taken away.

The CA of the service is fetched and believed only if it is the one that was pinned; or it is in a
file that was named, or in the kubeconfig for this very server already; on a terminal its pin may be
compared by eye. Only then is the token said, and only
if the service knows it is anything written. What else is in the kubeconfig stays as it is: the
entries are called USER@HOST:PORT, so two services, or two users of one, do not collide.

What is written is an `Access`: a certificate in it would be stored in the token's place.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import typer

from api.auth import certificates
from api.auth.kubeconfig import Access, cluster_of, proof_of
from api.client import Client, authority_of, not_pinned
from api.resources.errors import Cause, ConfigError
from routed import secret
from routed.ctl import files as readable
from routed.ctl import server as servers
from routed.ctl.contexts import Entry, Kubeconfig
from routed.ctl.reviews import user_of

PIN = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{64})\Z")


def login(
    files: Kubeconfig, server: str, *, pin: str, ca_file: Path | None, token_file: Path | None,
    name: str,
) -> str:  # fmt: skip
    """Write a context and make it the current one; what to tell the user."""
    url = servers.url(server)
    wanted = pin_of(pin) if pin else ""
    known = readable.data(ca_file) if ca_file else b"" if pin else _known(files, url)
    ca = known or asyncio.run(authority_of(url))
    try:
        found = certificates.pin(ca)
    except ValueError as error:
        raise ConfigError(str(ca_file), [Cause("", "has no certificate in it")]) from error
    if wanted and found != wanted:
        raise ConfigError("--ca-pin", [Cause("", not_pinned(url, found, wanted))])
    if not wanted and not known:
        _confirmed(url, found)
    token = secret.one_word(token_file)
    access = Access(url, ca, "", token)
    user = asyncio.run(_user(access))
    context = write(files, replace(access, user=user), name)
    return f"logged in to {url} as {user}; context {context} in {files.default}"


def _known(files: Kubeconfig, url: str) -> bytes:
    """The CA that the kubeconfig has for this server."""
    for entry in files.whole["clusters"]:
        cluster = entry["cluster"]
        if cluster.get("server") == url and "certificate-authority-data" in cluster:
            return base64.b64decode(cluster["certificate-authority-data"])
    return b""


def pin_of(text: str) -> str:
    """``sha256:HEX`` or HEX; ConfigError."""
    found = PIN.match(text.strip().lower())
    if found is None:
        problem = "must be the SHA-256 of the CA's public key, sha256: and 64 hexadecimal digits"
        raise ConfigError("--ca-pin", [Cause("", problem)])
    return found["hex"]


def _confirmed(url: str, pin: str) -> None:
    """Asked on a terminal only: who cannot compare the pin must be told it."""
    if not sys.stdin.isatty():
        problem = f"say --ca-pin sha256:..., or --certificate-authority F: {url} is not known yet"
        raise ConfigError("the command line", [Cause("", problem)])
    typer.echo(f"The CA of {url} has the pin sha256:{pin}", err=True)
    if not typer.confirm("Is it what its administrator told you?", err=True):
        raise typer.Abort


async def _user(access: Access) -> str:
    """Who the service says this is; Unauthorized if it knows nobody of this token."""
    client = Client(access)
    try:
        return str((await user_of(client))["username"])
    finally:
        await client.close()


def write(files: Kubeconfig, access: Access, name: str = "") -> str:
    """Put the three entries in place and use them; the context's name."""
    place = urlsplit(access.server).netloc
    user = f"{access.user}@{place}"
    context = name or user
    entries = [
        Entry("clusters", place, cluster_of(access)),
        Entry("users", user, proof_of(access)),
        Entry("contexts", context, {"cluster": place, "user": user}),
    ]
    files.change(entries, context)
    return context


def logout(files: Kubeconfig, name: str) -> str:
    """Take a context away, and its user and cluster unless another context needs them."""
    whole = files.whole
    context = name or whole["current-context"]
    held = files.context(name)
    rest = [entry["context"] for entry in whole["contexts"] if entry["name"] != context]
    entries = [Entry("contexts", context)]
    for plural, key in (("users", "user"), ("clusters", "cluster")):
        if held.get(key) and held[key] not in [one.get(key) for one in rest]:
            entries.append(Entry(plural, held[key]))
    files.change(entries, "" if whole["current-context"] == context else None)
    return (
        f"context {context} is not in the kubeconfig any more; its token is good until it is "
        "revoked: routectl token revoke --user NAME"
    )
