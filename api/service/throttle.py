"""Who is refused because he asks too often: each identity has a bucket of its own, and so has each
address of those who are nobody.

An administrator, who restores a fabric or watches over it, may ten times as much as others. An
address of IPv6 is a /64: who has one address there has them all.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from api.auth.identity import ADMINISTRATOR, Identity
from api.resources.errors import TooManyRequests
from api.service.rate import Buckets, Rate

ADMINISTRATORS_TIMES = 10


class Rates(NamedTuple):
    """`known` is of one user, node or bootstrap token, `strangers` of one address."""

    known: Rate = Rate(500, 1000)
    strangers: Rate = Rate(200, 2000)


class Throttle:
    """`refused` is told of each refusal: of whom."""

    def __init__(self, rates: Rates, refused: Callable[[str], None]) -> None:
        known = rates.known
        more = Rate(known.per_second * ADMINISTRATORS_TIMES, known.burst * ADMINISTRATORS_TIMES)
        self._administrators = Buckets(more)
        self._known = Buckets(known)
        self._strangers = Buckets(rates.strangers)
        self._refused = refused

    def known(self, who: Identity) -> None:
        """Before a request of `who` is looked at; TooManyRequests."""
        buckets = self._administrators if who.role == ADMINISTRATOR else self._known
        if wait := buckets.take(who.user, time.monotonic()):
            self._refuse("identity", who.user, wait)

    def stranger(self, address: str) -> None:
        """Before a request of nobody is answered; TooManyRequests."""
        if wait := self._strangers.take(network_of(address), time.monotonic()):
            self._refuse("address", f"{address} without valid credentials", wait)

    def _refuse(self, by: str, whom: str, wait: float) -> None:
        self._refused(by)
        raise TooManyRequests(
            f"cannot serve this request: {whom} asks too often; try again", math.ceil(wait)
        )


def network_of(address: str) -> str:
    """What of an address its user cannot choose: all of IPv4's, 64 bits of IPv6's."""
    if ":" not in address:
        return address
    held = ipaddress.IPv6Address(address)
    return str(held.ipv4_mapped or held.packed[:8].hex())
