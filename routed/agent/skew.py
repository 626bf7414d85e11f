"""What is against this agent working with the other programs as they are. Pure.

A control plane that is too far from us is not worked with at all: nothing that it shows is taken
in and nothing is written to it but this condition, whose form all releases share. The host goes on
as it does while the control plane is down. The speaker of our own host is spoken to however old it
is, for a host that stops to withdraw announces what is not true; what it does not know of what it
is told, it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping

from api.resources.meta import Condition
from api.resources.versions import VERSION, against

MOST = 3  # objects named


def of_service(version: str) -> str:
    """What is against a control plane of that version; "": nothing."""
    return against(VERSION, version, "this agent", "the control plane")


def of_speaker(version: str) -> str:
    """What is against a speaker of that version; "": nothing."""
    return against(VERSION, version, "this agent", "the speaker of this host")


def condition(service: str, speaker: str, unread: Mapping[tuple[str, str], str]) -> Condition:
    """The Node's condition: what is against either, and which objects could not be read, by kind
    and name, and why."""
    named = [f"{kind} {name}: {why}" for (kind, name), why in sorted(unread.items())]
    more = [f"and {len(named) - MOST} more"] if len(named) > MOST else []
    reasons = [
        ("ControlPlane", service),
        ("Speaker", speaker),
        ("ObjectsUnread", "; ".join([*named[:MOST], *more])),
    ]
    found = [(reason, message) for reason, message in reasons if message]
    return Condition(
        type="VersionSkew",
        status="True" if found else "False",
        reason=found[0][0] if found else "Supported",
        message="; ".join(message for _, message in found),
    )
