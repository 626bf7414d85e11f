"""What this node tells the service, decided purely: the difference between what is and what the
service last showed of it. Of an object that exists only the fields are written that are ours and
differ, so nothing is taken away that a newer service, or another program, keeps there; and a field
that the service does not show is one that it does not know, which is no difference.

Node-born workloads: the node is the truth. A report that is missing is created, one that differs
is replaced, one that has no attachment any more is deleted, so a headless detach never comes back.
API-born workloads: the service is the truth; only their status is ours. Nothing here depends on
what was reported before: the next round repeats whatever failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.ippool import IPBlock, IPBlockStatus
from api.resources.meta import Condition, ObjectMeta, Resource, Status
from api.resources.node import Node, NodeAddress, NodeStatus
from api.resources.workload import Origin, Workload, WorkloadSpec, WorkloadStatus
from routed.agent.attachment import Attachment, Step


@dataclass(frozen=True, slots=True)
class Create:
    object: Resource


@dataclass(frozen=True, slots=True)
class Patch:
    """Change these fields of an object, as it was seen; with `status` of its status, where other
    conditions than those in `change` stay."""

    plural: str
    name: str
    change: Mapping[str, Any]
    status: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    plural: str
    name: str
    uid: str


Write = Create | Patch | Delete


@dataclass(frozen=True, slots=True)
class Local:
    """What this node knows of one workload: its record, whether it is ready, and why a declared one
    could not be attached."""

    record: Attachment | None
    ready: bool = False
    failure: WorkloadStatus | None = None
    uplinks: tuple[str, ...] = ()  # those of the host, where its conditions tell of them
    policies: tuple[str, ...] = ()  # those that select it and are not enforced, or not wholly
    neighbours: bool = False  # others are on its parent

    def status(self, record: Attachment) -> WorkloadStatus:
        return record.status(
            ready=self.ready,
            uplinks=self.uplinks,
            policies=self.policies,
            neighbours=self.neighbours,
        )


def workload_writes(name: str, local: Local, seen: Workload | None) -> list[Write]:
    """The writes that bring the service's Workload `name`, as it was last `seen`, to what is
    true."""
    record = local.record
    if record is not None and record.step is Step.DETACHING:
        record = None
    if seen is not None and seen.spec.origin is Origin.API:
        if record is not None:
            return _status_write("workloads", seen, local.status(record))
        if local.failure is None:
            return []
        return _status_write("workloads", seen, local.failure)
    if record is None or record.origin is not Origin.NODE:
        return [] if seen is None else [Delete("workloads", name, seen.metadata.uid)]
    status = local.status(record)
    if seen is None:
        metadata = ObjectMeta(name=name, labels=record.labels)
        return [Create(Workload(metadata=metadata, spec=record.spec(), status=status))]
    if not _shows(seen.spec, record.spec()):
        return [Delete("workloads", name, seen.metadata.uid)]
    writes: list[Write] = []
    if seen.metadata.labels != record.labels:
        gone = dict.fromkeys(seen.metadata.labels.keys() - record.labels.keys())
        writes.append(
            _patch("workloads", seen, {"metadata": {"labels": {**record.labels, **gone}}})
        )
    return writes + _status_write("workloads", seen, status)


def block_writes(
    blocks: Mapping[str, IPBlock], counts: Mapping[str, tuple[int, int]]
) -> list[Write]:
    """Status of our blocks; `counts` has (assigned, cooling) addresses by block name."""
    writes: list[Write] = []
    for name, (assigned, cooling) in counts.items():
        block = blocks.get(name)
        if block is not None:
            status = IPBlockStatus(assigned=assigned, cooling=cooling)
            writes += _status_write("ipblocks", block, status)
    return writes


def node_writes(
    node: Node,
    conditions: list[Condition],
    versions: dict[str, str],
    addresses: list[NodeAddress] | None = None,
) -> list[Write]:
    """Status of our Node."""
    status = NodeStatus(conditions=conditions, versions=versions, addresses=addresses or [])
    return _status_write("nodes", node, status)


def status_change(held: Status, wanted: Status) -> dict[str, Any]:
    """The fields of `wanted` that `held` shows otherwise; {}: none."""
    shown = held.model_dump(mode="json", by_alias=True, exclude_unset=True)
    said, blank = wanted.wire(), not shown
    conditions, known = said.pop("conditions"), shown.pop("conditions", [])
    change = {
        name: value
        for name, value in said.items()
        if (name in shown or blank) and not _within(value, shown.get(name))
    }
    by_type = {one["type"]: one for one in known}
    if not all(_within(one, by_type.get(one["type"])) for one in conditions):
        change["conditions"] = conditions
    return change


def _within(value: Any, shown: Any) -> bool:
    """Whether `shown` says `value`, and of a map perhaps more."""
    if isinstance(value, dict) and isinstance(shown, dict):
        return all(name in shown and shown[name] == one for name, one in value.items())
    return bool(value == shown)


def _shows(seen: WorkloadSpec, wanted: WorkloadSpec) -> bool:
    """Whether what the service shows of a report is what was reported."""
    if all(getattr(seen, name) == getattr(wanted, name) for name in seen.model_fields_set):
        return True  # nearly all, and at little cost
    return _covers(seen.model_dump(exclude_unset=True), wanted.model_dump())


def _covers(shown: Any, wanted: Any) -> bool:
    """Whether `wanted` has what is `shown`; a field that is not, the service does not know."""
    if isinstance(shown, dict) and isinstance(wanted, dict):
        return all(_covers(value, wanted[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(wanted, list):
        return len(shown) == len(wanted) and all(map(_covers, shown, wanted))
    return bool(shown == wanted)


def _status_write(plural: str, held: Workload | Node | IPBlock, wanted: Status) -> list[Write]:
    change = status_change(held.status, wanted)
    return [_patch(plural, held, {"status": change}, status=True)] if change else []


def _patch(plural: str, held: Resource, change: dict[str, Any], *, status: bool = False) -> Patch:
    """Refused if the object has changed meanwhile: it may be another of that name."""
    metadata = {**change.get("metadata", {}), "resourceVersion": held.metadata.resource_version}
    return Patch(plural, held.metadata.name, {**change, "metadata": metadata}, status)
