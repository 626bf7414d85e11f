"""One owner at a time, and no address to anybody else while it cools. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from support.histories.lives import Life, by_what
from support.histories.record import ADDRESSES


def overlaps(lives: Iterable[Life]) -> Iterator[str]:
    """Two who were sure of the same thing at the same time. A block and a lease of one address are
    no two owners: a lease is held by the node that has its block."""
    for kind in ("ipblocks", "addressleases", ADDRESSES):
        for what, group in by_what(one for one in lives if one.plural == kind).items():
            last = group[0]
            for life in group[1:]:
                if life.since < last.until:
                    yield f"two owners of {what}: {last} and {life}"
                if life.until > last.until:
                    last = life


def warm(lives: Iterable[Life], cooldown: Callable[[str], float]) -> Iterator[str]:
    """Addresses that were assigned anew within `cooldown` seconds. They were freed when that was
    asked for, at the earliest, and assigned when it was answered, at the latest."""
    for what, group in by_what(life for life in lives if life.plural == ADDRESSES).items():
        seconds = cooldown(what)
        for before, after in pairwise(group):
            if 0 <= after.since - before.until < seconds:
                cooled = after.since - before.until
                yield f"{what} had cooled for {cooled:.3f} s of {seconds}: {before}, {after}"
