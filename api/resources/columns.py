"""What a column of a table shows of an object: text, as kubectl shows it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

_OF_TYPE = re.compile(r"(\w+)\[(\w+)\]\Z")


def cell(document: dict[str, Any], path: str) -> str:
    """The text of one cell; ``status.conditions[Ready]`` is that condition's status."""
    value: Any = document
    for part in path.split("."):
        match = _OF_TYPE.match(part)
        name = match[1] if match else part
        value = value.get(name) if isinstance(value, dict) else None
        if match:
            of_type = [c for c in value or [] if c.get("type") == match[2]]
            value = of_type[0]["status"] if of_type else None
    if isinstance(value, list):
        return ",".join(map(str, value)) or "<none>"
    if value is None or value == "":
        return "<none>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(created: str | None, now: datetime) -> str:
    """As kubectl: 5s, 3m, 2h, 4d."""
    if not created:
        return "<unknown>"
    seconds = max(int((now - datetime.fromisoformat(created)).total_seconds()), 0)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
