"""Who is asking: by the token of the request, else by the certificate of its connection."""

from __future__ import annotations

from fastapi import Request

from api.auth import bootstrap, tokens
from api.auth.identity import Identity
from api.auth.peer import SCOPE
from api.resources.errors import Unauthorized
from api.service.state import State


def identified(state: State, request: Request, now: float) -> Identity:
    """Unauthorized if it is nobody; `now` is in seconds since the epoch."""
    header, known = request.headers.get("authorization", ""), state.world.credentials
    if header:
        secret = tokens.secret_of(header)
        hashed = tokens.hash_of(secret)
        if secret.startswith(bootstrap.BEGINS):
            return bootstrap.usable(state.item("bootstraps", hashed), now).identity
        who = known.of_token(hashed)
        if who is None:
            raise Unauthorized("cannot serve this request: its token is not valid (any more)")
        return who
    peer = request.scope.get(SCOPE)
    if peer is None:
        raise Unauthorized("cannot serve this request: it has neither token nor certificate")
    who = known.of_certificate(peer, now)
    if who is None:
        raise Unauthorized(
            f"cannot serve this request: the certificate of {peer.name} is not valid any more: it "
            "has expired, was revoked, its node was deleted, or has joined anew since"
        )
    return who
