"""What holds where there are policies, but nobody knows which, or the kernel takes none of them: no
flow of a workload begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from policies.compile import ipvlan, names
from policies.compile.chains import Line, Place, Walk
from policies.compile.hooks import base_chains
from policies.compile.matches import WORDS
from policies.compile.names import CLOSED
from policies.compile.ruleset import Chain, Ruleset, Set, chain
from policies.model import Direction

NOBODY: Mapping[str, Set] = MappingProxyType({})
DROP: list[Line] = [("counter drop", CLOSED)]


def closed(slaves: Mapping[str, Set] = NOBODY) -> Ruleset:
    """Of any link of ours, and of the addresses of the ipvlan modes that any policy is for:
    `slaves`, as `ipvlan.sets` has them, or what of a table's sets is left of that."""
    found: dict[str, Chain] = {}
    theirs = {name: slaves[name] for name in ipvlan.NAMES if name in slaves}
    some = theirs.keys() == set(ipvlan.NAMES) and any(
        theirs[names.slaves(version)].elements for version in WORDS
    )
    for direction in Direction:
        place = Place(direction, Walk.REAL)
        over = ipvlan.over_slaves(place) if some and direction is Direction.INGRESS else []
        found |= base_chains(place, DROP, over)
        if some:
            found |= ipvlan.base_chains(place, links=False)
            found |= {
                place.name(names.slaves(version)): chain([ipvlan.spared(version, direction), *DROP])
                for version in WORDS
            }
    return Ruleset(found | ipvlan.own_chains(), theirs) if some else Ruleset(found)
