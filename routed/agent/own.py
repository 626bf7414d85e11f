"""The host's own addresses as they are now, read anew now and then; the choice is
`routed.addressing`'s.

A name that is to be reached is looked up when the node registers, and not again, in a thread and
for a bounded time: a resolver that does not answer must not hold up everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from api.resources.net import IPAddress, IPNetwork, parse_address
from api.resources.node import NodeAddress
from routed import addressing
from routed.addressing import By, Choice, Method
from routed.kernel import interfaces
from routed.settings import AgentSettings

log = logging.getLogger("routed.agent")
PATIENCE = 5.0  # seconds that a resolver is waited for; what it says later counts all the same


class Own:
    """`chosen`: as of the last look."""

    def __init__(self, settings: AgentSettings) -> None:
        self.chosen: list[Choice] = []
        self._listed = settings.addresses
        self._method = Method.parse(settings.address_method)
        self._sources: list[IPAddress] = []
        self._told: list[Choice] | None = None
        self._resolving: asyncio.Task[None] | None = None

    async def resolve(self, server: str) -> None:
        """Look up the name that is to be reached, if it is one."""
        place = destination(self._method, server)
        if self._listed or place is None or _is_address(place[0]):
            return
        if self._resolving is None or self._resolving.done():
            self._resolving = asyncio.create_task(self._resolve(*place))
        if not (await asyncio.wait({self._resolving}, timeout=PATIENCE))[0]:
            log.warning("%s is not resolved yet: no resolver answers", place[0])

    async def _resolve(self, host: str, port: int) -> None:
        self._sources = await asyncio.to_thread(interfaces.sources, host, port)

    def look(self, server: str, pools: Collection[IPNetwork], *, names: bool = False) -> None:
        """Choose again. `server` is the control plane's URL; `names`: look up names too, and wait
        for it."""
        try:
            held = interfaces.read()
        except OSError as error:
            log.warning("addresses of this host unreadable: %s", error)
            return
        if self._listed:
            self.chosen = addressing.declared(self._listed, held)
        else:
            place = destination(self._method, server)
            if place is not None and (names or _is_address(place[0])):
                self._sources = interfaces.sources(*place)
            self.chosen = addressing.choose(self._method, held, self._sources, pools)
        self._tell()

    def addresses(self) -> list[IPAddress]:
        return [one.address for one in self.chosen]

    def status(self) -> list[NodeAddress]:
        return [
            NodeAddress(address=one.address, interface=one.interface, method=one.method)
            for one in self.chosen
        ]

    def _tell(self) -> None:
        if self.chosen == self._told:
            return
        self._told = self.chosen
        for one in self.chosen:
            log.info("own address=%s dev=%s by=%s", one.address, one.interface, one.method)
        if not self.chosen:
            log.warning("no own address is found by addressMethod %s", self._method.text)


def destination(method: Method, server: str) -> tuple[str, int] | None:
    """What the method wants to reach, if anything: host and port."""
    if method.by is By.CAN_REACH:
        return method.destination, 9
    if method.by is By.CONTROL_PLANE:
        url = urlsplit(server)
        return (url.hostname, url.port or 443) if url.hostname else None
    return None


def _is_address(host: str) -> bool:
    try:
        parse_address(host)
    except ValueError:
        return False
    return True
