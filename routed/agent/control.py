"""The agent's connection to the control plane: intent in, reports out, blocks claimed.

Intent comes by one watch per kind, each beginning with the full set; it is handed on only once
every watch has shown its whole set, so a half-read service never looks like deletions. From then
on each change makes a new `Intent`. The last good one is on disk and stays there through an outage.

What was written by us is merged at once (`merge`), by resourceVersion, so that a block just
claimed can be used before the watch shows it, and a report just made is not made again.

Writes are decided by `reporting` from current state; what fails is decided anew the next time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

from api.client import Client, Unreachable, WatchEvent
from api.resources import BGPConfiguration, BGPPeer, IPBlock, IPPool, Node, Workload
from api.resources.errors import (
    AlreadyExists,
    Conflict,
    IntentError,
    NotFound,
    RoutedError,
    StorageError,
)
from api.resources.ippool import IPBlockSpec
from api.resources.meta import ObjectMeta, Resource
from api.resources.net import IPAddress, parse_address
from api.resources.registry import KINDS, by_kind
from routed.agent import intent as intents
from routed.agent.intent import WATCHED, Intent
from routed.agent.reporting import Create, Update, UpdateStatus, Write
from routed.settings import AgentSettings

log = logging.getLogger("routed.control")

GRAVES = 4096  # deletions remembered, for answers that come late
BACKOFF = (0.2, 5.0)  # seconds: first and longest wait between tries, with jitter


class Reporter(Protocol):
    """What the connection asks of the agent."""

    def intent_changed(self, intent: Intent) -> None: ...

    def writes(self, intent: Intent) -> list[Write]: ...

    def node_object(self) -> Node: ...

    async def keep_blocks(self) -> None: ...


class Control:
    """One node's view of the service. `serve` never ends; `claim` is for the address book."""

    def __init__(self, settings: AgentSettings, client: Client | None) -> None:
        self.node = settings.node
        self.client = client
        self.path: Path = settings.state_dir / "intent.json"
        self._held: dict[str, dict[str, Resource]] = {plural: {} for plural in WATCHED}
        self._growing: dict[str, dict[str, Resource]] = {}
        self._merged: set[str] = set()
        self._gone: dict[tuple[str, str], int] = {}  # revisions at which objects were deleted
        self._whole: set[str] = set()  # on their present connection
        self._seen: set[str] = set()  # once, since this process began
        self._wake = asyncio.Event()
        self._publish: Callable[[], None] = lambda: None
        self._saved: Intent | None = None
        self.connected = False

    def stored_intent(self) -> Intent | None:
        """The last good intent of disk: what an agent works from until the service answers."""
        self._saved = intents.load(self.path, self.node)
        return self._saved

    @property
    def in_sync(self) -> bool:
        """Every watch has shown its whole set on its present connection."""
        return self._whole == set(WATCHED)

    def wake(self) -> None:
        """Something may have to be reported."""
        self._wake.set()

    async def serve(self, agent: Reporter) -> None:
        """Keep the watches and the reports going; outages only end the present try."""
        if self.client is None:
            return
        self._publish = lambda: agent.intent_changed(self._intent())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._register(agent))
            for plural in WATCHED:
                tasks.create_task(self._follow(plural))
            tasks.create_task(self._report(agent))

    # -- in ----------------------------------------------------------------------------------------

    async def _follow(self, plural: str) -> None:
        assert self.client is not None
        selector = {
            "nodes": f"metadata.name={self.node}",
            "ipblocks": f"spec.node={self.node}",
            "workloads": f"spec.node={self.node}",
        }.get(plural, "")
        backoff = Backoff()
        while True:
            try:
                async for event in self.client.watch(plural, field_selector=selector):
                    self._take(plural, event)
                    backoff.reset()
            except (Unreachable, IntentError) as error:
                if plural in self._whole:
                    log.warning("watch ended kind=%s why=%s", plural, error)
                self._whole.discard(plural)
                self._set_connected()
            await backoff.wait()

    def _take(self, plural: str, event: WatchEvent) -> None:
        """One event of a watch; between BEGIN and END the new set grows aside."""
        if event.type == "BEGIN":
            self._growing[plural] = {}
            return
        if event.type == "END":
            self._finish_set(plural)
        elif event.object is not None:
            name = event.object.metadata.name
            growing = self._growing.get(plural)
            held = self._held[plural] if growing is None else growing
            if event.type == "DELETED":
                held.pop(name, None)
                self._bury(event.object)
            elif growing is None and self._is_gone(event.object):
                return
            elif (known := held.get(name)) is None or _revision(event.object) > _revision(known):
                held[name] = event.object
            if growing is not None:
                return
        self._changed()

    def _finish_set(self, plural: str) -> None:
        """The whole set is here: it replaces what was held, except what we merged since."""
        growing = self._growing.pop(plural)
        newest = max((_revision(held) for held in growing.values()), default=0)
        for name, held in self._held[plural].items():
            if name in self._merged and _revision(held) > newest and name not in growing:
                growing[name] = held
        self._merged.clear()
        self._held[plural] = growing
        self._whole.add(plural)
        self._set_connected()

    def merge(self, held: Resource) -> None:
        """Take in an object that the service has just answered with."""
        plural = _plural(held)
        known = self._held[plural].get(held.metadata.name)
        if self._is_gone(held):
            return
        if known is None or _revision(held) > _revision(known):
            self._held[plural][held.metadata.name] = held
            self._merged.add(held.metadata.name)
            self._changed()

    def drop(self, plural: str, name: str) -> None:
        """Forget an object that we have just deleted."""
        held = self._held[plural].pop(name, None)
        if held is not None:
            self._bury(held)
            self._changed()

    def _bury(self, held: Resource) -> None:
        """Answers and events come over several connections: an older one may come later."""
        self._gone[(_plural(held), held.metadata.name)] = _revision(held)
        while len(self._gone) > GRAVES:
            del self._gone[next(iter(self._gone))]

    def _is_gone(self, held: Resource) -> bool:
        return _revision(held) <= self._gone.get((_plural(held), held.metadata.name), -1)

    def _intent(self) -> Intent:
        held = self._held
        nodes = cast("dict[str, Node]", held["nodes"])
        configurations = cast("dict[str, BGPConfiguration]", held["bgpconfigurations"])
        return Intent(
            node_name=self.node,
            node=nodes.get(self.node),
            pools=cast("dict[str, IPPool]", held["ippools"]),
            blocks=cast("dict[str, IPBlock]", held["ipblocks"]),
            workloads=cast("dict[str, Workload]", held["workloads"]),
            peers=cast("dict[str, BGPPeer]", held["bgppeers"]),
            bgp=configurations.get("default"),
        )

    def _changed(self) -> None:
        """Hand on and write down what is known, once every watch has shown its whole set.

        A watch that is being read anew does not hold the others up: what it showed last stays.
        """
        if not self._seen >= set(WATCHED):
            self._seen |= self._whole
            if not self._seen >= set(WATCHED):
                return
        intent = self._intent()
        if intent != self._saved:
            try:
                intents.save(self.path, intent)
                self._saved = intent
            except OSError as error:  # worked with all the same, and saved with the next change
                log.error("intent not saved path=%s: %s", self.path, error)
            self._publish()
        self._wake.set()

    def _set_connected(self) -> None:
        connected = self.in_sync
        if connected != self.connected:
            self.connected = connected
            log.info("control plane %s", "in sync" if connected else "lost")
            self._wake.set()

    # -- out ---------------------------------------------------------------------------------------

    async def claim(self, *, pool: str = "", address: IPAddress | None = None) -> Intent:
        """Claim a block; the intent that has it. IntentError or Unreachable."""
        if self.client is None or not self._seen >= set(WATCHED):
            raise Unreachable("the control plane has not answered yet")
        spec = IPBlockSpec(node=self.node, pool=pool, address=address)
        wanted = IPBlock(metadata=ObjectMeta(name="claim"), spec=spec)
        self.merge(await self.client.create(wanted))
        return self._intent()

    async def release(self, name: str) -> None:
        """Give a block back; the service refuses nothing that is ours."""
        assert self.client is not None
        try:
            await self.client.delete(IPBlock, name)
        except NotFound:
            log.debug("block already released name=%s", name)
        self.drop("ipblocks", name)

    def own_addresses(self) -> list[IPAddress]:
        """The address that this host reaches the control plane from, if it can be told."""
        if self.client is None:
            return []
        url = urlsplit(self.client.server)
        try:
            found = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_DGRAM)
            with socket.socket(found[0][0], socket.SOCK_DGRAM) as probe:
                probe.connect(found[0][4])  # a datagram socket: nothing is sent
                return [parse_address(probe.getsockname()[0])]
        except (OSError, ValueError):
            return []

    async def _register(self, agent: Reporter) -> None:
        """Create our Node object where there is none; the service gives it its ASN."""
        assert self.client is not None
        backoff = Backoff()
        while True:
            try:
                self.merge(await self.client.create(agent.node_object()))
                return
            except AlreadyExists:
                return
            except (RoutedError, OSError) as error:
                log.debug("not registered: %s", error)
            await backoff.wait()

    async def _report(self, agent: Reporter) -> None:
        """Write what differs; what fails is decided anew after a while."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.in_sync:
                continue
            try:
                await agent.keep_blocks()
                for write in agent.writes(self._intent()):
                    await self._write(write)
                backoff.reset()
            except (Unreachable, StorageError) as error:
                log.info("report postponed: %s", error)
                await backoff.wait()
                self._wake.set()

    async def _write(self, write: Write) -> None:
        """One write; what the service refuses is said and left to the next decision."""
        assert self.client is not None
        try:
            if isinstance(write, Create):
                self.merge(await self.client.create(write.object))
            elif isinstance(write, Update):
                self.merge(await self.client.update(write.object))
            elif isinstance(write, UpdateStatus):
                self.merge(await self.client.update_status(write.object))
            else:
                await self.client.delete(KINDS[write.plural].model, write.name, uid=write.uid)
                self.drop(write.plural, write.name)
        except (NotFound, AlreadyExists, Conflict) as error:
            log.info("report refused, decided anew: %s", error)
        except IntentError as error:
            log.warning("report refused: %s", error)


class Backoff:
    """Waits that grow, with jitter, so that a thousand agents do not come back at once."""

    def __init__(self) -> None:
        self._seconds = BACKOFF[0]

    def reset(self) -> None:
        self._seconds = BACKOFF[0]

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._seconds = min(self._seconds * 2, BACKOFF[1])


def _revision(held: Resource) -> int:
    return int(held.metadata.resource_version or 0)


def _plural(held: Resource) -> str:
    kind = by_kind(held.KIND)
    assert kind is not None
    return kind.plural
