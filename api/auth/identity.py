"""Who is asking. An identity is a user with one role, and what proves it is a credential: a token
or a certificate.

`uid` is new whenever an identity is made anew. Every credential names the one it was made for and
is good as long as the store has it, so all credentials of a user end with one change of one key:
nothing has to be kept of a certificate, and a store that was restored knows those made after the
backup too.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from api.resources.role import BUILT_IN
from api.resources.selectors import Labels

PREFIX = "/identities/"
ADMINISTRATOR, OPERATOR, VIEWER, NODE, BOOTSTRAP = BUILT_IN
OF_PEOPLE = (ADMINISTRATOR, OPERATOR, VIEWER)


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on objects of some kinds (plurals; None: all) whose labels match."""

    plurals: frozenset[str] | None
    verbs: frozenset[str]
    matches: Callable[[Labels], bool]


@dataclass(frozen=True, slots=True)
class Identity:
    """`node` is the node's name in role node and bootstrap; `rules` are those of a role that is not
    built in. `until` is when what was shown of it ends, in seconds since the epoch."""

    user: str
    role: str
    node: str = ""
    uid: str = ""
    rules: tuple[Rule, ...] = ()
    until: float = math.inf

    @property
    def key(self) -> str:
        return PREFIX + self.user

    @property
    def group(self) -> str:
        """As a certificate names it."""
        return {NODE: "system:nodes", ADMINISTRATOR: "system:masters"}.get(self.role, self.role)

    def anew(self) -> Identity:
        """The same, of whose earlier credentials none is good any more."""
        return replace(self, uid=uuid.uuid4().hex)

    def document(self) -> dict[str, Any]:
        """As the store keeps it."""
        return {"user": self.user, "role": self.role, "node": self.node, "uid": self.uid}


def of_document(document: dict[str, Any]) -> Identity:
    return Identity(document["user"], document["role"], document["node"], document["uid"])


def of_node(name: str) -> Identity:
    return Identity(f"system:node:{name}", NODE, name)


ADMIN = Identity("admin", ADMINISTRATOR)
