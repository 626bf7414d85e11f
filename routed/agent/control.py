"""The agent's connection to the control plane: intent in, reports out, blocks claimed.

Intent comes by one watch per kind, each beginning with the full set (`routed.agent.known`); it is
handed on only once every watch has shown its whole set, and from then on whenever something that
decides has changed. The last good one is on disk and stays there through an outage
(`routed.agent.copy`).

Writes are decided by `reporting` from current state; what fails is decided anew the next time.
Workloads are reported at once, what counts them (blocks, the Node's conditions) once a second.

A control plane of a release too far from ours counts as one that is down (`routed.agent.skew`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from api.client import Client, Unreachable
from api.resources import IPBlock, Node, Workload
from api.resources.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Incompatible,
    IntentError,
    NotFound,
    RoutedError,
    StorageError,
    Unauthorized,
)
from api.resources.ippool import IPBlockSpec
from api.resources.meta import ObjectMeta
from api.resources.net import IPAddress
from api.resources.registry import KINDS
from routed.agent import skew
from routed.agent.copy import Copy
from routed.agent.credentials import Credentials
from routed.agent.heartbeat import keep_beating
from routed.agent.intent import LATER, WATCHED, Intent, by_kind
from routed.agent.known import Change, Known
from routed.agent.questions import Questions
from routed.agent.reporting import Create, Patch, Write
from routed.settings import AgentSettings

log = logging.getLogger("routed.control")

BACKOFF = (0.2, 5.0)  # seconds: first and longest wait between tries, with jitter
COUNT_SECONDS = 1.0  # between reports of what only counts
CALM_SECONDS = 0.05  # without anything new to report: what attaches now is more urgent
GATHER_SECONDS = 0.5  # at most
SKEW_SECONDS = 30.0  # between looks whether the control plane is of another release by now, at most


class Reporter(Protocol):
    """What the connection asks of the agent."""

    def intent_changed(self, intent: Intent) -> None: ...

    def due(self) -> set[str]:
        """The workloads that may have to be reported; they are not due any more."""

    def report_due(self, names: set[str]) -> None:
        """They may have to be reported: the service shows them otherwise, or a report failed."""

    def workload_writes(self, name: str) -> list[Write]: ...

    def count_writes(self) -> list[Write]: ...

    async def resolve(self) -> None:
        """Before `node_object`: it may take some seconds."""

    def node_object(self) -> Node: ...

    def versions(self) -> dict[str, str]: ...

    async def keep_blocks(self) -> None: ...

    async def way(self, to: IPAddress, source: IPAddress | None) -> dict[str, Any]:
        """Which way this host has to an address. ApplyError."""


class Control:
    """One node's view of the service. `serve` never ends; `claim` is for the address book."""

    def __init__(self, settings: AgentSettings, client: Client | None) -> None:
        self.node = settings.node
        self.client = client
        self.known = Known(settings.node)
        self.path: Path = settings.state_dir / "intent.json"
        self.copy = Copy(self.path, self.known)
        self.credentials = Credentials(settings, client) if client is not None else None
        self.questions = Questions(settings.node)
        self.connected = False
        self.skew = ""  # what is against this control plane's release
        self._refusal = ""
        self._wake = asyncio.Event()
        self._used = asyncio.Event()
        self._agent: Reporter | None = None
        self._published = False
        self._count_at = 0.0
        self._count_due = False  # a report of them is under way to its time

    def stored_intent(self) -> tuple[Intent, dict[str, Workload]] | None:
        """The last good intent of disk, and the reports beside it: what an agent works from until
        the service answers."""
        found = self.copy.load(self.node)
        if found is not None:
            self.known.stored = by_kind(*found)
        return found

    @property
    def in_sync(self) -> bool:
        """Every watch has shown its whole set on its present connection."""
        return self.known.in_sync

    @property
    def problem(self) -> str:
        """Why the service does not speak with us, or we with it, if it is because of who we are."""
        return (self.credentials.problem if self.credentials else "") or self.skew or self._refusal

    @property
    def server(self) -> str:
        """The URL of the control plane; "" where there is none."""
        return self.client.server if self.client is not None else ""

    def wake(self) -> None:
        """Something may have to be reported, or a block to be claimed or given back."""
        self.report()
        self.look_at_blocks()

    def report(self) -> None:
        """Something may have to be reported."""
        self._wake.set()

    def look_at_blocks(self) -> None:
        """A block may have to be claimed or given back, and nothing else is new."""
        self._used.set()

    async def serve(self, agent: Reporter) -> None:
        """Keep the watches and the reports going; outages only end the present try."""
        if self.client is None or self.credentials is None:
            return
        self._agent = agent
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.credentials.serve())
            tasks.create_task(self.copy.serve())
            tasks.create_task(self._exist(agent, self.client))
            tasks.create_task(self.questions.serve(self.client, agent.way))
            for plural in WATCHED:
                tasks.create_task(self._follow(plural))
            tasks.create_task(self._whenever(self._wake, "report", lambda: self._report(agent)))
            # claimed ahead of a burst, so this does not wait for the reports to be out
            tasks.create_task(self._whenever(self._used, "blocks", agent.keep_blocks))

    # -- in ----------------------------------------------------------------------------------------

    async def _follow(self, plural: str) -> None:
        assert self.client is not None
        selector = {
            "nodes": f"metadata.name={self.node}",
            "ipblocks": f"spec.node={self.node}",
            "workloads": f"spec.node={self.node}",
            "hostendpoints": f"spec.node={self.node}",
        }.get(plural, "")
        backoff = Backoff()
        while True:
            try:
                async for event in self.client.watch(plural, field_selector=selector):
                    if event.type == "QUESTION":
                        self.questions.take(event.text)
                        continue
                    self._changed(self.known.take(plural, event))
                    backoff.reset()
            except (Unreachable, IntentError, Incompatible) as error:
                if plural in LATER and isinstance(error, Forbidden | NotFound):
                    self._changed(self.known.keep(plural))
                    await asyncio.sleep(SKEW_SECONDS)
                    continue
                if plural in self.known.whole:
                    log.warning("watch ended kind=%s why=%s", plural, error)
                self.known.lost(plural)
                self._set_connected()
                self._refused(error)
                if isinstance(error, Incompatible) and plural == "nodes":
                    await self._confess()
            await backoff.wait(SKEW_SECONDS if self.skew else BACKOFF[1])

    def _changed(self, change: Change) -> None:
        """Hand on what decides, note what may have to be reported, have it written down."""
        self._set_connected()
        if not self.known.complete:
            return
        if not self._published:
            change = Change(set(self.known.objects["workloads"]), decides=True, anything=True)
            self._published = True
        if not change.anything:
            return
        self.copy.outdated(urgent=change.decides)
        if self._agent is not None:
            self._agent.report_due(change.names)
            if change.decides:
                self._agent.intent_changed(self.known.intent())
        self.wake()

    def _refused(self, error: RoutedError) -> None:
        if isinstance(error, Incompatible):
            if not self.skew:
                log.error("version skew, going on as if the control plane were down: %s", error)
            self.skew = str(error)
            return
        refusal = str(error) if isinstance(error, Unauthorized | Forbidden) else ""
        if refusal and refusal != self._refusal:
            log.error("control plane refuses this node why=%s", refusal)
        self._refusal = refusal or self._refusal

    def _set_connected(self) -> None:
        connected = self.in_sync
        if connected:
            self.skew = self._refusal = ""
        if connected != self.connected:
            self.connected = connected
            log.info("control plane %s", "in sync" if connected else "lost")
            self.wake()

    async def _confess(self) -> None:
        """The one thing that is written to a control plane too far from us: that it is."""
        assert self.client is not None
        agent = self._agent
        said = skew.condition(self.skew, "", {}).wire()
        change = {"conditions": [said], "versions": agent.versions() if agent else {}}
        try:
            await self.client.patch(Node, self.node, {"status": change}, status=True, judged=False)
        except RoutedError as error:
            log.info("version skew not reported: %s", error)

    # -- blocks ------------------------------------------------------------------------------------

    async def claim(
        self, *, pool: str = "", address: IPAddress | None = None, lease: str = ""
    ) -> Intent:
        """Claim a block; the intent that has it. IntentError or Unreachable."""
        if self.client is None or not self.known.complete:
            raise Unreachable("the control plane has not answered yet")
        if self.skew:
            raise Unreachable(self.skew)
        spec = IPBlockSpec(node=self.node, pool=pool, address=address, lease=lease)
        wanted = IPBlock(metadata=ObjectMeta(name="claim"), spec=spec)
        self._changed(self.known.merge(await self.client.create(wanted)))
        return self.known.intent()

    async def release(self, name: str) -> None:
        """Give a block back; IntentError if the service refuses, OSError if the disk does.

        The copy on disk forgets the block first: another node may have it from the moment of the
        deletion on, and an agent that starts from the copy must not assign from it. After an
        Unreachable or a StorageError nobody knows whether it is ours still: the copy goes on
        without it, and the caller asks again.
        """
        assert self.client is not None
        held = self.known.blocks.get(name)
        if held is None:
            return
        self.copy.leave_out(name)
        try:
            await self.copy.written()
            await self.client.delete(IPBlock, name, uid=held.metadata.uid)
        except NotFound:
            log.debug("block already released name=%s", name)
        except Conflict as error:
            if await self._is_ours(name, held.metadata.uid):
                self.copy.take_in(name)
                raise
            log.debug("block is another's by now name=%s why=%s", name, error)
        except (IntentError, OSError):
            self.copy.take_in(name)
            raise
        self._changed(self.known.drop("ipblocks", name))
        self.copy.take_in(name)

    async def _is_ours(self, name: str, uid: str) -> bool:
        """Whether the service still has this very block for us."""
        assert self.client is not None
        try:
            held = await self.client.get(IPBlock, name)
        except (NotFound, Forbidden):
            return False
        return held.metadata.uid == uid and held.spec.node == self.node

    # -- out ---------------------------------------------------------------------------------------

    async def _exist(self, agent: Reporter, client: Client) -> None:
        """Have a Node, and say that it lives."""
        await self._register(agent)
        await keep_beating(client, self.node)

    async def _register(self, agent: Reporter) -> None:
        """Create our Node object where there is none; the service gives it its ASN."""
        assert self.client is not None
        backoff = Backoff()
        while True:
            try:
                if why := self.client.judge(await self.client.version()):
                    raise Incompatible(why)
                await agent.resolve()
                made = await self.client.create(agent.node_object(), strict=False)
                self._changed(self.known.merge(made))
                return
            except AlreadyExists:
                return
            except (RoutedError, OSError) as error:
                log.debug("not registered: %s", error)
            await backoff.wait()

    async def _whenever(
        self, due: asyncio.Event, what: str, job: Callable[[], Awaitable[None]]
    ) -> None:
        """`job` whenever it is `due` and the service is there; what fails is done anew after a
        while."""
        backoff = Backoff()
        while True:
            await due.wait()
            due.clear()
            if not self.in_sync:
                continue
            try:
                await job()
                backoff.reset()
            except (Unreachable, StorageError, IntentError) as error:  # we may be nobody any more
                log.info("%s postponed: %s", what, error)
                await backoff.wait()
                due.set()

    async def _report(self, agent: Reporter) -> None:
        """Write what differs, once nothing new comes."""
        await self._calm()
        if self.in_sync:  # still
            await self._report_workloads(agent)
            await self._report_counts(agent)

    async def _calm(self) -> None:
        """Wait until nothing new comes for a moment, though not for ever."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_SECONDS
        await asyncio.sleep(CALM_SECONDS)
        while self._wake.is_set() and loop.time() < until:
            self._wake.clear()
            await asyncio.sleep(CALM_SECONDS)
        self._wake.clear()

    async def _report_workloads(self, agent: Reporter) -> None:
        names = agent.due()
        try:
            for name in sorted(names):
                for write in agent.workload_writes(name):
                    await self._write(write)
                names.discard(name)
        finally:
            if names:
                agent.report_due(names)

    async def _report_counts(self, agent: Reporter) -> None:
        """Not more often than once in COUNT_SECONDS: every attach changes them."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._count_at:
            self._count_at = loop.time() + COUNT_SECONDS
            for write in agent.count_writes():
                await self._write(write)
        elif not self._count_due:
            self._count_due = True
            loop.call_at(self._count_at, self._count)

    def _count(self) -> None:
        self._count_due = False
        self.report()  # blocks were looked at: the two must not wake each other for ever

    async def _write(self, write: Write) -> None:
        """One write; what the service refuses is said and left to the next decision."""
        assert self.client is not None
        try:
            if isinstance(write, Create):
                made = await self.client.create(write.object, strict=False)
                self._changed(self.known.merge(made))
            elif isinstance(write, Patch):
                model = KINDS[write.plural].model
                made = await self.client.patch(model, write.name, write.change, status=write.status)
                self._changed(self.known.merge(made))
            else:
                await self.client.delete(KINDS[write.plural].model, write.name, uid=write.uid)
                self._changed(self.known.drop(write.plural, write.name))
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

    async def wait(self, longest: float = BACKOFF[1]) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._seconds = min(self._seconds * 2, longest)
