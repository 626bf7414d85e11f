"""Where policies are asked: the base chains.

Egress comes before ingress, so that a packet between two workloads of one host meets both, each in
base chains of its own: `accept` ends only one of them. What workloads send to the host itself meets
egress before the allow-list of the base table, which is at priority 0 of input. Answers, and what
is related, meet none of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.compile.chains import Line, Place, Walk
from policies.compile.ruleset import Chain, Ruleset, chain
from policies.marks import LINK_GROUP
from policies.model import Direction

KEYS = {Direction.INGRESS: "oif", Direction.EGRESS: "iif"}
_HOOKS = {
    ("trial-egress", Direction.EGRESS, Walk.TRIAL): "forward priority -1",
    ("policy-egress", Direction.EGRESS, Walk.REAL): "forward priority 0",
    ("trial-ingress", Direction.INGRESS, Walk.TRIAL): "forward priority 1",
    ("policy-ingress", Direction.INGRESS, Walk.REAL): "forward priority 2",
    ("trial-tohost", Direction.EGRESS, Walk.TRIAL): "input priority -2",
    ("policy-tohost", Direction.EGRESS, Walk.REAL): "input priority -1",
}
_ANSWERS = ("ct state established,related accept", "answers")
# neighbour discovery with the host itself (RFC 4861), without which there is no IPv6
_NEIGHBOURS = (
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
    "neighbours",
)


def base_chains(place: Place, onward: list[Line]) -> Iterator[tuple[str, Chain]]:
    """Those of one walk in one direction, by name; `onward` is what the first packet of a flow of a
    link of ours meets."""
    for (name, direction, walk), hook in _HOOKS.items():
        if (direction, walk) == (place.direction, place.walk):
            first = [(f"{KEYS[direction]}group != {LINK_GROUP} accept", "not ours"), _ANSWERS]
            more = [_NEIGHBOURS] if "input" in hook else []
            lines = [*first, *more, *onward]
            yield name, chain(lines, f"type filter hook {hook}; policy accept;")


def closed() -> Ruleset:
    """No flow of any link of ours begins: where there are policies, but nobody knows which."""
    drop = [("counter drop", "closed")]
    return Ruleset(
        {
            name: one
            for direction in Direction
            for name, one in base_chains(Place(direction, Walk.REAL), drop)
        }
    )
