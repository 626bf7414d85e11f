"""How a host becomes a node: with a bootstrap token it gets a certificate for a key of its own.

The service's CA is asked for without knowing whom one speaks with, and believed only if its key is
the one that the token has the pin of. Everything after that, the secret first of all, is said over
TLS that trusts this CA alone.
"""

from __future__ import annotations

import asyncio
import ssl

import httpx

from api.auth import certificates
from api.auth.bootstrap import Invitation
from api.auth.kubeconfig import Access
from api.client.answers import Unreachable
from api.client.client import ANSWER_SECONDS, BUSY_TRIES, CONNECT_SECONDS, Client, retry_after
from api.resources.errors import Cause, ConfigError

CA_BYTES = 65_536  # more than any


async def join(invitation: Invitation, node: str, server: str | None = None) -> Access:
    """The credentials of `node`; `server` is used instead of the URL in the token. ConfigError,
    IntentError if the service refuses, Unreachable: the token may then have been used."""
    url = (server or invitation.server).rstrip("/")
    ca = await authority_of(url)
    if (found := certificates.pin(ca)) != invitation.pin:
        raise ConfigError(
            "the bootstrap token", [Cause("", not_pinned(url, found, invitation.pin))]
        )
    key, request = certificates.key_and_request()
    user = f"system:node:{node}"
    client = Client(Access(url, ca, user, invitation.secret))
    try:
        certificate = await client.certificate(node, request)
    finally:
        await client.close()
    return Access(url, ca, user, "", certificate, key)


def not_pinned(url: str, found: str, pin: str) -> str:
    """What to tell somebody who expected another CA."""
    return (
        f"the CA of {url} is not the one that was pinned (its key's SHA-256 is {found}, not "
        f"{pin}): this is another service, or somebody is in between"
    )


async def authority_of(url: str) -> bytes:
    """What calls itself the CA of the service at `url`, in PEM: to be believed by its pin alone."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE  # what it says is compared with the pin
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        async with httpx.AsyncClient(verify=anybody, timeout=timeout, trust_env=False) as http:
            said = await _said(http, f"{url}/ca.crt")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"cannot reach the service at {url}: {why}") from error
    try:
        return certificates.first_of(said)
    except ValueError as error:
        raise Unreachable(f"{url} answered /ca.crt without a certificate") from error


async def _said(http: httpx.AsyncClient, url: str) -> bytes:
    """What is there, no more of it than a CA can have; asked for again while too many ask."""
    said, busy = b"", 0
    while True:
        async with http.stream("GET", url) as answer:
            if answer.status_code != 429 or busy == BUSY_TRIES:
                answer.raise_for_status()
                async for part in answer.aiter_bytes():
                    said += part
                    if len(said) > CA_BYTES:
                        break
                return said
            seconds, busy = retry_after(answer), busy + 1
        await asyncio.sleep(seconds)
