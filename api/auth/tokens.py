"""Bearer tokens: random, 256 bits, kept only as SHA-256 hashes.

A token of 256 random bits needs no slow hash: there is nothing to guess. Tokens are in the store
under ``/tokens/<hash>``, outside the resources, and name the identity that they are of.
"""

from __future__ import annotations

import hashlib
import json
import secrets

from api.auth import identity as identities
from api.auth.credentials import token_of
from api.auth.identity import ADMIN, Identity, of_node
from api.resources.errors import Conflict
from api.store import Item, Store, StoreConflict

PREFIX = "/tokens/"
TRIES = 20

node_identity = of_node


async def issue(store: Store, wanted: Identity, *, replace: bool = False) -> str:
    """A new token of `wanted`; only its hash is kept. With `replace` all that the user had to show
    before ends with the same commit, so that of several who do this at once one is left."""
    token = f"rt-{secrets.token_urlsafe(32)}"
    for _ in range(TRIES):
        held = await _held(store, wanted)
        known = None if held is None else identities.of_document(json.loads(held.value))
        puts: dict[str, bytes | None] = {}
        if known is None or replace:
            known = wanted.anew()
            puts = {key: None for key in await _tokens(store, wanted.user)}
            puts[known.key] = json.dumps(known.document()).encode()
        puts[PREFIX + hash_of(token)] = json.dumps({"user": known.user, "uid": known.uid}).encode()
        try:
            await store.commit({known.key: held.revision if held else 0}, puts)
        except StoreConflict:
            continue
        return token
    raise Conflict(f"cannot make a token of {wanted.user}: too many others do; try again")


async def _held(store: Store, wanted: Identity) -> Item | None:
    _, items = await store.scan(wanted.key)
    return next((item for item in items if item.key == wanted.key), None)


async def _tokens(store: Store, user: str) -> list[str]:
    """The keys of a user's tokens."""
    _, items = await store.scan(PREFIX)
    return [item.key for item in items if token_of(json.loads(item.value)).user == user]


def secret_of(header: str) -> str:
    """The token of an Authorization header; empty if there is none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


__all__ = ["ADMIN", "PREFIX", "Identity", "hash_of", "issue", "node_identity", "secret_of"]
