"""Addresses and prefixes as typed values that cannot be wrong.

`parse_cidr` and `parse_address` are the only places where such text becomes a value;
their messages say what would have been right.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
T = TypeVar("T")

# Never assigned, never part of a pool (RFC 6890; for v6 also RFC 4291, RFC 3849 is left usable
# for laboratories). 255.255.255.255 lies in 240/4.
RESERVED: tuple[IPNetwork, ...] = tuple(
    ip_network(prefix)
    for prefix in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/8",
        "fe80::/10",
        "ff00::/8",
    )
)


def parse_address(text: object) -> IPAddress:
    """Parse one address; ValueError says what is wrong and what would be right."""
    if isinstance(text, IPv4Address | IPv6Address):
        return text
    if not isinstance(text, str):
        raise ValueError(f"must be an IP address in a string, not {type(text).__name__}")
    try:
        return ip_address(text)
    except ValueError:
        hint = f"; without the length: {text.partition('/')[0]}" if "/" in text else ""
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address{hint}") from None


def parse_cidr(text: object) -> IPNetwork:
    """Parse one prefix; host bits must be zero. ValueError says what would be right."""
    if isinstance(text, IPv4Network | IPv6Network):
        return text
    if not isinstance(text, str):
        raise ValueError(f"must be a prefix such as 10.65.0.0/16, not {type(text).__name__}")
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length; a prefix looks like 10.65.0.0/16")
    length = text.partition("/")[2]
    if not length.isascii() or not length.isdigit():
        raise ValueError(f"{text!r} is not a prefix: the length after '/' must be a number")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 prefix such as 10.65.0.0/16") from None
    raise ValueError(f"{text!r} has host bits set after /{length}; {loose} would be right")


@lru_cache(maxsize=1 << 16)
def host_prefix(address: IPAddress) -> IPNetwork:
    """The /32 or /128 that is exactly `address`."""
    return ip_network(address)


class PrefixIndex(Generic[T]):
    """Prefixes that do not overlap, each with a value: which one holds an address.

    One look-up a distinct length, however many prefixes there are.
    """

    def __init__(self, entries: Iterable[tuple[IPNetwork, T]] = ()) -> None:
        self._values: dict[tuple[int, int, int], T] = {}
        shifts: dict[int, set[int]] = {4: set(), 6: set()}
        for prefix, value in entries:
            shift = prefix.max_prefixlen - prefix.prefixlen
            shifts[prefix.version].add(shift)
            first = int(prefix.network_address)
            self._values[prefix.version, shift, first >> shift] = value
        self._shifts = {version: sorted(found) for version, found in shifts.items()}

    def find(self, address: IPAddress) -> T | None:
        """The value of the prefix that holds `address`, or None."""
        version, number = address.version, int(address)
        for shift in self._shifts[version]:
            found = self._values.get((version, shift, number >> shift))
            if found is not None:
                return found
        return None


def reserved_overlap(network: IPNetwork) -> IPNetwork | None:
    """The reserved range that `network` touches, or None."""
    for reserved in RESERVED:
        if reserved.version == network.version and reserved.overlaps(network):
            return reserved
    return None


def _text(value: Any) -> str:
    return str(value)


Address = Annotated[
    IPv4Address | IPv6Address,
    BeforeValidator(parse_address),
    PlainSerializer(_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "ip"}),
]
Cidr = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(parse_cidr),
    PlainSerializer(_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "cidr"}),
]
