"""The ranges that nobody is given an address of, of all reservations together: a pure value.

Reservations may overlap each other and have nothing to do with the edges of pools and blocks, so
they are merged into ranges of numbers, and what is asked of them is asked of those.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from api.resources.net import IPAddress, IPNetwork

Range = tuple[int, int]  # the first and the last


class Reserved:
    """The CIDRs of each reservation, by its name."""

    def __init__(self, by_name: Mapping[str, Sequence[IPNetwork]] | None = None) -> None:
        self.by_name = {name: tuple(cidrs) for name, cidrs in (by_name or {}).items()}
        listed = [cidr for cidrs in self.by_name.values() for cidr in cidrs]
        self._ranges = {
            version: _merged(cidr for cidr in listed if cidr.version == version)
            for version in (4, 6)
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reserved) and self.by_name == other.by_name

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, address: IPAddress) -> bool:
        ranges, number = self._ranges[address.version], int(address)
        place = bisect_right(ranges, number, key=lambda held: held[0]) - 1
        return place >= 0 and ranges[place][1] >= number

    def name_of(self, address: IPAddress) -> str | None:
        """The reservation that holds `address`, the first by name, or None."""
        if address not in self:
            return None
        return min(
            name
            for name, cidrs in self.by_name.items()
            if any(cidr.version == address.version and address in cidr for cidr in cidrs)
        )

    def inside(self, cidr: IPNetwork) -> list[Range]:
        """The reserved parts of `cidr`, counted from its first address."""
        base, top = int(cidr.network_address), int(cidr.broadcast_address)
        ranges = self._ranges[cidr.version]
        begin = bisect_left(ranges, base, key=lambda held: held[1])
        end = bisect_right(ranges, top, key=lambda held: held[0])
        return [
            (max(first, base) - base, min(last, top) - base) for first, last in ranges[begin:end]
        ]

    def blocks(self, cidr: IPNetwork, block_size: int) -> list[Range]:
        """Of the blocks that `cidr` is cut into, those with no address that is not reserved, as
        ranges of block numbers, which count blocks of this size from the first address there is."""
        bits = cidr.max_prefixlen - block_size
        base, size = int(cidr.network_address), 1 << bits
        whole = [
            ((base + first + size - 1) >> bits, ((base + last + 1) >> bits) - 1)
            for first, last in self.inside(cidr)
        ]
        return [(first, last) for first, last in whole if first <= last]


def _merged(cidrs: Iterable[IPNetwork]) -> list[Range]:
    found: list[Range] = []
    pairs = sorted((int(cidr.network_address), int(cidr.broadcast_address)) for cidr in cidrs)
    for first, last in pairs:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
