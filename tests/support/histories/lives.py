"""From operations to lives: since when something was somebody's for sure, and until when.

Sure is an owner from the answer to the creation until the deletion is asked for. Possible is it for
longer: from when the creation was asked for until the deletion is known to have been carried out.
What no answer told of is found by reading: then it is sure from that reading on, and it cannot be
older than the reading before, which did not show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from support.histories.record import FOR_EVER, GONE, NO, OK, UNKNOWN, Operation

K = TypeVar("K")
Final = Mapping[str, Mapping[str, str]]  # by plural, the uid of each name


@dataclass(slots=True)
class Life:
    """Of one object, or one assignment of an address."""

    plural: str
    name: str
    uid: str
    what: str
    process: str
    asked: float
    since: float
    until: float = FOR_EVER
    gone: float = FOR_EVER

    def __str__(self) -> str:
        return f"{self.plural} {self.name} ({self.uid}) of {self.process}"


def lives(operations: Iterable[Operation]) -> list[Life]:
    found: dict[tuple[str, str, str], Life] = {}
    first_unknown: dict[tuple[str, str, str], float] = {}
    lists: dict[tuple[str, str], list[float]] = {}
    for op in operations:
        place, key = (op.process, op.plural, op.name), (op.plural, op.name, op.uid)
        if op.verb == "create" and op.outcome == UNKNOWN:
            first_unknown.setdefault(place, op.invoked)
        elif op.verb in ("create", "adopt") and op.outcome == OK:
            asked = op.invoked
            if op.verb == "adopt":
                nameless = (op.process, op.plural, "")
                asked = first_unknown.get(place, first_unknown.get(nameless, -FOR_EVER))
                before = [at for at in lists.get((op.process, op.plural), ()) if at < op.invoked]
                asked = max(asked, *before[-1:], -FOR_EVER)
            found[key] = Life(op.plural, op.name, op.uid, op.what, op.process, asked, op.returned)
        elif op.verb == "delete" and op.outcome != NO and key in found:
            life = found[key]
            life.until = min(life.until, op.invoked)
            if op.outcome in (OK, GONE):
                life.gone = min(life.gone, op.returned)
        elif op.verb == "list" and op.outcome == OK:
            earlier = lists.get((op.process, op.plural), [])
            lists[op.process, op.plural] = [*earlier[-1:], op.invoked]
    return list(found.values())


def by_name(lives: Iterable[Life]) -> dict[tuple[str, str], list[Life]]:
    """Those of each (plural, name), by the time they are sure from."""
    return _sorted(lives, lambda life: (life.plural, life.name))


def by_what(lives: Iterable[Life]) -> dict[str, list[Life]]:
    """Those that own each block, or address, whatever kind they are of."""
    return _sorted((life for life in lives if life.what), lambda life: life.what)


def _sorted(lives: Iterable[Life], key: Callable[[Life], K]) -> dict[K, list[Life]]:
    groups: dict[K, list[Life]] = defaultdict(list)
    for life in lives:
        groups[key(life)].append(life)
    for group in groups.values():
        group.sort(key=lambda life: life.since)
    return groups
