"""Workloads declared through the service: attached here, retried until it works, reported."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from api.resources.errors import RoutedError
from api.resources.workload import OUTSIDE, Phase, Workload, WorkloadStatus
from routed.agent.attaching import asked, shared_with
from routed.agent.attachment import Attachment, failed_status

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")

RETRY_SECONDS = 1.0


class Declared:
    """`failures` has the status of those that could not be attached, by name."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.failures: dict[str, WorkloadStatus] = {}
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Something may have been declared, or may be possible now."""
        self._wanted.set()

    async def serve(self) -> None:
        """Attach what is declared; what fails is reported, and tried again."""
        while True:
            pending = False
            for workload in self._undone():
                pending |= not await self._attach(workload)
            try:
                async with asyncio.timeout(RETRY_SECONDS if pending else None):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            self._wanted.clear()

    def relabel(self) -> None:
        """Have the labels of those that are attached as they are declared now."""
        intent, records = self.agent.intent, self.agent.records
        for name, workload in intent.declared.items() if intent is not None else ():
            record = records.get(name)
            if record is None or record.labels == workload.metadata.labels:
                continue
            labelled = record.model_copy(update={"labels": workload.metadata.labels})
            try:
                records.put(labelled)
            except OSError as error:  # they count all the same; the next agent comes to it
                log.error("labels not recorded workload=%s: %s", name, error)
                records.hold(labelled)

    def _undone(self) -> list[Workload]:
        intent = self.agent.intent
        if intent is None:
            return []
        declared = intent.declared
        self.failures = {name: why for name, why in self.failures.items() if name in declared}
        held = self.agent.records.held
        return [w for name, w in declared.items() if name not in held or held[name].leaving]

    async def _attach(self, workload: Workload) -> bool:
        """Whether it is attached now."""
        name = workload.metadata.name
        try:
            await self.agent.attach_candidate(self._candidate(workload))
        except RoutedError as error:
            status = failed_status(workload, type(error).__name__, str(error), Phase.PENDING)
            if self.failures.get(name) != status:
                log.warning("not attached workload=%s why=%s", name, error)
            self.failures[name] = status
            self.agent.report_due({name})
            return False
        self.failures.pop(name, None)
        return True

    def _candidate(self, workload: Workload) -> Attachment:
        name, spec = workload.metadata.name, workload.spec
        newest = self.agent.control.known.declared.get(name, workload)
        held = self.agent.records.get(name)  # of one that leaves and is declared anew
        path, identity = "", None
        if spec.mode not in OUTSIDE:
            namespace = self.agent.kernel.check_netns(spec.netns)
            path, identity = namespace.path, namespace.identity
        return Attachment(
            id=name,
            name=name,
            node=spec.node,
            origin=spec.origin,
            netns=path,
            netns_id=identity,
            if_name=spec.if_name,
            mode=spec.mode,
            pools=spec.pools,
            requested=asked(self.agent.intent, spec.lease) if spec.lease else spec.addresses,
            lease=spec.lease,
            ip_families=spec.ip_families,
            addresses=newest.status.addresses,  # those it had before
            container_id=spec.container_id,
            labels=workload.metadata.labels,
            mtu=0,  # derived when its addresses are known
            parent=held.parent if held is not None else self.agent.parent(spec.mode),
            ports=spec.ports,
            bandwidth=spec.bandwidth,
            default_route=spec.default_route,
            routes=spec.routes,
            shared_with=shared_with(self.agent, name, spec.shared_with),
        )
