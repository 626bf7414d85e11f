"""Policies on this host, in the writer's turn: worked out, applied, and in place before a link is.

What decides comes from three sides: intent (policies, tiers), what is attached here, and what was
told of members. A change of what is attached is applied by the step that makes it: a workload's
element is in the set of its signature before its link is made, and taken out after its link is
gone; a link that is in none is dropped by. A change of the others is a job of its own, or part of
the next round; however many come meanwhile are one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from api.resources import Condition, HostEndpoint
from api.resources.errors import ApplyError, Conflict
from api.resources.net import IPAddress
from api.resources.workload import IPVLAN, Mode
from policies.plan import Order
from routed.agent import hosts
from routed.agent.attachment import Attachment
from routed.agent.enforcing import Enforcement, Wanted, condition
from routed.agent.flushing import concerned
from routed.agent.intent import Intent
from routed.agent.modes import ENFORCED
from routed.agent.told import Members
from routed.kernel import interfaces

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")


class Guard:
    """`members` are what was told, `enforcement` what follows from all that is known."""

    def __init__(self, agent: Agent) -> None:
        settings = agent.settings
        self.agent = agent
        servers = [agent.control.server, *settings.servers]
        self.enforcement = Enforcement(
            settings.policy_default,
            allow_unenforced=settings.allow_unenforced_policies,
            failsafe=settings.failsafe_ports(servers),
        )
        path = settings.state_dir / "members.json"
        self.members = Members(path, settings.node, agent.control.client)
        self._pending = False
        self._whole = False  # more than members has changed
        self._order: Order | None = None  # as it was worked out last
        self._hosts: Mapping[str, HostEndpoint] = {}  # likewise
        self._problem = ("", "")  # as it was said last
        self._names: Mapping[IPAddress, str] = {}  # as of the last look
        self._missing: Mapping[str, str] = {}  # likewise: interfaces, and why they are none
        self._in_effect: Wanted | None = None  # as of the last time that flows were ended
        self._known: frozenset[str] = frozenset()  # who was here then

    async def serve(self) -> None:
        """Hear what members there are."""
        await self.members.serve(self._told)

    def changed(self) -> None:
        """Policies have: have them applied soon, without a round."""
        self._whole = True
        self._told()

    @property
    def settled(self) -> bool:
        """Whether nothing that was told is still to be worked out."""
        return not (self._whole or self._pending)

    def _told(self) -> None:
        if not self._pending:
            self._pending = True
            self.agent.writer.hand_in(self._apply)

    async def work_out(self) -> None:
        """From what is known now: what the filter is to have. Nobody knows it without intent."""
        agent, intent = self.agent, self.agent.intent  # which may be another one meanwhile
        self._whole = False
        self.members.take_changes()
        if intent is None:
            return
        enforcement, held = self.enforcement, agent.records.held
        if enforcement.anything(intent):  # many may be looked at
            told = dict(self.members.known)  # which goes on changing
            names = await self._interfaces(intent)
            await agent.filtering.table.aside(enforcement.look, intent, held, told, names)
        else:
            enforcement.look(intent, held, {})
        self._hosts = intent.host_endpoints
        self.members.need(self.enforcement.needs)
        agent.filtering.wanted = self.enforcement.wanted
        if (order := enforcement.order(intent)) is not self._order:
            self._order = order
            agent.report_due({*self._unenforced(), *self._unseen()})

    async def _interfaces(self, intent: Intent) -> Mapping[IPAddress, str]:
        """Those of the host by address, where host endpoints are told by that."""
        self._missing = interfaces.missing(hosts.named(intent.host_endpoints.values()))
        if hosts.needs_addresses(intent.host_endpoints.values()):
            try:
                self._names = hosts.by_address(await asyncio.to_thread(interfaces.read))
            except OSError as error:
                log.warning("addresses of this host unreadable: %s", error)
        return self._names

    async def _apply(self) -> None:
        self._pending = False
        problem = self.members.problem, self.members.refused
        if problem != self._problem:
            self._problem = problem
            self.agent.control.wake()
        exact = self.agent.settings.flush_conntrack
        if not self._whole and not exact and await self._moved():
            return
        await self.work_out()
        error = await self.agent.filtering.keep()
        self.applied()
        self.agent.control.report()  # what is waited for, or refused, may be another
        if error is not None:
            log.warning("policies not applied: %s", error)
            self.agent.writer.wake()  # says so, and tries again

    def applied(self) -> None:
        """What is wanted is in effect, unless it was refused: flows that it concerns are judged
        anew, where the settings ask for that. A new agent ends none. What began while the table was
        away, and nobody filtered, is judged anew in any case."""
        agent, wanted = self.agent, self.agent.filtering.wanted
        table = agent.filtering.table
        if table.opened and agent.filtering.ready:
            table.opened = False
            some = (one for one in agent.records.held.values() if one.mode in ENFORCED)
            agent.kernel.forget_unseen({one for record in some for one in record.addresses})
        refused = agent.filtering.refused is not None or not agent.filtering.ready
        if not agent.settings.flush_conntrack or wanted is None or refused:
            return
        before, known, held = self._in_effect, self._known, agent.records.held
        self._in_effect, self._known = wanted, frozenset(held)
        if before is not None and before is not wanted:
            agent.kernel.forget(concerned(before, wanted, held, known))

    async def _moved(self) -> bool:
        """Whether it was addresses of members only, and is applied."""
        changes, held = self.members.take_changes(), self.agent.records.held.values()
        moves = partial(self.enforcement.moves, held, changes)
        try:
            return await self.agent.filtering.move(moves)
        except ApplyError as error:
            log.info("members not changed alone: %s", error)
            return False

    async def admit(self, record: Attachment) -> None:
        """Before its link is there: its policies are in place. ApplyError."""
        await self._step(record, leaving=False)

    async def leave(self, record: Attachment) -> None:
        """After its link, and its record, is gone."""
        try:
            await self._step(record, leaving=True)
        except ApplyError as error:
            log.error("policies not taken away: %s", error)
            self.agent.writer.wake()  # the next round tries again

    async def _step(self, record: Attachment, *, leaving: bool) -> None:
        """What the coming or leaving of one changes, and no more, where that can be."""
        intent, filtering = self.agent.intent, self.agent.filtering
        policed = self.enforcement.anything(intent) or self.enforcement.wanted
        beside = record.mode in IPVLAN
        if beside:
            self._say(record)
        if intent is None or not (policed or beside) or not record.addresses:
            return
        if await self._alone(intent, record, leaving=leaving):
            return
        await self.work_out()
        error = await filtering.keep()
        # what only keeps ports from being translated is said by the next round
        if error is None or (filtering.refused is None and filtering.ready):
            return
        if not filtering.withheld or not filtering.ready:
            raise error
        names = filtering.withheld.intersection(self.enforcement.selecting(intent, record))
        if names and not leaving:
            said = f"{', '.join(sorted(names))}, which select {record.name} ({error.key})"
            raise ApplyError(f"policies {said}", "apply", error.errno) from error

    def _say(self, record: Attachment) -> None:
        """That it comes or goes, who else is on its parent may have to report."""
        self.agent.control.report()  # the Node
        if self._neighbours(record) == 1:  # who is not alone now, or is again
            on_it = self.agent.records.on_parent(record.parent)
            self.agent.report_due(set(on_it) - {record.id})

    async def _alone(self, intent: Intent, record: Attachment, *, leaving: bool) -> bool:
        """Have it come, or go, by elements of sets. False: it takes more, or the rules that are
        there are of other policies than those that are known now. ApplyError."""
        known = (
            self.enforcement.order(intent) is self._order and intent.host_endpoints == self._hosts
        )
        if self._whole or not known:
            return False
        neighbours, told = self.has_neighbours(record), self.members.known
        one = self.enforcement.arrival(intent, record, told, leaving=leaving, neighbours=neighbours)
        filtering = self.agent.filtering
        return one is not None and await (filtering.part if leaving else filtering.join)(one)

    def _unenforced(self) -> dict[str, list[str]]:
        """The policies that select a workload which they are not enforced for, by workload."""
        found = {}
        for name, record in self.agent.records.held.items():
            if names := self.enforcement.unenforced(self.agent.intent, record):
                found[name] = names
        return found

    def _unseen(self) -> dict[str, list[str]]:
        """The policies that select a workload and do not hold towards its neighbours, by
        workload."""
        found = {}
        for name, record in self.agent.records.held.items():
            if record.mode is not Mode.IPVLAN_L3S or not self.has_neighbours(record):
                continue
            if names := self.enforcement.selecting(self.agent.intent, record):
                found[name] = names
        return found

    def unenforced(self, record: Attachment) -> list[str]:
        """The policies that select it and are not enforced, or not towards its neighbours."""
        if record.mode is Mode.IPVLAN_L3S and self.has_neighbours(record):
            return self.enforcement.selecting(self.agent.intent, record)
        return self.enforcement.unenforced(self.agent.intent, record)

    def has_neighbours(self, record: Attachment) -> bool:
        """Whether others are on its parent, whom it reaches beside its host."""
        return self._neighbours(record) > 0

    def _neighbours(self, record: Attachment) -> int:
        on_it = self.agent.records.on_parent(record.parent)
        return len(on_it) - (record.id in on_it)

    def _news(self) -> list[str]:
        """The policies that have changed since the rules that are in effect."""
        now, before = self.enforcement.wanted.plan.policies, self.agent.filtering.policies
        return sorted(name for name, one in now.items() if before.get(name) != one)

    def against(self, record: Attachment) -> Conflict | None:
        """Why policies keep it from being attached."""
        return self.enforcement.against(self.agent.intent, record)

    def condition(self) -> Condition:
        """Of the Node."""
        agent = self.agent
        return condition(
            agent.filtering.refused,
            agent.filtering.blamed or self._news(),
            self.enforcement.waiting(),
            self.members.problem,
            self.members.refused,
            self._unenforced(),
            self._unseen(),
            self.enforcement.unplaced,
            self.enforcement.absent(agent.intent, self._missing),
            agent.control.known.unread,
        )
