"""'Full' only when it could have been: nothing was surely free for as long as the answer took.
Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from support.histories.lives import Final, Life, by_what
from support.histories.pools import Pool
from support.histories.record import ADDRESSES, FOR_EVER, FULL, Operation

Span = tuple[float, float]


def wrongly_full(
    operations: Sequence[Operation],
    lives: Sequence[Life],
    pools: Mapping[str, Pool],
    final: Final,
) -> Iterator[str]:
    known = [*lives, *strays(lives, pools, final)]
    spans = {what: used(group) for what, group in by_what(known).items()}
    owned: dict[tuple[str, str], list[Life]] = {}
    for life in lives:
        if life.plural == "ipblocks":
            owned.setdefault((life.process, pool_of(life.what, pools)), []).append(life)
    lingering = {
        what: [(first, last + pool.cooldown) for first, last in spans[what]]
        for pool in pools.values()
        for what in pool.addresses
        if what in spans
    }
    for op in operations:
        if op.outcome != FULL:
            continue
        pool = pools[op.pool]
        if op.plural != ADDRESSES:
            free = next((one for one in pool.subjects if _free(one, spans, op)), None)
            if free is not None:
                yield f"{op.pool} was not full at {op.invoked:.6f}: {free[0]} was free"
            continue
        for life in owned.get((op.process, op.pool), []):
            if life.since <= op.invoked and life.until > op.returned:
                for address in pool.inside[life.what]:
                    if _free((address,), lingering, op):
                        yield f"{op.pool} was not full at {op.invoked:.6f}: {address} was free"


def strays(lives: Iterable[Life], pools: Mapping[str, Pool], final: Final) -> Iterator[Life]:
    """What is there in the end without anybody knowing: a claim or a lease whose answer was lost.
    It may be as old as can be; of a lease not even the address is known."""
    told = {life.uid for life in lives}
    for plural in ("ipblocks", "addressleases"):
        for name, uid in final[plural].items():
            if uid in told:
                continue
            fixed = (a for pool in pools.values() if pool.fixed for a in pool.addresses)
            for what in (name,) if plural == "ipblocks" else fixed:
                yield Life(plural, name, uid, what, "", -FOR_EVER, FOR_EVER)


def used(lives: Iterable[Life]) -> list[Span]:
    """When it may have been somebody's; in order, apart from each other."""
    found: list[Span] = []
    for first, last in sorted((life.asked, life.gone) for life in lives):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def pool_of(what: str, pools: Mapping[str, Pool]) -> str:
    return next(name for name, pool in pools.items() if what in pool.inside)


def _free(whats: Sequence[str], spans: Mapping[str, list[Span]], op: Operation) -> bool:
    """None of them can have been anybody's while the operation went on."""
    for what in whats:
        held = spans.get(what, [])
        place = bisect_right(held, op.returned, key=lambda span: span[0])
        if place and held[place - 1][1] >= op.invoked:
            return False
    return True
