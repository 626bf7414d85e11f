"""How many requests a second somebody may make: a token bucket for each, pure.

A bucket is one number, the time at which it will be full again (the GCRA of ITU-T I.371): a request
moves it on by the time that one token takes, and is refused if it would then lie further ahead
than a full bucket reaches. One that is full says the same as none at all, so nothing has to be kept
of whoever is quiet, and no timer runs.

At most `most` are remembered. They are in the order of their last request, so what makes room is
the one that has been quiet for longest; only where `most` others came meanwhile can it not be full.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

TRACKED = 1 << 16  # more than the largest fabric has nodes; some 10 MiB


class Rate(NamedTuple):
    """`per_second` in the long run, `burst` at once after a quiet time."""

    per_second: float
    burst: int


class Buckets:
    """Those of everybody with the same rate."""

    def __init__(self, rate: Rate, most: int = TRACKED) -> None:
        self._step = 1 / rate.per_second
        self._reach = (rate.burst + 1e-3) / rate.per_second  # sums of floats are not exact
        self._most = most
        # By whom; a dict finds its first key slowly once many before it are gone.
        self._full: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, who: str, now: float) -> float:
        """Take a token: 0, or, with nothing taken, in how many seconds there is one. `now` is in
        seconds and never goes back."""
        known = self._full
        full = known.pop(who, now)
        later = (full if full > now else now) + self._step
        wait = later - self._reach - now
        if wait > 0:
            known[who] = full
            return wait
        known[who] = later
        if len(known) > self._most:
            known.popitem(last=False)
        return 0.0
