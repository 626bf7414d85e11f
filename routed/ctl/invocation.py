"""What the options before the verb have said, for the verb."""

from __future__ import annotations

from pathlib import Path

from routed.ctl.connection import Connection

AGENT = Path("/run/routed/agent.sock")


class Said:
    """Set once, by the program's own options."""

    connection = Connection()


def connection() -> Connection:
    return Said.connection
