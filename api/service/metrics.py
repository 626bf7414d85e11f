"""What the service measures of itself, for Prometheus."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from api.service.audit import AuditLog

disable_created_metrics()  # type: ignore[no-untyped-call]
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ServiceMetrics:
    """One registry for each application."""

    def __init__(self, audit: AuditLog | None = None) -> None:
        self.registry = CollectorRegistry()
        lost = Gauge(
            "routed_api_audit_lost", "Writes missing in the audit log.", registry=self.registry
        )
        lost.set_function(lambda: audit.lost if audit else 0)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "routed_api_requests",
            "Requests answered.",
            ["method", "resource", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "routed_api_request_seconds",
            "Until the answer begins.",
            ["method", "resource"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.throttled = Counter(
            "routed_api_throttled",
            "Requests refused because of how many there were.",
            ["by"],
            registry=self.registry,
        )
        self.watches = Gauge(
            "routed_api_watches", "Open watches.", ["resource"], registry=self.registry
        )

    def answered(self, method: str, resource: str, code: int, began: float) -> None:
        """One request; `began` is of time.perf_counter."""
        key = (method, resource, code)
        known = self._known.get(key)
        if known is None:
            count = self.requests.labels(method, resource, str(code))
            known = self._known[key] = count, self.seconds.labels(method, resource)
        count, seconds = known
        count.inc()
        seconds.observe(time.perf_counter() - began)

    def watching(self, resource: str) -> AbstractContextManager[object]:
        """While one watch is open."""
        return self.watches.labels(resource).track_inprogress()

    def refused(self, by: str) -> None:
        """By which bound: the rate of an identity or an address, what is under way, streams."""
        self.throttled.labels(by).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
