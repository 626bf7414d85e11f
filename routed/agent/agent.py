"""The agent: what is known, what is wanted, and the order in which the two are brought together.

What is true lives in four places and nowhere else: `intent` (of the service, last good copy on
disk), `records` (of this node, in /run), the address book (derived from both, plus what cools
down) and the kernel. The order of one round (DESIGN section 6): withdraw what goes; policy; links;
routes; announce what was read back; sweep orphans. Links, routes and sweep are the kernel
driver's; the two ends are here.

Races this order closes:

- a namespace that vanishes while it is being attached: the attach fails whole, nothing announced;
- an agent killed between record and kernel: the next one finds the record and goes on;
- an agent killed while detaching: the record says so, and it is never announced again;
- a switch that hears of a route before the host can carry it: announced only when read back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from api.resources import Node, ObjectMeta
from api.resources.errors import ApplyError, NotFound, RoutedError, SpeakerError
from api.resources.net import IPAddress
from api.resources.node import NodeSpec
from api.resources.versions import VERSION
from api.resources.workload import IPVLAN, Mode, Origin
from routed.agent import attaching, modes, sharing, sizes, ways
from routed.agent.addresses import AddressBook
from routed.agent.agreement import Agreement
from routed.agent.attachment import Attachment, Step, node_born_id
from routed.agent.blocks import BlockKeeper
from routed.agent.conflicts import Conflicts
from routed.agent.control import Control
from routed.agent.cooling import CoolingLog, boot_of
from routed.agent.counting import Counting
from routed.agent.declared import Declared
from routed.agent.filtering import Filtering
from routed.agent.guard import Guard
from routed.agent.imports import Imports
from routed.agent.intent import Intent, only_more_blocks, only_policies
from routed.agent.metrics import Metrics
from routed.agent.own import Own
from routed.agent.plan import Facts, announce, peers_of, plan
from routed.agent.policylog import PolicyLog
from routed.agent.records import Records
from routed.agent.reporting import Create, Local, Write, block_writes, node_writes, workload_writes
from routed.agent.request import AttachRequest
from routed.agent.slaves import slaves
from routed.agent.speech import Speech
from routed.agent.table import Filter
from routed.agent.translation import nat_of
from routed.agent.views import conditions
from routed.agent.writer import Writer
from routed.kernel.seam import Kernel
from routed.settings import AgentSettings
from routed.state import Report

log = logging.getLogger("routed.agent")

ANNOUNCE_PATIENCE = 10.0  # seconds that ?wait=announced waits
BLOCK_SECONDS = 0.25  # until the kernel is brought in line with other blocks, if nothing attaches
BLOCK_MOST = 5.0  # whatever attaches
RETRY_SECONDS = 1.0  # until something that failed is tried again


class Agent:
    """One host's agent; `start` loads what survived, `serve` runs until cancelled."""

    def __init__(
        self,
        settings: AgentSettings,
        kernel: Kernel,
        filter_table: Filter,
        control: Control,
        speech: Speech,
    ) -> None:
        self.settings = settings
        self.filtering = Filtering(filter_table)
        self.metrics = Metrics()
        self.kernel = kernel
        self.control = control
        self.speech = speech
        self.records = Records(settings.run_dir / "attachments")
        cooling = CoolingLog(settings.state_dir / "cooling.log", boot_of(settings.run_dir))
        self.book = AddressBook(cooling, settings.low_water)
        self.writer = Writer(self._round)
        self.intent: Intent | None = None
        self.report = Report()  # of the last sync
        self.ready: dict[str, tuple[IPAddress, ...]] = {}  # by workload, as last read back
        self.imports = Imports()
        self.conflicts = Conflicts()
        self.agreement = Agreement(self)
        self.declared = Declared(self)
        self.guard = Guard(self)
        self.policy_log = PolicyLog(self, settings.state_dir / "policy.log")
        self.counting = Counting(self, settings.run_dir / "policy-counters.json")
        self.blocks = BlockKeeper(self)
        self.switched = modes.Switched()
        self.own = Own(settings)
        self.rounds = 0
        self._due: set[str] = set()  # workloads that may have to be reported

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what survived: records of /run, the last good intent, what cools down."""
        self.records.load()
        for path in self.records.unreadable:
            log.error("record unreadable path=%s", path)
        stored = self.control.stored_intent()
        self.intent, reports = stored if stored is not None else (None, {})
        self.book.restore(self.records.all(), self.intent, reports)
        self.guard.members.load()
        self.counting.load()

    async def serve(self) -> None:
        """Run every task of the agent; one that ends ends all."""
        self.kernel.forget(self.book.released())  # an earlier agent may not have come to it
        self.writer.wake()
        self.declared.wake()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.writer.serve(), name="writer")
            tasks.create_task(self._watch_kernel(), name="kernel")
            tasks.create_task(self.filtering.serve(self.writer.wake), name="filter")
            tasks.create_task(self._tick(), name="tick")
            tasks.create_task(self.declared.serve(), name="declared")
            speaking = self.speech.serve(self.writer.wake, self.control.report)
            tasks.create_task(speaking, name="speech")
            tasks.create_task(self.control.serve(self), name="control")
            tasks.create_task(self.agreement.serve(), name="agreement")
            tasks.create_task(self.guard.serve(), name="guard")
            tasks.create_task(self.policy_log.serve(), name="policy log")

    async def _watch_kernel(self) -> None:
        async for _ in self.kernel.watch():
            self.writer.wake()

    async def _tick(self) -> None:
        """Events only wake the loop; the periodic full read catches what they missed."""
        while True:
            wait = self.settings.resync_seconds
            if self.report.failed or self.records.unreadable:
                wait = min(wait, RETRY_SECONDS)
            await asyncio.sleep(wait)
            self.filtering.look()
            self._look_at_addresses()
            try:
                self.book.tidy()
            except OSError as error:
                log.error("cool-downs not written: %s", error)
            known = self.control.known
            self.report_due({*self.records.held, *known.declared, *known.reports})
            self.writer.wake()

    def intent_changed(self, intent: Intent) -> None:
        """A whole newer intent: from the watches, or with a block just claimed. Of the latter only
        the blackhole is missing, which must not hold up the attaches that the block is for."""
        before, self.intent = self.intent, intent
        self.book.own(intent)
        if before is not None and only_more_blocks(before, intent):
            loop = asyncio.get_running_loop()
            loop.call_later(BLOCK_SECONDS, self._blocks_changed, loop.time() + BLOCK_MOST)
            return
        if before is not None and only_policies(before, intent):
            self.guard.changed()
            return
        self.declared.wake()
        self.writer.wake()

    def _blocks_changed(self, latest: float) -> None:
        """A round, when nothing has attached for a moment, or at the `latest`."""
        loop = asyncio.get_running_loop()
        if loop.time() < min(self.writer.last_job + BLOCK_SECONDS, latest):
            loop.call_later(BLOCK_SECONDS, self._blocks_changed, latest)
        else:
            self.writer.wake()

    # -- one round -----------------------------------------------------------------------------

    def facts(self) -> Facts:
        return Facts(
            intent=self.intent,
            records=self.records.held,
            learned=self.imports.learned,
            received_whole=self.speech.received_whole,
            releasing=frozenset(self.book.releasing),
            manage_sysctls=self.settings.manage_sysctls,
        )

    async def _round(self) -> None:
        """Bring kernel and speaker to what is wanted now, whatever was there before."""
        stuck = await self._detach_undeclared()
        self.declared.relabel()
        touched = self.speech.take_touched()
        self.imports.update(self.intent, self.speech.paths, touched)
        self.conflicts.update(self.intent, self.speech.paths, touched)
        facts = self.facts()
        if self.rounds:  # a new agent says nothing before it has read back
            self._say(facts, replace(self.report, ready=self.ready))  # what goes is withdrawn first
        before, ready = self.report, self.ready
        self.filtering.nat = nat_of(facts, self.settings.nat_addresses)
        self.filtering.regard(slaves(facts))
        await self.guard.work_out()
        refused = await self.filtering.keep()
        self.guard.applied()
        with self.metrics.measured("sync"):
            self.report = await self.kernel.sync(plan(facts))
        self.ready = dict(sharing.with_sharers(self.report.ready, self.records.sharers))
        self.metrics.changes.inc(self.report.changed)
        for workload in self.report.lost:
            stuck += await self._bury(workload)
        stuck += [refused] if refused is not None else []
        failed = {**self.report.failed, **{error.key: error for error in stuck}}
        self.report = replace(self.report, failed=failed)
        if self.filtering.ready:
            self.rounds += 1
        else:  # nothing more is announced without it, and what was stays
            self.ready = {name: held for name, held in self.ready.items() if name in ready}
        self._log_transitions(before, self.report)
        self.switched.note(self.report.restored, time.monotonic())
        if self.rounds:
            self._say(self.facts(), replace(self.report, ready=self.ready))
        self.report_due({name for name, _ in ready.items() ^ self.ready.items()})
        self.agreement.wake()

    def _say(self, facts: Facts, report: Report) -> None:
        """State to the speaker what may be announced; without intent nothing is stated, so that
        what an earlier agent had announced stays until we know better."""
        if facts.intent is None:
            return
        try:
            self.speech.set(peers_of(facts.intent), announce(facts, report))
        except SpeakerError as error:
            log.debug("speaker not told: %s", error)  # stated whole when it is back

    async def _detach_undeclared(self) -> list[ApplyError]:
        """Finish detaches that an earlier agent began; take away what is no longer declared. What
        the kernel refuses is tried again in the next round, and keeps nothing else back."""
        stuck = []
        for record in self.records.all().values():
            gone = (
                record.origin is Origin.API
                and self.intent is not None
                and record.id not in self.intent.declared
                and ("workloads", record.id) not in self.control.known.unread
            )
            last = record.leaving and record.id not in self.records.sharers
            if gone or last or record.step is Step.DETACHING:
                try:
                    await attaching.take_away(self, record)
                except ApplyError as error:
                    stuck.append(error)
        return stuck

    async def _bury(self, workload: str) -> list[ApplyError]:
        """The namespace is gone, and with it the link: forget the attachment."""
        record = self.records.get(workload)
        if record is None:
            return []
        log.info("namespace gone workload=%s netns=%s", workload, record.netns)
        try:
            await attaching.bury(self, record)
        except ApplyError as error:
            return [error]
        self.declared.wake()
        return []

    # -- attach and detach ---------------------------------------------------------------------

    async def attach(self, wanted: AttachRequest) -> tuple[Attachment, bool]:
        """See `routed.agent.attaching`."""
        return await attaching.attach(self, wanted)

    async def attach_candidate(self, candidate: Attachment) -> tuple[Attachment, bool]:
        return await attaching.attach_candidate(self, candidate)

    async def detach(self, name: str) -> Attachment:
        return await attaching.detach(self, name)

    async def announced(self, attachment: Attachment) -> bool:
        """Whether the speaker has handed everything said so far to ExaBGP in time."""
        try:
            async with asyncio.timeout(ANNOUNCE_PATIENCE):
                await self.speech.settled()
        except (TimeoutError, SpeakerError):
            return False
        return True

    def mtu(self, asked: int, addresses: Collection[IPAddress]) -> int:
        """Of a workload's link, in bytes: as `asked` (0: not), as set, or derived."""
        wanted = asked or self.settings.mtu
        return wanted or sizes.derived(self.kernel.uplink_mtu(), addresses, self.known_intent())

    def parent(self, mode: Mode) -> str:
        """The link whose slave a workload of this mode gets; "" if it gets none. Invalid."""
        return self.kernel.parent(self.settings.ipvlan_parent) if mode in IPVLAN else ""

    def known_intent(self) -> Intent:
        """ServiceNeeded where this node has never been told anything."""
        if self.intent is None:
            raise ServiceNeeded(
                "cannot assign an address: this node has never reached the control plane; "
                "check server and kubeconfig in its settings"
            )
        return self.intent

    # -- for the control plane ---------------------------------------------------------------------

    async def keep_blocks(self) -> None:
        """Hold enough free addresses; give spare blocks back. Called by the connection."""
        await self.blocks.keep()

    async def resolve(self) -> None:
        """What our Node object needs to be known of names."""
        await self.own.resolve(self.control.server)

    def node_object(self) -> Node:
        """Our Node as we register it; the service adds the ASN."""
        self._look_at_addresses()
        spec = NodeSpec(addresses=self.own.addresses())
        return Node(metadata=ObjectMeta(name=self.settings.node), spec=spec)

    def _look_at_addresses(self) -> None:
        pools = self.intent.pools.values() if self.intent is not None else ()
        self.own.look(self.control.server, [pool.spec.cidr for pool in pools])

    def versions(self) -> dict[str, str]:
        """Of the programs of this host, as far as they say theirs."""
        speaker = {"speaker": self.speech.version} if self.speech.version else {}
        return {"routed": VERSION, **speaker}

    def due(self) -> set[str]:
        found, self._due = self._due, set()
        return found

    def report_due(self, names: set[str]) -> None:
        self._due |= names
        self.control.wake()

    def workload_writes(self, name: str) -> list[Write]:
        """What the service should be told of one workload now."""
        known = self.control.known
        record = self.records.get(name)
        local = Local(record, name in self.ready, self.declared.failures.get(name))
        if record is not None and record.parent:
            uplinks, others = self.kernel.uplinks(), self.guard.has_neighbours(record)
            policies = self.guard.unenforced(record)
            local = replace(
                local, uplinks=tuple(uplinks), policies=tuple(policies), neighbours=others
            )
        return workload_writes(name, local, known.declared.get(name) or known.reports.get(name))

    def count_writes(self) -> list[Write]:
        """What the service should be told of our blocks and our Node now."""
        known = self.control.known
        found = block_writes(known.blocks, self.book.counts())
        if known.own_node is not None:
            found += node_writes(
                known.own_node, conditions(self), self.versions(), self.own.status()
            )
        else:  # somebody deleted it, and let us join again
            found.append(Create(self.node_object()))
        return found

    # -- views -----------------------------------------------------------------------------------

    def attachments(self) -> Iterable[Attachment]:
        return sorted(self.records.held.values(), key=lambda record: record.id)

    def find(self, name: str) -> Attachment:
        """By id, or by the short name of a node-born one. NotFound names what was asked."""
        record = self.records.get(name) or self.records.get(node_born_id(name, self.settings.node))
        if record is None:
            raise NotFound(
                f"cannot find attachment {name}: none of that name on node {self.settings.node}",
                kind="Workload",
                name=name,
            )
        return record

    async def way(self, to: IPAddress, source: IPAddress | None) -> dict[str, Any]:
        """See `routed.agent.ways`."""
        return await ways.way(self, to, source)

    def view(self, record: Attachment) -> dict[str, Any]:
        """What the local API says of one attachment."""
        return record.wire_view(ready=record.id in self.ready)

    def _log_transitions(self, before: Report, after: Report) -> None:
        for key, error in after.failed.items():
            if key not in before.failed:
                log.error("failed key=%s why=%s", key, error)
        for key in before.failed:
            if key not in after.failed:
                log.info("recovered key=%s", key)
        for parent, mode in after.restored.items():
            log.warning("mode restored parent=%s somebody had set=%s", parent, mode)


class ServiceNeeded(RoutedError):
    """Only the control plane could have helped, and it has not answered."""
