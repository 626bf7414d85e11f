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
from routed.agent.intent import Intent


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


def workload_writes(
    intent: Intent,
    records: Mapping[str, Attachment],
    ready: frozenset[str],
    failures: Mapping[str, WorkloadStatus],
) -> list[Write]:
    """The writes that bring the service's Workloads of this node to what is true."""
    writes: list[Write] = []
    reported = intent.reported()
    for name, record in records.items():
        if record.origin is not Origin.NODE or record.step is Step.DETACHING:
            continue
        status = record.status(ready=name in ready)
        held = reported.get(name)
        if held is None:
            metadata = ObjectMeta(name=name, labels=record.labels)
            writes.append(Create(Workload(metadata=metadata, spec=record.spec(), status=status)))
        elif held.spec != record.spec():
            writes.append(Delete("workloads", name, held.metadata.uid))
        else:
            if held.metadata.labels != record.labels:
                metadata = held.metadata.model_copy(update={"labels": record.labels})
                writes.append(Update(held.model_copy(update={"metadata": metadata})))
            writes.extend(_status_write(held, status))
    for name, held in reported.items():
        record_held = records.get(name)
        if record_held is None or record_held.step is Step.DETACHING:
            writes.append(Delete("workloads", name, held.metadata.uid))
    for name, held in intent.declared().items():
        record_held = records.get(name)
        if record_held is not None and record_held.step is not Step.DETACHING:
            writes.extend(_status_write(held, record_held.status(ready=name in ready)))
        elif name in failures:
            writes.extend(_status_write(held, failures[name]))
    return writes


def block_writes(intent: Intent, counts: Mapping[str, tuple[int, int]]) -> list[Write]:
    """Status of our blocks; `counts` has (assigned, cooling) addresses by block name."""
    writes: list[Write] = []
    for name, (assigned, cooling) in counts.items():
        block = intent.blocks.get(name)
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
