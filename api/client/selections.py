"""What selectors stand for, as the service says it: the whole of each, then what changes.

A subject is the text of a selector, or (name, selector) for a port that has a name. Whoever reads
says at any time what is needed (`Selections.need`). Each subject has a version, which names its
members and no others: what is known at its present version is not told again, whichever replica
is asked and however often, so a connection that ends costs what has changed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from api.client.answers import Unreachable
from api.client.client import Client
from api.resources.errors import BadRequest, Incompatible, Invalid, RoutedError, TooLarge
from api.resources.net import IPAddress, IPNetwork, parse_address, parse_cidr

Subject = str | tuple[str, str]
PortMember = tuple[IPAddress, int, int]  # address, protocol (IANA), port

WHOLE, DELTA, SYNCED, LOST = "WHOLE", "DELTA", "SYNCED", "LOST"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
BACK_SECONDS = (0.2, 5.0)  # before asking again: at most, the first time, and however often
# what does not get better by asking again
FINAL = (BadRequest, Invalid, TooLarge, Incompatible)


@dataclass(frozen=True, slots=True)
class Entries:
    """Of a selector `addresses` and `nets`, of a named port `ports`."""

    addresses: frozenset[IPAddress] = frozenset()
    nets: frozenset[IPNetwork] = frozenset()
    ports: frozenset[PortMember] = frozenset()


NO_ENTRIES = Entries()


@dataclass(frozen=True, slots=True)
class Told:
    """`type` is

    WHOLE   `of` has the members `add` and no others, at `version`
    DELTA   `of` has `add` more, and `remove` no more, at `version`
    SYNCED  every subject that is needed is as it was at `revision` of the store
    LOST    the service cannot be asked, because of `why`; what was told before may be outdated
    """

    type: str
    of: Subject = ""
    add: Entries = NO_ENTRIES
    remove: Entries = NO_ENTRIES
    version: str = ""
    revision: int = 0
    why: RoutedError | None = None


@dataclass(eq=False)
class Selections:
    """`known` has the versions of what the reader has from before ("" or nothing: it has none)."""

    client: Client
    known: Mapping[Subject, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = dict(self.known)
        self._needed: frozenset[Subject] = frozenset()
        self._changed = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None  # for a line

    def need(self, subjects: Collection[Subject]) -> None:
        """From now on these are told, and others not any more. What was known before and is not
        needed in between is told anew when it is needed again."""
        wanted = frozenset(subjects)
        if wanted != self._needed:
            self._needed = wanted
            self._known = {one: version for one, version in self._known.items() if one in wanted}
            self._changed.set()
            if self._waiting is not None:
                self._waiting.reschedule(0)

    async def follow(self) -> AsyncGenerator[Told, None]:
        """All that is told, without end: a connection that ends is made again, at another replica
        where there is one. Raises BadRequest, Invalid or TooLarge if the service cannot take what
        is needed, and Incompatible."""
        tries = 0
        while True:
            self._changed.clear()
            if not (needed := self._needed):
                yield Told(SYNCED)
                await self._changed.wait()
                continue
            server = self.client.server
            try:
                async with aclosing(self._lines(needed)) as lines:
                    while (told := await self._unless_changed(lines)) is not None:
                        tries = 0
                        if told.type != SYNCED and told.of in self._needed:
                            self._known[told.of] = told.version
                        yield told
            except FINAL:
                raise
            except RoutedError as error:
                yield Told(LOST, why=error)
                tries += 1
                another = await self.client.leave(server)
                await asyncio.sleep(_seconds(tries if not another else tries - 1))

    async def _unless_changed(self, lines: AsyncGenerator[Told, None]) -> Told | None:
        """The next line; None if something else is needed now."""
        if self._changed.is_set():
            return None
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await anext(lines)
        except TimeoutError:
            if self._changed.is_set():
                return None
            raise
        finally:
            self._waiting = None

    async def _lines(self, needed: Iterable[Subject]) -> AsyncGenerator[Told, None]:
        """One connection."""
        server = self.client.server
        body = self._asked(needed)
        try:
            async with self.client.stream("POST", "/selections", json=body) as got:
                async for line in got.aiter_lines():
                    if (told := _told(json.loads(line))) is not None:
                        yield told
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"cannot follow selections at {server}: {why}") from error
        raise Unreachable(f"the service at {server} ended the selections")

    def _asked(self, needed: Iterable[Subject]) -> dict[str, Any]:
        selectors, ports = [], []
        for one in needed:
            version = {"version": known} if (known := self._known.get(one)) else {}
            if isinstance(one, str):
                selectors.append({"selector": one, **version})
            else:
                ports.append({"name": one[0], "selector": one[1], **version})
        return {"selectors": selectors, "ports": ports}


def _told(line: dict[str, Any]) -> Told | None:
    """None: it says nothing, or something that came later than this release."""
    kind = line["type"]
    if kind == "BOOKMARK":
        return Told(SYNCED, revision=int(line["revision"]))
    if kind not in (WHOLE, DELTA):
        return None
    selector = str(line["selector"])
    named = "port" in line
    return Told(
        kind,
        (str(line["port"]), selector) if named else selector,
        _entries(line["add"], named=named),
        _entries(line.get("remove", ()), named=named),
        str(line["version"]),
        int(line["revision"]),
    )


def _entries(texts: Iterable[str], *, named: bool) -> Entries:
    if named:
        return Entries(ports=frozenset(_port(text) for text in texts))
    addresses, nets = [], []
    for text in texts:
        if "/" in text:
            nets.append(parse_cidr(text))
        else:
            addresses.append(parse_address(text))
    return Entries(frozenset(addresses), frozenset(nets))


def _port(text: str) -> PortMember:
    """As in ``10.0.0.1,tcp:80``."""
    address, _, rest = text.partition(",")
    protocol, _, port = rest.partition(":")
    return parse_address(address), PROTOCOLS[protocol], int(port)


def _seconds(tries: int) -> float:
    """To wait before one more: those who were ended together do not come back so."""
    least, most = BACK_SECONDS
    return random.uniform(0, min(most, least * 2 ** max(tries - 1, 0)))  # noqa: S311 - jitter
