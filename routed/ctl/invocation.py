"""What the options before the verb have said, for the verb."""

from __future__ import annotations

from pathlib import Path

from routed.ctl.connection import Connection

AGENT = Path("/run/routed/agent.sock")


class Said:
    """Set once, by the program's own options; `failing` by a verb to whom 1 means something else.
    It is the exit code of what fails, but for mistakes on the command line."""

    connection = Connection()
    failing = 1


def connection() -> Connection:
    return Said.connection
