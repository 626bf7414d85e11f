"""What an agent measures of itself, for Prometheus.

Events are counted where they happen; states are read when somebody asks. Each agent has a registry
of its own, so that two in one process do not meet. docs/metrics.md lists every name.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.resources.errors import RoutedError

if TYPE_CHECKING:
    from routed.agent.agent import Agent

disable_created_metrics()  # type: ignore[no-untyped-call]
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters and histograms; `text` adds what is read from the agent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "routed_operation_seconds",
            "From a request's turn to its end, addresses, kernel and record included.",
            ["operation"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.failures = Counter(
            "routed_operation_failures",
            "Attaches and detaches refused or failed, by the error's reason.",
            ["operation", "reason"],
            registry=self.registry,
        )
        self.changes = Counter(
            "routed_kernel_changes",
            "Things that a full sync found different and changed.",
            registry=self.registry,
        )

    @contextmanager
    def measured(self, operation: str) -> Iterator[None]:
        """Time what is inside, and count it if it fails."""
        began = time.perf_counter()
        try:
            yield
        except RoutedError as error:
            reason = getattr(error, "reason", type(error).__name__)
            self.failures.labels(operation, reason).inc()
            raise
        self.seconds.labels(operation).observe(time.perf_counter() - began)

    def text(self, agent: Agent) -> bytes:
        """The exposition format, text 0.0.4."""
        states = CollectorRegistry()
        states.register(_States(agent))
        return generate_latest(self.registry) + generate_latest(states) + agent.counting.text


class _States(Collector):
    """What is read when it is asked for."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterable[Metric]:
        agent, speech = self._agent, self._agent.speech
        yield _gauge("routed_attachments", "Attachments of this node.", len(agent.records))
        ready = len(agent.ready)
        yield _gauge("routed_attachments_ready", "Those whose kernel state was read back.", ready)
        failed = len(agent.report.failed)
        yield _gauge("routed_failed_objects", "What the last sync could not make so.", failed)
        rounds = CounterMetricFamily("routed_rounds", "Full syncs.")
        rounds.add_metric([], agent.rounds)
        yield rounds
        lost = CounterMetricFamily("routed_netlink_overflows", "Lost streams of kernel events.")
        lost.add_metric([], agent.kernel.overflows)
        yield lost
        told = CounterMetricFamily(
            "routed_told", "Objects and members that the control plane told of.", labels=["of"]
        )
        for of, count in {
            **agent.control.known.told,
            "selections": agent.guard.members.told,
        }.items():
            told.add_metric([of], count)
        yield told
        yield _gauge("routed_control_plane_connected", "1: in sync.", int(agent.control.in_sync))
        life = agent.control.credentials.life if agent.control.credentials else None
        ends, what = life.expires if life else 0, "When it ends, since the epoch; 0: a token."
        yield _gauge("routed_certificate_expires_timestamp_seconds", what, ends)
        yield _gauge("routed_speaker_connected", "1: connected.", int(speech.connected))
        blocking = len(agent.filtering.blocking)
        yield _gauge(
            "routed_blocking_firewalls", "Foreign chains that cut workloads off.", blocking
        )
        enforced = int(agent.guard.condition().status == "True")
        yield _gauge("routed_policies_enforced", "1: all that select workloads here.", enforced)
        yield _gauge("routed_policy_log", "1: it listens.", int(agent.policy_log.listening))
        yield _counts("routed_policy_logged", "action", agent.policy_log.heard)
        yield _counts("routed_policy_log_lost", "why", agent.policy_log.lost)
        removed = GaugeMetricFamily(
            "routed_routes_removed",
            "Times that somebody removed routes or gateways.",
            labels=["program"],
        )
        for program, count in Counts(one.program for one in agent.kernel.removals).items():
            removed.add_metric([program], count)
        yield removed
        sessions = GaugeMetricFamily("routed_bgp_sessions", "Sessions by state.", labels=["state"])
        for state, count in Counts(one.state for one in speech.sessions.values()).items():
            sessions.add_metric([state], count)
        yield sessions
        paths = GaugeMetricFamily("routed_bgp_received_paths", "Paths by peer.", labels=["peer"])
        for peer, count in speech.received().items():
            paths.add_metric([peer], count)
        yield paths
        said = speech.advertised
        yield _gauge("routed_bgp_advertised_prefixes", "Prefixes stated to the speaker.", said)
        differ = GaugeMetricFamily(
            "routed_address_findings", "What stands of what differs.", labels=["kind"]
        )
        for kind, count in agent.agreement.counts().items():
            differ.add_metric([kind], count)
        yield differ
        addresses = GaugeMetricFamily(
            "routed_addresses", "Addresses of this node's blocks.", labels=["block", "state"]
        )
        for block, (assigned, cooling) in agent.book.counts().items():
            addresses.add_metric([block, "assigned"], assigned)
            addresses.add_metric([block, "cooling"], cooling)
        yield addresses


def _counts(name: str, label: str, counts: Counts[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, "Of the policy log.", labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
