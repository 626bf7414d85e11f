"""Which releases work together. Pure.

A program's version is ``MAJOR.MINOR.PATCH``. Two work together if they have the same MAJOR and
their MINORs are at most one apart, whichever of them is the newer: control planes are upgraded
first, so it is agents that are behind, but a host that was upgraded too early and a control plane
that went back are no accidents either. One that does not say its version is of 0.1.

What makes the rule good is how each reads the other (docs/upgrades.md): what is not known is left
out and kept where it is, and who writes writes only the fields that are its own.
"""

from __future__ import annotations

import re

VERSION = "0.1.0"
HEADER = "routed-version"  # of every answer of the control plane
UNSAID = "0.1.0"
DISTANCE = 1  # minor versions

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.\d{1,6}(?:[.+~-][0-9A-Za-z.+~-]{0,64})?")


def minor_of(version: str) -> tuple[int, int] | None:
    """(MAJOR, MINOR); None if it is no version."""
    found = _VERSION.fullmatch(version or UNSAID)
    return (int(found[1]), int(found[2])) if found else None


def against(ours: str, theirs: str, us: str, them: str) -> str:
    """What is against `us`, of version `ours`, working with `them`, of version `theirs`, and what
    to do about it; "": nothing."""
    mine, other = minor_of(ours), minor_of(theirs)
    if mine is None or other is None:
        bad = (us, ours) if mine is None else (them, theirs)
        return f"{bad[0]} says that it is of version {bad[1][:40]!r}, which is none"
    if mine[0] == other[0] and abs(mine[1] - other[1]) <= DISTANCE:
        return ""
    older = us if mine < other else them
    return (
        f"{them} is of version {theirs or UNSAID} and {us} of {ours}: they work together if they "
        f"are at most one minor version apart; upgrade {older}"
    )
