"""Every identity and what proves it, in memory, as the store has them. No I/O.

Tokens are known by the hash under which they are kept (no comparison of secrets takes place), a
certificate by what our CA has written into it. Either is good while the identity is still the one
that it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from api.auth.bootstrap import KEPT_SECONDS, Bootstrap
from api.auth.identity import Identity, Rule
from api.auth.peer import Peer, common_name
from api.auth.rights import VERBS
from api.resources.registry import by_kind
from api.resources.role import BUILT_IN
from api.resources.selectors import parse

TIDY_MOST = 50  # bootstrap tokens that are forgotten at once


@dataclass(frozen=True, slots=True)
class Token:
    """Whose token it is."""

    user: str
    uid: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a role lets its users do."""

    rules: tuple[Rule, ...]


Fact = Identity | Token | Rules | Bootstrap
PLURALS = ("identities", "tokens", "roles", "bootstraps")


class Credentials:
    """Kept current by the state of the service."""

    def __init__(self) -> None:
        self.identities: dict[str, Identity] = {}  # by user
        self.users: dict[str, str] = {}  # by uid
        self.tokens: dict[str, Token] = {}  # by hash
        self.roles: dict[str, Rules] = {}
        self.bootstraps: dict[str, Bootstrap] = {}  # by hash
        self._shown: dict[str, tuple[str, ...]] = {}  # by user, the hashes of its tokens
        self._invited: dict[str, tuple[str, ...]] = {}  # by node, those of its bootstrap tokens

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def put(self, plural: str, name: str, fact: Any) -> Fact | None:
        """Have `fact` in place (None: nothing); what was there."""
        held: dict[str, Any] = getattr(self, plural)
        before: Fact | None = held.pop(name, None)
        if isinstance(before, Identity):
            self.users.pop(before.uid, None)
        if fact is not None:
            held[name] = fact
        if isinstance(fact, Identity):
            self.users[fact.uid] = name
        for one, add in ((before, False), (fact, True)):
            if isinstance(one, Token):
                _index(self._shown, one.user, name, add=add)
            elif isinstance(one, Bootstrap):
                _index(self._invited, one.node, name, add=add)
        return before

    def of_token(self, hashed: str) -> Identity | None:
        token = self.tokens.get(hashed)
        return None if token is None else self._present(token.user, token.uid)

    def of_certificate(self, peer: Peer, now: float) -> Identity | None:
        """`peer` has been verified by TLS when it connected; `now` is seconds since the epoch."""
        user = self.users.get(peer.uid, "") if now < peer.expires else ""
        found = self._present(user, peer.uid)
        if found is None or (common_name(user), found.group) != (peer.name, peer.group):
            return None
        return replace(found, until=peer.expires)

    def holds(self, who: Identity) -> bool:
        """Whether `who` is still who it was, with the same rights."""
        found = self._present(who.user, who.uid)
        return found is not None and replace(found, until=who.until) == who

    def tokens_of(self, user: str) -> list[str]:
        """The hashes of a user's tokens."""
        return list(self._shown.get(user, ()))

    def bootstraps_of(self, node: str) -> list[str]:
        """The hashes of the tokens that a node can join with, or has."""
        return list(self._invited.get(node, ()))

    def long_over(self, now: float) -> list[str]:
        """The hashes of some bootstrap tokens that nobody will ask about any more."""
        over = (h for h, one in self.bootstraps.items() if one.expires + KEPT_SECONDS < now)
        return list(islice(over, TIDY_MOST))

    def _present(self, user: str, uid: str) -> Identity | None:
        """The identity with what its role lets it do, if it is still this one."""
        found = self.identities.get(user)
        if found is None or found.uid != uid:
            return None
        if found.role in BUILT_IN:
            return found
        role = self.roles.get(found.role)
        return replace(found, rules=role.rules) if role else found


def _index(index: dict[str, tuple[str, ...]], key: str, hashed: str, *, add: bool) -> None:
    rest = tuple(one for one in index.get(key, ()) if one != hashed)
    if held := tuple(sorted((*rest, hashed))) if add else rest:
        index[key] = held
    else:
        index.pop(key, None)


def token_of(document: dict[str, Any]) -> Token:
    """Of a token as the store keeps it; one without uid is of before there were identities."""
    return Token(document["user"], document.get("uid", ""))


def rules_of(document: dict[str, Any]) -> Rules:
    """Of a Role as the store keeps it."""
    return Rules(tuple(_rule(rule) for rule in document["spec"]["rules"]))


def _rule(rule: dict[str, Any]) -> Rule:
    known = [by_kind(kind) for kind in rule["kinds"]]
    plurals = None if "*" in rule["kinds"] else frozenset(k.plural for k in known if k)
    verbs = VERBS if "*" in rule["verbs"] else frozenset(rule["verbs"])
    return Rule(plurals, verbs, parse(rule["labelSelector"]).matches)
