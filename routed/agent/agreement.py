"""Whether the truths about this node's addresses agree: watched all the time, reported in one word.

Compared are what is attached, the blocks that are ours, what was read back from the kernel, what
the speaker was told and what it has, what the service shows of our workloads, and what the switches
tell us that others announce (`routed.agent.conflicts`). What differs only while something is being
done says nothing, so each difference has to stand for a while (`Standing`): conflicts the shortest,
as an alarm is due within five seconds; reports the longest, as a burst of attaches is reported at
leisure.

`differences` is pure. `Agreement` looks when something has happened, twice a second at most, when a
difference will have stood for long enough, and every `resyncSeconds` regardless.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from api.ipam.check import Finding
from api.resources import Condition, Workload
from api.resources.net import IPAddress, IPNetwork
from api.resources.node import ADDRESSES_CONSISTENT
from api.resources.workload import Origin
from routed.agent import speakers
from routed.agent.attachment import Attachment, Step
from routed.agent.intent import Intent
from routed.agent.plan import announce, peers_of

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")

LOOK_SECONDS = 0.5  # between two looks, at least; with thousands of workloads each takes a while,
LOOK_SHARE = 50  # and then they are further apart by so many times that,
LOOK_MOST = 2.0  # up to this, as an alarm is due
AGAIN_SECONDS = 2.0  # until the speaker is asked again while it has something else
SAID_MOST = 10  # findings in a condition, lines in the log at a time


class Kind(Enum):
    """What differs; `seconds` is for how long it has to. An address that moves has two announcers
    for a moment."""

    CONFLICT = "conflict"
    DIFFERENCE = "difference"
    REPORT = "report"

    @property
    def seconds(self) -> float:
        return {"conflict": 1.5, "difference": 5.0, "report": 30.0}[self.value]


Found = dict[Finding, Kind]


@dataclass(slots=True)
class Standing:
    """`findings` are those that stand, of all that it was shown, in the words of the last time.
    Times are monotonic seconds."""

    findings: Found = field(default_factory=dict)
    _since: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def update(self, found: Found, now: float) -> tuple[list[Finding], list[Finding]]:
        """Those that stand from now on, and those that do no more."""
        self._since = {one.identity: self._since.get(one.identity, now) for one in found}
        before = {one.identity: one for one in self.findings}
        self.findings = {
            one: kind
            for one, kind in found.items()
            if now >= self._since[one.identity] + kind.seconds
        }
        after = {one.identity for one in self.findings}
        new = [one for one in self.findings if one.identity not in before]
        return new, [one for identity, one in before.items() if identity not in after]

    def due(self, found: Found) -> float | None:
        """When the next of `found` will stand; None: none is to."""
        waits = [
            self._since[one.identity] + kind.seconds
            for one, kind in found.items()
            if one not in self.findings
        ]
        return min(waits, default=None)


@dataclass(frozen=True, slots=True)
class Truths:
    """Everything that is compared. `ready` are the addresses that were read back, by workload;
    `expected` is to be announced, `stated` the speaker was told; `lacking` it does not have of
    that, `extra` it has beyond. `reports` is what the service shows of our workloads, None while
    it is out of reach. `conflicts` are what others announce."""

    intent: Intent
    records: Mapping[str, Attachment]
    ready: Mapping[str, tuple[IPAddress, ...]]
    expected: frozenset[IPNetwork]
    stated: frozenset[IPNetwork]
    lacking: frozenset[IPNetwork] = frozenset()
    extra: frozenset[IPNetwork] = frozenset()
    reports: Mapping[str, Workload] | None = None
    conflicts: Mapping[IPNetwork, str] = field(default_factory=dict)


def pause(took: float) -> float:
    """Seconds from a look that took so long to the next."""
    return max(LOOK_SECONDS, min(LOOK_MOST, took * LOOK_SHARE))


def differences(here: Truths) -> Found:
    """What differs."""
    node = here.intent.node_name
    found = {
        Finding("nodes", node, said, about=str(prefix)): Kind.CONFLICT
        for prefix, said in here.conflicts.items()
    }
    found |= dict.fromkeys(_attached(here), Kind.DIFFERENCE)
    found |= dict.fromkeys(_announced(here, node), Kind.DIFFERENCE)
    found |= dict.fromkeys(_reported(here), Kind.REPORT)
    return found


def _attached(here: Truths) -> Iterator[Finding]:
    node = here.intent.node_name
    for name, record in here.records.items():
        if record.step is Step.DETACHING:
            continue
        for address in record.addresses:
            if here.intent.block_index.find(address) is None:
                yield Finding("workloads", name, f"{address} is in no block of {node}")
            if address not in here.ready.get(name, ()):
                yield Finding("workloads", name, f"{address} has no route on {node}")


def _announced(here: Truths, node: str) -> Iterator[Finding]:
    for prefix in here.expected - here.stated:
        yield Finding("nodes", node, f"does not announce {prefix}")
    for prefix in here.lacking:
        yield Finding("nodes", node, f"its speaker does not announce {prefix}, which it was told")
    for prefix in here.extra:
        yield Finding("nodes", node, f"its speaker announces {prefix}, which nothing here has")


def _reported(here: Truths) -> Iterator[Finding]:
    """Reports that the service refuses, or has lost."""
    node, reports = here.intent.node_name, here.reports
    if reports is None:
        return
    for name, record in here.records.items():
        if record.step is Step.DETACHING:
            continue
        held = reports.get(name)
        if held is None:
            yield Finding("workloads", name, f"is attached on {node}, and not reported")
        elif set(held.status.addresses) != set(record.addresses):
            has = ", ".join(map(str, record.addresses))
            yield Finding("workloads", name, f"has {has} on {node}, reported is another")
    for name, held in reports.items():
        if name not in here.records and held.spec.origin is Origin.NODE:
            yield Finding("workloads", name, f"is reported, and not attached on {node}")


class Agreement:
    """One agent's; nothing stands before it has looked."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.look_seconds = LOOK_SECONDS
        self._standing = Standing()
        self._wanted = asyncio.Event()
        self._lacking: frozenset[IPNetwork] = frozenset()
        self._extra: frozenset[IPNetwork] = frozenset()

    @property
    def findings(self) -> list[str]:
        """All that stand, conflicts first."""
        standing = self._standing.findings.items()
        return [str(one) for one, kind in sorted(standing, key=lambda p: (p[1].value, str(p[0])))]

    def counts(self) -> Counter[str]:
        """How many stand, by kind."""
        found = Counter({kind.value: 0 for kind in Kind})
        found.update(kind.value for kind in self._standing.findings.values())
        return found

    def wake(self) -> None:
        """Something may differ now, or no more."""
        self._wanted.set()

    async def serve(self) -> None:
        """Look, for ever."""
        loop, ask_at = asyncio.get_running_loop(), 0.0
        while True:
            self._wanted.clear()
            if loop.time() >= ask_at:
                await self._ask_speaker()
                resync = self.agent.settings.resync_seconds
                suspect = self._lacking or self._extra
                ask_at = loop.time() + (min(resync, AGAIN_SECONDS) if suspect else resync)
            began = loop.time()
            due = self.look(began)
            await asyncio.sleep(max(self.look_seconds, pause(loop.time() - began)))
            try:
                async with asyncio.timeout_at(ask_at if due is None else min(ask_at, due)):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _ask_speaker(self) -> None:
        """What was stated while it answered counts neither way."""
        speech = self.agent.speech
        before = frozenset(speech.prefixes())
        told = await speakers.told(self.agent.settings) if speech.stated else None
        after = frozenset(speech.prefixes())
        self._lacking = frozenset() if told is None else (before & after) - told
        self._extra = frozenset() if told is None else told - (before | after)

    def look(self, now: float) -> float | None:
        """Compare everything once; when to look again at the latest, None: nothing waits."""
        truths, before = self._truths(), self.findings
        found = {} if truths is None else differences(truths)
        new, gone = self._standing.update(found, now)
        for one in new[:SAID_MOST]:
            log.error("addresses differ object=%s/%s why=%s", one.plural, one.name, one.message)
        for one in gone[:SAID_MOST]:
            log.info("addresses agree object=%s/%s was=%s", one.plural, one.name, one.message)
        more = len(new[SAID_MOST:]) + len(gone[SAID_MOST:])
        if more:
            log.error("addresses differ or agree again more=%d", more)
        if self.findings != before:  # who else announces an address may be told later
            self.agent.control.wake()
        return self._standing.due(found)

    def _truths(self) -> Truths | None:
        agent = self.agent
        if agent.intent is None or not agent.rounds:
            return None
        known = agent.control.known
        report = replace(agent.report, ready=agent.ready)
        return Truths(
            intent=agent.intent,
            records=agent.records.held,
            ready=agent.ready,
            expected=frozenset(announce(agent.facts(), report)),
            stated=frozenset(agent.speech.prefixes()),
            lacking=self._lacking,
            extra=self._extra,
            reports={**known.declared, **known.reports} if agent.control.in_sync else None,
            conflicts=agent.conflicts.found if agent.speech.received_whole else {},
        )

    def condition(self) -> Condition:
        """The Node's: Unknown where the switches cannot be heard and nothing else differs."""
        listed, counts = self.findings, self.counts()
        status, reason, message = "True", "AddressesAgree", ""
        if listed:
            more = f"; and {len(listed) - SAID_MOST} more" if len(listed) > SAID_MOST else ""
            status, message = "False", "; ".join(listed[:SAID_MOST]) + more
            reason = "AddressConflict" if counts[Kind.CONFLICT.value] else "AddressesDiffer"
        elif why := self._deaf():
            status, reason = "Unknown", why
        return Condition(type=ADDRESSES_CONSISTENT, status=status, reason=reason, message=message)

    def _deaf(self) -> str:
        """Why nothing can be said; "": something can."""
        agent = self.agent
        if agent.intent is None or not agent.rounds:
            return "NotReadBack"
        if not (agent.speech.connected and agent.speech.received_whole):
            return "NoSpeaker"
        up = [one for one in agent.speech.sessions.values() if one.state == "Established"]
        return "NoSession" if peers_of(agent.intent) and not up else ""
