"""Bearer tokens: random, 256 bits, kept only as SHA-256 hashes.

A token of 256 random bits needs no slow hash: there is nothing to guess. Tokens are in the store
under ``/tokens/<hash>``, outside the resources, and are looked up by their hash, so that no
comparison of secrets takes place.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.store import Store

PREFIX = "/tokens/"


@dataclass(frozen=True, slots=True)
class Identity:
    """`role` is admin or node; `node` the node's name for the latter."""

    user: str
    role: str
    node: str = ""


def node_identity(name: str) -> Identity:
    return Identity(f"system:node:{name}", "node", name)


ADMIN = Identity("admin", "admin")


async def issue(store: Store, identity: Identity) -> str:
    """A new token of `identity`; only its hash is kept."""
    token = f"rt-{secrets.token_urlsafe(32)}"
    document = {"user": identity.user, "role": identity.role, "node": identity.node}
    key = PREFIX + _hash(token)
    await store.commit({key: 0}, {key: json.dumps(document).encode()})
    return token


async def revoke_node(store: Store, name: str) -> None:
    """Take away every token of node `name`."""
    _, items = await store.scan(PREFIX)
    gone = [item for item in items if json.loads(item.value)["node"] == name]
    if gone:
        await store.commit({}, {item.key: None for item in gone})


def identity_of(document: dict[str, Any]) -> Identity:
    """Of a token as the store keeps it."""
    return Identity(document["user"], document["role"], document["node"])


def identify(known: Mapping[str, Identity], header: str) -> Identity | None:
    """Who the Authorization header says is asking; None: nobody known. `known` is by hash."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    return known.get(_hash(token.strip()))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
