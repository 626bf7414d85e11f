"""The named steps of attach and detach: after each of them the agent may be killed.

`reached` marks them in the code and does nothing. It is the seam by which a test kills the agent
at each one (tests/faults/test_steps.py enumerates `Point`): whatever the step, the next agent must
find in records, kernel and store everything that it needs to finish or to undo.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """In the order in which one attachment passes them."""

    ASSIGNED = "attach: address assigned"
    RECORDED = "attach: record written"
    LINK_MADE = "attach: link made, without its mark"
    INSIDE_DONE = "attach: namespace configured"
    HOST_SIDE_DONE = "attach: host side configured"
    READ_BACK = "attach: link and routes read back"
    ANNOUNCED = "attach: announcement handed on"
    MARKED = "detach: record says detaching"
    WITHDRAWN = "detach: withdrawal handed on"
    ROUTES_GONE = "detach: routes and neighbours gone, link waits for its end"
    COOLED = "detach: address cools down"
    FORGOTTEN = "detach: record removed"


def _nothing(point: Point) -> None:
    """The observer of every real agent."""


observer: Callable[[Point], None] = _nothing


def reached(point: Point) -> None:
    """Say that a step is done."""
    observer(point)
