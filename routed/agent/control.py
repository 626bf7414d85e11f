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
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from api.client import Client, Unreachable
from api.resources import IPBlock, Node
from api.resources.errors import AlreadyExists, Conflict, IntentError, NotFound
from api.resources.meta import ObjectMeta, Resource
from api.resources.net import IPAddress
from routed.agent import intent as intents
from routed.agent.intent import WATCHED, Intent
from routed.agent.reporting import Create, Delete, Update, UpdateStatus, Write
from routed.settings import AgentSettings

log = logging.getLogger("routed.control")

BACKOFF = (0.2, 5.0)  # seconds: first and longest wait between tries, with jitter
REPORT_SECONDS = 1.0  # until a report that failed is tried again


class Reporter(Protocol):
    """What the connection asks of the agent."""

    def intent_changed(self, intent: Intent) -> None: ...

    def writes(self, intent: Intent) -> list[Write]: ...

    def node_object(self) -> Node: ...


class Control:
    """One node's view of the service. `serve` never ends; `claim` is for the address book."""

    def __init__(self, settings: AgentSettings, client: Client | None) -> None:
        self.node = settings.node
        self.client = client
        self.path: Path = settings.state_dir / "intent.json"
        self._held: dict[str, dict[str, Resource]] = {plural: {} for plural in WATCHED}
        self._whole: set[str] = set()
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

    def merge(self, held: Resource) -> None:
        """Take in an object that the service has just answered with."""
        plural = _plural(held)
        known = self._held[plural].get(held.metadata.name)
        if known is None or _revision(held) > _revision(known):
            self._held[plural][held.metadata.name] = held
            self._changed()

    def drop(self, plural: str, name: str) -> None:
        """Forget an object that we have just deleted."""
        if self._held[plural].pop(name, None) is not None:
            self._changed()

    def _changed(self) -> None:
        if not self.in_sync:
            return
        intent = self._intent()
        if intent != self._saved:
            intents.save(self.path, intent)
            self._saved = intent
            self._publish()

    def _set_connected(self) -> None:
        connected = self.in_sync
        if connected != self.connected:
            self.connected = connected
            log.info("control plane %s", "in sync" if connected else "lost")
            self._wake.set()
