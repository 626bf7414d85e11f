"""What was acknowledged is there, and what was acknowledged to be gone does not come back. Pure.

Reads are asked the same: one that began after an answer shows what the answer said, whichever
replica serves it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from support.histories.lives import Final, Life, by_name
from support.histories.record import ADDRESSES, FOR_EVER, GONE, NO, OK, UNKNOWN, Operation


def lost(lives: Iterable[Life], final: Final) -> Iterator[str]:
    """Against what is there in the end, when everything was started anew."""
    for life in lives:
        if life.plural == ADDRESSES:
            continue
        held = final[life.plural].get(life.name)
        if life.until == FOR_EVER and held != life.uid:
            yield f"lost: {life}, in the end there is {held or 'nothing'}"
        if life.gone < FOR_EVER and held == life.uid:
            yield f"come back: {life}"


def misread(operations: Sequence[Operation], lives: Sequence[Life]) -> Iterator[str]:
    """Reads and refusals that contradict what had been acknowledged before."""
    objects = [life for life in lives if life.plural != ADDRESSES]
    named, known = by_name(objects), {(life.plural, life.uid): life for life in objects}
    mine: dict[tuple[str, str], dict[str, Life]] = defaultdict(dict)  # while a process is sure
    unsure: set[tuple[str, str]] = set()  # may be gone: an answer was lost
    for op in operations:
        if op.plural == ADDRESSES:
            continue
        key = (op.plural, op.uid)
        if op.verb in ("create", "adopt") and op.outcome == OK:
            mine[op.process, op.plural][op.uid] = known[key]
        elif op.verb == "delete" and op.outcome != NO:
            mine[op.process, op.plural].pop(op.uid, None)
        if op.verb == "delete" and op.outcome == UNKNOWN:
            unsure.add(key)
        elif op.outcome == GONE and key in known and key not in unsure:
            yield f"lost: {known[key]}, says the answer to {op.verb}"
        if op.outcome != OK:
            continue
        if op.verb == "get":
            yield from _one(op, op.name, op.uid, named.get((op.plural, op.name), []), known)
        elif op.verb == "list":
            shown = dict(op.found)
            for name, uid in op.found:
                yield from _one(op, name, uid, [], known)
            for life in mine[op.process, op.plural].values():
                if shown.get(life.name) != life.uid:
                    yield f"not shown: {life}, in the list at {op.invoked:.6f}"


def _one(
    op: Operation, name: str, uid: str, lives: list[Life], known: dict[tuple[str, str], Life]
) -> Iterator[str]:
    """What a read shows of one name."""
    for life in _last(lives, op):
        if life.uid != uid:
            yield f"not shown: {life}, at {op.invoked:.6f} there was {uid or 'nothing'}"
    shown = known.get((op.plural, uid))
    if shown is not None and shown.gone < op.invoked:
        yield f"stale: {shown}, shown to {op.process} at {op.invoked:.6f}"


def _last(lives: list[Life], op: Operation) -> list[Life]:
    """The last life that began before the read, if it surely lasted until its end."""
    place = bisect_right(lives, op.invoked, key=lambda life: life.since)
    return [life for life in lives[max(0, place - 1) : place] if life.until > op.returned]
