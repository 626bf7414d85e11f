"""What rules of policies have counted on this host, for metrics and for people.

Read when somebody asks, in a thread, and not more often than once in EVERY_SECONDS: a table of
thousands of rules takes a while. What there is to tell is bounded by what is in the table: a line
for each rule of a policy that is for somebody here, none for a workload.

Sums outlive a chain or table that is written anew (`policies.counters`). What rules that are gone
had counted is written down in /run, so that a new agent goes on with it; the rest is the kernel's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from api.resources.errors import ApplyError
from policies.compile import names
from policies.counters import Count, Key, Tally
from policies.model import Direction, Plan
from routed.agent.records import write_atomic

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")

EVERY_SECONDS = 5.0
LABELS = ["tier", "policy", "direction", "rule", "action", "staged"]


class Rule(NamedTuple):
    """Whose a counter is: `rule` is the place in the policy's list, or what else decided. `policy`
    "": of the tier; `tier` "" as well: of the node. `staged`: it only says what it would do."""

    tier: str
    policy: str
    direction: str
    rule: str
    action: str
    staged: bool


class Counting:
    """`rows` are what was read last: of each direction the policies in their order, then what
    decides where no rule does. `text` is the same for Prometheus."""

    def __init__(self, agent: Agent, path: Path) -> None:
        self.rows: list[tuple[Rule, Count]] = []
        self.text = exposed([])
        self._agent = agent
        self._path = path
        self._tally = Tally()
        self._kept: dict[Key, Count] = {}  # as it was written down last
        self._turn = asyncio.Lock()
        self._due = 0.0
        self._failing = False

    def load(self) -> None:
        """What an earlier agent of this boot wrote down."""
        try:
            held = json.loads(self._path.read_bytes())
            gone = {Key(label, staged): Count(*count) for label, staged, *count in held}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.warning("counters of policies unreadable path=%s why=%s", self._path, error)
            return
        self._tally, self._kept = Tally(gone), gone

    async def refresh(self) -> None:
        """Read them, if that was not just done. Who asks meanwhile gets the same."""
        agent, loop = self._agent, asyncio.get_running_loop()
        async with self._turn:
            if not agent.filtering.table.rules:
                self.rows, self.text = [], exposed([])
                return
            if loop.time() < self._due:
                return
            # without intent nobody knows which policies there are
            plan = agent.guard.enforcement.wanted.plan if agent.intent is not None else None
            try:
                await asyncio.to_thread(self._read, plan)
                self._failing = False
            except (ApplyError, OSError) as error:
                if not self._failing:
                    log.warning("counters of policies not read: %s", error)
                self._failing = True
            self._due = loop.time() + EVERY_SECONDS

    def _read(self, plan: Plan | None) -> None:
        self._tally.take(self._agent.filtering.table.filter.counted())
        known = named(plan or Plan())
        if plan is not None:
            self._tally.forget(known)
        totals = self._tally.totals()
        rows = [(rule, totals[key]) for key, rule in known.items() if key in totals]
        self.rows, self.text = rows, exposed(rows)
        self._keep(self._tally.gone)

    def _keep(self, gone: Mapping[Key, Count]) -> None:
        """Write them down, if they have changed. OSError."""
        if gone != self._kept:
            said = [[key.label, key.staged, one.packets, one.octets] for key, one in gone.items()]
            write_atomic(self._path, json.dumps(said).encode(), durable=False)
            self._kept = dict(gone)


def exposed(rows: Iterable[tuple[Rule, Count]]) -> bytes:
    """The exposition format, text 0.0.4."""
    packets = CounterMetricFamily(
        "routed_policy_packets", "First packets of flows, by what decided.", labels=LABELS
    )
    octets = CounterMetricFamily("routed_policy_bytes", "Likewise, their bytes.", labels=LABELS)
    for rule, count in rows:
        values = [*rule[:-1], "true" if rule.staged else "false"]
        packets.add_metric(values, count.packets)
        octets.add_metric(values, count.octets)
    registry = CollectorRegistry()
    registry.register(_Families([packets, octets]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def named(plan: Plan) -> dict[Key, Rule]:
    """Whose each counter is that a table of this plan can have."""
    found = {}
    for direction in Direction:
        short = direction.short
        for policy in plan.policies.values():
            for index, rule in enumerate(policy.rules.get(direction, ())):
                key = Key(names.label(policy.tier, policy.name, direction, index), policy.staged)
                found[key] = Rule(
                    policy.tier, policy.name, short, str(index), rule.action, policy.staged
                )
        for tier in plan.tiers.values():
            for staged in (False, True):
                key = Key(names.label(tier.name, "", direction, names.DEFAULT), staged)
                found[key] = Rule(tier.name, "", short, names.DEFAULT, tier.default, staged)
        unknown = (names.UNKNOWN_LINK, names.UNKNOWN_ADDRESS)
        for what, action in ((names.DEFAULT, plan.default), *((one, "Deny") for one in unknown)):
            key = Key(names.label("", "", direction, what))
            found[key] = Rule("", "", short, what, action, False)
    found[Key(names.CLOSED)] = Rule("", "", "", names.CLOSED, "Deny", False)
    return found
