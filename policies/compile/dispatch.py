"""From an endpoint's link or address to its chain.

Endpoints with the same signatures in both directions are one group, and a set holds the links of
each, or, of the ipvlan modes, which have no links here, the addresses of a family: who comes and
goes is one element. Packets are sent on by the first set that has their link. Beyond some groups
that would take too long, so further sets hold the links by the bits of their group's digest, and
chains that ask for one bit each lead to few groups: what it costs grows with the logarithm of the
number of groups, not with that of links. What is in no set meets `last`.

The kernel follows at most 16 chains, those that are gone to among them (NFT_JUMP_STACK_SIZE): of
these, 5 are for what comes after the groups' and one is the base chain. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policies.compile import names
from policies.compile.chains import Line

LINEAR = 16  # groups asked for one after the other, where these are all
FEW = 4  # groups that are left when bits were asked for, on the average
DEEPEST = 9  # bits


def depth(groups: int) -> int:
    """How many bits are asked for."""
    bits = 0
    while groups > LINEAR and groups > FEW << bits and bits < DEEPEST:
        bits += 1
    return bits


def bit(group: str, place: int) -> bool:
    """One of the digest that a group is called by, the first ones first."""
    return bool(int(group, 16) >> (63 - place) & 1)


@dataclass(frozen=True, slots=True)
class By:
    """What endpoints are told by: their links, or (4, 6) their addresses of that family."""

    version: int = 0

    def group_set(self, group: str) -> str:
        """Its name."""
        return names.slaves(self.version, group) if self.version else names.links(group)

    def bit_set(self, place: int) -> str:
        return names.slaves(self.version, f"bit-{place}") if self.version else f"bit-{place}"

    def sets_of(self, group: str, bits: int) -> list[str]:
        """The sets that endpoints of the group are in, where `bits` are asked for."""
        asked = (self.bit_set(place) for place in range(bits) if bit(group, place))
        return [self.group_set(group), *asked]

    def chains(
        self, root: str, key: str, targets: Mapping[str, str], bits: int, last: list[Line]
    ) -> Iterator[tuple[str, list[Line]]]:
        """Chains by name, from `root` on. `key` is what of a packet is looked up; `targets`: by
        group, where its packets go."""
        yield from self._node(root, key, sorted(targets.items()), 0, bits, last)

    def _node(
        self,
        name: str,
        key: str,
        targets: list[tuple[str, str]],
        place: int,
        bits: int,
        last: list[Line],
    ) -> Iterator[tuple[str, list[Line]]]:
        if place == bits:
            asked = [
                (f"{key} @{self.group_set(group)} {target}", f"links of {group}")
                for group, target in targets
            ]
            yield name, [*asked, *last]
            return
        dash = "" if place else "-"
        one, zero = f"{name}{dash}1", f"{name}{dash}0"
        label = f"bit {place}"
        lines = [(f"{key} @{self.bit_set(place)} goto {one}", label), (f"goto {zero}", label)]
        yield name, lines
        for child, wanted in ((one, True), (zero, False)):
            some = [item for item in targets if bit(item[0], place) is wanted]
            yield from self._node(child, key, some, place + 1, bits, last)


LINKS = By()
ADDRESSES = (By(4), By(6))
