"""Bootstrap tokens: how a host that has nothing yet joins as one node, once and soon.

A token is handed over as one word. It carries what the host needs to trust the service before it
says the secret: the pin of its CA (SHA-256 of the public key, as kubeadm's). Of the secret only the
hash is kept, under ``/bootstraps/<hash>``; a token that was used stays there for a while, so that
whoever comes second is told so.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from api.auth.identity import BOOTSTRAP, Identity
from api.resources.errors import Cause, ConfigError, Unauthorized
from api.store import Item

PREFIX = "/bootstraps/"
BEGINS = "rtb-"
LONGEST_SECONDS = 900
KEPT_SECONDS = 86_400  # after its end, to say what became of it

_WORD = re.compile(r"(?P<secret>rtb-[\w-]{43})\.(?P<pin>[0-9a-f]{64})\.(?P<server>[\w-]+)\Z", re.A)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token as it is handed over: `pin` is that of the CA, `server` the service's URL."""

    secret: str
    pin: str
    server: str

    def __str__(self) -> str:
        server = base64.urlsafe_b64encode(self.server.encode()).decode().rstrip("=")
        return f"{self.secret}.{self.pin}.{server}"


def new_secret() -> str:
    return BEGINS + secrets.token_urlsafe(32)


def parse(text: str) -> Invitation:
    """The inverse of `str`; ConfigError, which does not repeat what it was given."""
    found = _WORD.match(text.strip())
    try:
        if found is None:
            raise ValueError
        padding = "=" * (-len(found["server"]) % 4)
        server = base64.urlsafe_b64decode(found["server"] + padding).decode()
    except ValueError as error:
        said = "is none: it is one word, as routectl token create --node NODE prints it"
        raise ConfigError("the bootstrap token", [Cause("", said)]) from error
    return Invitation(found["secret"], found["pin"], server)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A token as the store keeps it; times are seconds since the epoch, `used` 0: not yet.
    `revision` is that of its key."""

    hashed: str
    node: str
    expires: float
    used: float = 0.0
    revision: int = 0

    @property
    def key(self) -> str:
        return PREFIX + self.hashed

    @property
    def identity(self) -> Identity:
        """Who shows it; the uid is the hash."""
        return Identity(f"system:bootstrap:{self.node}", BOOTSTRAP, self.node, self.hashed)

    def used_at(self, now: float) -> Bootstrap:
        return replace(self, used=now)

    def encoded(self) -> bytes:
        document = {"node": self.node, "expires": self.expires, "used": self.used}
        return json.dumps(document).encode()


def of_document(document: dict[str, Any], hashed: str = "", revision: int = 0) -> Bootstrap:
    return Bootstrap(hashed, document["node"], document["expires"], document["used"], revision)


def usable(item: Item | None, now: float) -> Bootstrap:
    """The token, if a node can still join with it; Unauthorized says why not. `item` is what the
    store has under its hash."""
    if item is None:
        raise Unauthorized(f"cannot join: the bootstrap token is not known here; {_ANOTHER}")
    found = of_document(json.loads(item.value), item.key.removeprefix(PREFIX), item.revision)
    if found.used:
        raise Unauthorized(
            f"cannot join: the bootstrap token of node {found.node} has been used already, "
            f"at {said(found.used)}; {_ANOTHER}"
        )
    if now >= found.expires:
        raise Unauthorized(
            f"cannot join: the bootstrap token of node {found.node} expired at "
            f"{said(found.expires)}; {_ANOTHER}"
        )
    return found


_ANOTHER = "make another with: routectl token create --node NODE"


def said(when: float) -> str:
    """Seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
