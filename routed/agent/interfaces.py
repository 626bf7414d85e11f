"""Several interfaces in one namespace: at most one of each family has the default route. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.errors import Cause, Conflict, Invalid
from api.resources.workload import Mode
from routed.agent.attachment import Attachment, Step


def against(record: Attachment, others: Iterable[Attachment]) -> Conflict | Invalid | None:
    """Why `record` cannot be what it is to be beside the `others` of its namespace."""
    versions = {address.version for address in record.addresses}
    if record.default_route:
        for other in others:
            shared = versions & {address.version for address in other.addresses}
            if other.id == record.id or not other.default_route or not shared:
                continue
            if other.step is Step.DETACHING:
                continue
            said = f"is that of {other.id} ({other.if_name}) already"
            return Conflict(
                f"cannot attach {record.name}: the default route of {record.netns} {said}; attach "
                "this one with defaultRoute: false, or detach the other first",
                causes=[Cause("defaultRoute", said)],
            )
        return None
    if record.mode is not Mode.VETH:
        said = f"mode {record.mode} always has the default route: use mode veth"
        return record.refused("defaultRoute", said)
    for number, prefix in enumerate(record.routes):
        if prefix.version not in versions:
            said = f"{prefix}: the workload has no IPv{prefix.version} address"
            return record.refused(f"routes[{number}]", said)
    return None
