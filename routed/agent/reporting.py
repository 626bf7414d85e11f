"""What this node tells the service, decided purely: the difference between what is and what the
service last showed of it.

Node-born workloads: the node is the truth. A report that is missing is created, one that differs
is replaced, one that has no attachment any more is deleted, so a headless detach never comes back.
API-born workloads: the service is the truth; only their status is ours. Nothing here depends on
what was reported before: the next round repeats whatever failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.resources.ippool import IPBlock, IPBlockStatus
from api.resources.meta import Condition, ObjectMeta, Resource, Status
from api.resources.node import Node, NodeStatus
from api.resources.workload import Origin, Workload, WorkloadStatus
from routed.agent.attachment import Attachment, Step


@dataclass(frozen=True, slots=True)
class Create:
    object: Resource


@dataclass(frozen=True, slots=True)
class Update:
    """Replace spec and metadata of an object that exists."""

    object: Resource


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    object: Resource


@dataclass(frozen=True, slots=True)
class Delete:
    plural: str
    name: str
    uid: str


Write = Create | Update | UpdateStatus | Delete


@dataclass(frozen=True, slots=True)
class Local:
    """What this node knows of one workload: its record, whether it is ready, and why a declared one
    could not be attached."""

    record: Attachment | None
    ready: bool = False
    failure: WorkloadStatus | None = None


def workload_writes(name: str, local: Local, seen: Workload | None) -> list[Write]:
    """The writes that bring the service's Workload `name`, as it was last `seen`, to what is
    true."""
    record = local.record
    if record is not None and record.step is Step.DETACHING:
        record = None
    if seen is not None and seen.spec.origin is Origin.API:
        if record is not None:
            return _status_write(seen, record.status(ready=local.ready))
        return _status_write(seen, local.failure) if local.failure is not None else []
    if record is None or record.origin is not Origin.NODE:
        return [] if seen is None else [Delete("workloads", name, seen.metadata.uid)]
    status = record.status(ready=local.ready)
    if seen is None:
        metadata = ObjectMeta(name=name, labels=record.labels)
        return [Create(Workload(metadata=metadata, spec=record.spec(), status=status))]
    if seen.spec != record.spec():
        return [Delete("workloads", name, seen.metadata.uid)]
    writes: list[Write] = []
    if seen.metadata.labels != record.labels:
        metadata = seen.metadata.model_copy(update={"labels": record.labels})
        writes.append(Update(seen.model_copy(update={"metadata": metadata})))
    return writes + _status_write(seen, status)


def block_writes(
    blocks: Mapping[str, IPBlock], counts: Mapping[str, tuple[int, int]]
) -> list[Write]:
    """Status of our blocks; `counts` has (assigned, cooling) addresses by block name."""
    writes: list[Write] = []
    for name, (assigned, cooling) in counts.items():
        block = blocks.get(name)
        if block is not None and (block.status.assigned, block.status.cooling) != (
            assigned,
            cooling,
        ):
            status = IPBlockStatus(
                conditions=block.status.conditions, assigned=assigned, cooling=cooling
            )
            writes.append(UpdateStatus(_with_status(block, status)))
    return writes


def node_writes(node: Node, conditions: list[Condition], versions: dict[str, str]) -> list[Write]:
    """Status of our Node."""
    return _status_write(node, NodeStatus(conditions=conditions, versions=versions))


def _status_write(held: Workload | Node, wanted: WorkloadStatus | NodeStatus) -> list[Write]:
    if _bare(held.status) == _bare(wanted):
        return []
    return [UpdateStatus(_with_status(held, wanted))]


def _with_status(held: Workload | Node | IPBlock, status: Status) -> Resource:
    return held.model_copy(update={"status": status})


def _bare(status: Status) -> Status:
    """Without what the service adds to conditions."""
    added = {"last_transition_time": None, "observed_generation": None}
    conditions = [condition.model_copy(update=added) for condition in status.conditions]
    return status.model_copy(update={"conditions": conditions})
