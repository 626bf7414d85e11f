"""The messages of an attach, packed once for all workloads of one shape.

Pure. Nearly everything in them is the same for every workload with the same interface name, MTU and
families, so each batch is packed by the ordinary functions (`messages`, `interior`) for a made-up
endpoint, and the places where its name, indexes, addresses and MAC stand are remembered. An attach
copies the batch and puts its own values there: that is what keeps it near the time that the kernel
itself takes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from api.resources.net import IPAddress, host_prefix
from routed.kernel import interior
from routed.kernel import messages as m
from routed.kernel.netlink import NUMBERED
from routed.state import Endpoint

HOST, PEER, SPACE = 0x6D41_0001, 0x6D42_0002, 0x6D43_0003  # indexes and a descriptor, made up
_INDEX = struct.Struct("=I")


class Batch:
    """Messages as one buffer, numbered for `Netlink.transact_numbered`. `fill` takes the values in
    the order in which `marks`, the made-up ones, were given."""

    def __init__(self, messages: Sequence[bytearray], marks: Sequence[bytes]) -> None:
        for place, one in enumerate(messages):
            _INDEX.pack_into(one, 8, NUMBERED + place)
        self.data = b"".join(messages)
        self._places = [
            (offset, offset + len(mark), number)
            for number, mark in enumerate(marks)
            for offset in _found(self.data, mark)
        ]

    def fill(self, values: Sequence[bytes]) -> bytearray:
        """The batch of one workload."""
        data = bytearray(self.data)
        for start, end, number in self._places:
            data[start:end] = values[number]
        return data


@dataclass(frozen=True, slots=True)
class Shape:
    """The three batches of an attach. `inside` is to be sent from within the namespace; its
    messages do what `steps` say. `asks` asks there whether all is right. `readback` asks for the
    link and then for the route of each address."""

    create: Batch
    host: Batch
    inside: Batch
    steps: tuple[str, ...]
    asks: Batch
    readback: Batch


def shape_of(endpoint: Endpoint) -> Shape:
    versions = tuple(address.version for address in endpoint.addresses)
    length = len(endpoint.workload)  # of its name, which is in the alias
    inside = endpoint.netns is not None
    if not endpoint.default_route:  # few are so, and no two alike
        return _packed(endpoint, inside)
    return _shape(length, endpoint.if_name, endpoint.mtu, versions, inside)


def asks_of(endpoint: Endpoint, peer: int) -> bytearray:
    """The questions about the inside of `endpoint`, whose link there has index `peer`."""
    return shape_of(endpoint).asks.fill(values_of(endpoint, 0, peer, None))


def values_of(endpoint: Endpoint, host: int, peer: int, space: int | None) -> list[bytes]:
    """What `Batch.fill` needs, for indexes `host` and `peer` and the namespace's descriptor."""
    return [
        endpoint.host_interface.encode(),
        endpoint.alias.encode(),
        endpoint.mac,
        _INDEX.pack(host),
        _INDEX.pack(peer),
        _INDEX.pack(space or 0),
        *(address.packed for address in endpoint.addresses),
    ]


@lru_cache(maxsize=256)
def _shape(length: int, if_name: str, mtu: int, versions: tuple[int, ...], inside: bool) -> Shape:
    path = "/run/netns/made-up" if inside else None
    addresses = tuple(_made_up(place, version) for place, version in enumerate(versions))
    return _packed(Endpoint("~" * length, if_name, addresses, path, mtu), inside)


def _packed(made_up: Endpoint, inside: bool) -> Shape:
    versions = {address.version for address in made_up.addresses}
    marks = values_of(made_up, HOST, PEER, SPACE)
    create = m.create_veth(made_up, made_up.host_interface, HOST, PEER, SPACE if inside else None)
    if 6 in versions:  # up last, see there
        host = [m.host_link_v6(HOST, made_up.alias), m.link_up(HOST)]
    else:
        host = [m.host_link_up(HOST, made_up.alias)]
    host += host_messages(HOST, made_up)
    steps = interior.steps(PEER, made_up)
    return Shape(
        Batch([create], marks),
        Batch(host, marks),
        Batch([message for _, message in steps], marks),
        tuple(said for said, _ in steps),
        Batch([ask() for ask, _ in interior.expectations(PEER, made_up)], marks),
        Batch([m.get_link(HOST), *map(m.lookup, made_up.addresses)], marks),
    )


def host_messages(index: int, endpoint: Endpoint) -> list[bytearray]:
    """The host side: real gateway addresses, permanent neighbours, one route an address."""
    found = [gateway_address(index, gateway) for gateway in interior.gateways(endpoint.addresses)]
    for value in endpoint.addresses:
        found.append(m.neighbour(index, value, endpoint.mac))
        found.append(m.device_route(index, host_prefix(value)))
    return found


def gateway_address(index: int, gateway: IPAddress) -> bytearray:
    """A gateway as a real address of the host side, so that it always answers."""
    length = 32 if gateway.version == 4 else 64
    return m.address(index, gateway, add=True, length=length, scope=m.RT_SCOPE_LINK)


def _made_up(place: int, version: int) -> IPAddress:
    if version == 4:
        return IPv4Address(0xF3A5_C700 + place)
    return IPv6Address((0xFD7B_91C3_5E2D << 80) + 0x7700 + place)


def _found(data: bytes, mark: bytes) -> list[int]:
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at)
        at = data.find(mark, at + len(mark))
    return places
