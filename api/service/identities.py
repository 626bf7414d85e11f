"""Giving out credentials and ending them: joining nodes, people, revocation.

Whatever is given out is decided and committed at once: a bootstrap token is used, the identity made
anew, and what it had to show before ended, in one change, which rests on all three as they were.
So of two who use one token one wins, and of two who make credentials of one user one has good ones.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import Request, Response

from api.auth import bootstrap, certificates, kubeconfig, tokens
from api.auth.bootstrap import Bootstrap, Invitation
from api.auth.certificates import Authority
from api.auth.identity import BOOTSTRAP, NODE, OF_PEOPLE, Identity, of_node
from api.auth.kubeconfig import Access
from api.auth.rights import grant
from api.resources.errors import BadRequest, Cause, Forbidden, Invalid, NotFound
from api.resources.meta import dns_subdomain
from api.resources.status import success
from api.service.answers import json_answer
from api.service.bodies import body_of
from api.service.judging import forbidden
from api.service.objects import Objects
from api.service.turns import TRIES, too_many
from api.store import StoreConflict

Puts = dict[str, bytes | None]


class Identities:
    """The handlers."""

    def __init__(self, objects: Objects, authority: Authority, server_url: str) -> None:
        self.mirror = objects.mirror
        self.authority = authority
        self.server_url = server_url
        self.pin = certificates.pin(authority.pem)

    # -- nodes -------------------------------------------------------------------------------------

    async def invite(self, request: Request, who: Identity) -> Response:
        """A bootstrap token; the ones that were made for this node before stop to work."""
        node = _permitted(request, who, "create", "bootstraps")
        seconds = _lifetime(await body_of(request, empty={}))
        secret, now = bootstrap.new_secret(), time.time()
        state = await self.mirror.fresh()
        known = state.world.credentials
        outdated = [*known.bootstraps_of(node), *known.long_over(now)]
        puts: Puts = dict.fromkeys(bootstrap.PREFIX + hashed for hashed in outdated)
        made = Bootstrap(tokens.hash_of(secret), node, now + seconds)
        puts[made.key] = made.encoded()
        await self.mirror.store.commit({}, puts)
        return json_answer(
            {
                "kind": "BootstrapToken",
                "node": node,
                "token": str(Invitation(secret, self.pin, self.server_url)),
                "expires": bootstrap.said(made.expires),
            },
            201,
        )

    async def certify(self, request: Request, who: Identity) -> Response:
        """A certificate for the key of a request: a node's next one, or its first by a bootstrap
        token, with which it becomes another identity of the same name."""
        node = request.path_params["name"]
        if who.role == BOOTSTRAP and who.node != node:
            raise Forbidden(
                f"cannot join as node {node}: this bootstrap token is for node {who.node}",
                kind="Node",
                name=node,
            )
        _permitted(request, who, "create", "certificates")
        key = certificates.key_of_request((await body_of(request)).get("request"))
        if who.role == NODE:
            return self._signed(self.authority.sign(key, who))
        return await self._anew(of_node(node), key, who.uid if who.role == BOOTSTRAP else "")

    async def node(self, request: Request, who: Identity) -> Response:
        """A kubeconfig with a token, for a node that cannot use certificates."""
        name = _permitted(request, who, "create", "credentials")
        return await self._kubeconfig(of_node(name))

    async def end_node(self, request: Request, who: Identity) -> Response:
        name = _permitted(request, who, "delete", "credentials")
        return await self._ended(of_node(name))

    # -- people ------------------------------------------------------------------------------------

    async def user(self, request: Request, who: Identity) -> Response:
        """A kubeconfig of a user in one role; the ones before stop to work."""
        name = _permitted(request, who, "create", "credentials")
        return await self._kubeconfig(await self._user(name, await body_of(request)))

    async def certify_user(self, request: Request, who: Identity) -> Response:
        """A certificate for the key of a request: of a user in one role, as `user` gives a token;
        or, where no role is said, the next one of who asks, with which he stays who he is."""
        body = await body_of(request)
        if "role" in body:
            name = _permitted(request, who, "create", "credentials")
        else:
            name = _permitted(request, who, "create", "renewals")
        key = certificates.key_of_request(body.get("request"))
        if "role" not in body and name == who.user:
            return self._signed(self.authority.sign(key, who))
        return await self._anew(await self._user(name, body), key)

    async def end_user(self, request: Request, who: Identity) -> Response:
        name = _permitted(request, who, "delete", "credentials")
        return await self._ended(Identity(name, ""))

    async def list(self, request: Request, who: Identity) -> Response:
        """Who may be asking, without anything that proves it."""
        if grant(who, "list", "credentials") is None:
            raise forbidden(who, "list", "credentials")
        known = (await self.mirror.fresh()).world.credentials
        tokens_of = Counter(token.user for token in known.tokens.values())
        items = [
            {"user": user, "role": one.role, "tokens": tokens_of[user]}
            for user, one in sorted(known.identities.items())
        ]
        return json_answer({"kind": "UserList", "items": items})

    async def _user(self, name: str, body: dict[str, Any]) -> Identity:
        """The user as `body` wants it; Invalid if there is no such role."""
        role, made = body.get("role"), (await self.mirror.fresh()).world.credentials.roles
        if not isinstance(role, str) or role not in {*OF_PEOPLE, *made}:
            known = ", ".join(sorted({*OF_PEOPLE, *made}))
            said = f"{role!r} is no role of a user: there are {known}"
            raise Invalid(
                f"cannot make credentials of {name}: {said}", causes=[Cause("role", said)]
            )
        return Identity(name, role)

    # -- what they share ---------------------------------------------------------------------------

    async def _anew(
        self, identity: Identity, key: ec.EllipticCurvePublicKey, invited: str = ""
    ) -> Response:
        """A certificate of `identity`, made anew; `invited`: the hash of the bootstrap token that
        is used up for it."""
        for _ in range(TRIES):
            state = await self.mirror.fresh()
            made = identity.anew()
            held = state.item("identities", made.user)
            expect = {made.key: held.revision if held else 0}
            puts: Puts = dict.fromkeys(state.credentials_of(made))
            puts[made.key] = json.dumps(made.document()).encode()
            if invited:
                token = bootstrap.usable(state.item("bootstraps", invited), time.time())
                expect[token.key] = token.revision
                puts[token.key] = token.used_at(time.time()).encoded()
            signed = self.authority.sign(key, made)
            try:
                await self.mirror.store.commit(expect, puts)
            except StoreConflict:
                continue
            return self._signed(signed)
        raise too_many()

    async def _kubeconfig(self, identity: Identity) -> Response:
        token = await tokens.issue(self.mirror.store, identity, replace=True)
        access = Access(self.server_url, self.authority.pem, identity.user, token)
        return Response(kubeconfig.render(access), 201, media_type="application/yaml")

    async def _ended(self, identity: Identity) -> Response:
        for _ in range(TRIES):
            state = await self.mirror.fresh()
            held = state.item("identities", identity.user)
            keys = state.credentials_of(identity)
            if not keys:
                raise NotFound(f"cannot revoke {identity.user}: it has no credentials")
            expect = {identity.key: held.revision if held else 0}
            try:
                await self.mirror.store.commit(expect, dict.fromkeys(keys))
            except StoreConflict:
                continue
            return json_answer(success("users", identity.user, ""))
        raise too_many()

    def _signed(self, certificate: str) -> Response:
        ends = certificates.life_of(certificate.encode()).expires
        document = {
            "kind": "Certificate",
            "certificate": certificate,
            "expires": bootstrap.said(ends),
        }
        return json_answer(document, 201)


def _permitted(request: Request, who: Identity, verb: str, plural: str) -> str:
    """The name in the path, if `who` may do it there; Forbidden, or BadRequest."""
    name: str = request.path_params["name"]
    granted = grant(who, verb, plural)
    if granted is None or granted.name not in ("", name):
        raise forbidden(who, verb, plural, name)
    if request.query_params.get("dryRun"):
        raise BadRequest("cannot make or end credentials as a dry run")
    try:
        return dns_subdomain(name)
    except ValueError as error:
        raise BadRequest(f"cannot make credentials: {error}") from error


def _lifetime(body: dict[str, Any]) -> int:
    """For how many seconds a bootstrap token is asked for."""
    asked, most = body.get("ttlSeconds", bootstrap.LONGEST_SECONDS), bootstrap.LONGEST_SECONDS
    if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= most:
        said = f"must be 1 to {most} seconds, not {asked!r}"
        raise Invalid(
            f"cannot make a bootstrap token: ttlSeconds {said}", causes=[Cause("ttlSeconds", said)]
        )
    return asked
