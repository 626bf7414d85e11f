"""Several interfaces in one namespace: at most one of each family has the default route, and beside
some modes there is nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.errors import Cause, Conflict, Invalid
from api.resources.workload import IPVLAN, Mode
from routed.agent.attachment import Attachment, Step

# none is to be reached by nobody, and ipvlan has no rules for a second interface (docs/modes.md)
ALONE = IPVLAN | {Mode.NONE}


def against(record: Attachment, others: Iterable[Attachment]) -> Conflict | Invalid | None:
    """Why `record` cannot be what it is to be beside the `others` of its namespace."""
    versions = {address.version for address in record.addresses}
    beside = [one for one in others if one.id != record.id and one.step is not Step.DETACHING]
    if (found := _alone(record, beside)) is not None:
        return found
    if record.default_route:
        for other in beside:
            shared = versions & {address.version for address in other.addresses}
            if not other.default_route or not shared:
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


def _alone(record: Attachment, beside: Iterable[Attachment]) -> Conflict | None:
    """Modes that have a namespace for themselves; who shares one is in it all the same."""
    for other in beside:
        modes = (record.mode, other.mode)
        own = next((mode for mode in modes if mode in ALONE), None)
        if own is None or Mode.SHARED in modes:
            continue
        said = f"{record.netns} is that of {other.id}, of mode {other.mode}"
        return Conflict(
            f"cannot attach {record.name} by {record.mode}: {said}, and mode {own} has one for "
            "itself; take another namespace, or mode shared, or detach that one first",
            causes=[Cause("netns", said)],
        )
    return None
