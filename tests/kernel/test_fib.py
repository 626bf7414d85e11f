"""Tables read by the buffer are what they are read by the message."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routed.kernel import batches, fib
from routed.kernel import messages as m
from routed.kernel.netlink import NUMBERED, attr, attr_u32, attributes, walk
from routed.state import LearnedRoute, NextHop, destination, level, route_key

NETWORKS = st.one_of(
    st.builds(
        lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
        st.integers(0, 2**32 - 1),
        st.sampled_from([0, 8, 24, 26, 32]),
    ),
    st.builds(
        lambda number, length: IPv6Network((number >> (128 - length) << (128 - length), length)),
        st.integers(0, 2**128 - 1),
        st.sampled_from([0, 64, 122, 128]),
    ),
)


def dumped(
    prefix: IPv4Network | IPv6Network, metric: int, group: int, gateways: tuple[str, ...]
) -> bytes:
    """A route message as the kernel answers a dump with it."""
    key = destination(prefix)
    body = struct.pack("=BBBBBBBBI", key[0], key[1], 0, 0, 254, 82, 0, 1, 0)
    body += attr_u32(m.RTA_TABLE, 254)
    if prefix.prefixlen:
        body += attr(m.RTA_DST, key[2:])
    body += attr_u32(m.RTA_PRIORITY, metric)
    if group:
        body += attr_u32(m.RTA_NH_ID, group)
    hops = [ip_address(one).packed for one in gateways]
    if len(hops) == 1:
        body += attr(m.RTA_GATEWAY, hops[0]) + attr_u32(m.RTA_OIF, 2)
    elif hops:
        parts = [attr(m.RTA_GATEWAY, one) for one in hops]
        entries = [struct.pack("=HBBi", 8 + len(part), 0, 0, 2) + part for part in parts]
        body += attr(m.RTA_MULTIPATH, b"".join(entries))
    else:
        body += attr_u32(m.RTA_OIF, 3)
    return struct.pack("=IHHII", 16 + len(body), m.RTM_NEWROUTE, 2, 7, 99) + body


MESSAGES = st.builds(
    dumped,
    NETWORKS,
    st.sampled_from([0, 512]),
    st.sampled_from([0, 82_200_000]),
    st.sampled_from([(), ("192.0.2.1",), ("192.0.2.1", "198.51.100.1")]),
)


@given(st.lists(MESSAGES, min_size=1, max_size=12), st.lists(st.integers(1, 5), max_size=12))
def test_a_table_does_not_depend_on_how_it_comes(messages: list[bytes], cuts: list[int]) -> None:
    expected = fib.Routes()
    for message in messages:
        at, address, shape = fib._one(message[16:], {})
        if shape.learned:
            expected.learned.setdefault(at, {}).setdefault(address, shape)
        else:
            expected.local.setdefault((at, address), shape)
    buffers, rest = [], messages
    for cut in cuts:
        buffers.append(b"".join(rest[:cut]))
        rest = rest[cut:]
    buffers.append(b"".join(rest))
    assert fib.table(one for one in buffers if one) == expected
    assert fib.table([b"".join(messages)]) == expected


def test_many_alike_are_taken_as_one_and_keep_their_order() -> None:
    hosts = [ip_network(f"10.0.{n // 250}.{n % 250}/32") for n in range(400)]
    both = ("192.0.2.1", "198.51.100.1")
    first = [dumped(host, 512, 82_200_000, both) for host in hosts]
    shadowed = [dumped(host, 512, 82_200_001, both) for host in hosts[:50]]
    buffer = b"".join(first)
    found = fib.Routes()
    assert fib._alike(buffer, found, {})
    assert len(found.learned[level(4, 32, 512)]) == 400
    held = fib.table([buffer, b"".join(shadowed)]).learned[level(4, 32, 512)]
    assert {shape.group for shape in held.values()} == {82_200_000}
    assert not fib._alike(buffer + first[0][:-4], fib.Routes(), {})
    assert not fib._alike(buffer + shadowed[0], fib.Routes(), {})
    assert not fib._alike(shadowed[0] + buffer, fib.Routes(), {})
    elsewhere = dumped(hosts[0], 512, 82_200_000, ("192.0.2.1", "198.51.100.2"))
    assert not fib._alike(buffer + elsewhere, fib.Routes(), {})
    assert not fib._alike(buffer + dumped(hosts[0], 512, 0, both), fib.Routes(), {})


def test_an_address_that_looks_like_what_is_between_two_is_not_one() -> None:
    """Whatever a peer announces, the table is the one in the messages."""
    plain = dumped(IPv6Network("2001:db8::1/128"), 512, 82_200_000, ("2001:db8::9",))
    for start in range(0, len(plain) - 16):
        twin = IPv6Network((plain[start : start + 16], 128))
        messages = [plain, dumped(twin, 512, 82_200_000, ("2001:db8::9",)), plain]
        held = fib.table([b"".join(messages)]).learned[level(6, 128, 512)]
        assert set(held) == {ip_address("2001:db8::1").packed, twin.network_address.packed}


def test_cells_do_not_depend_on_whether_routes_share_their_next_hops() -> None:
    shape = fib.Shape(1, 82, 512, 82_200_000, ())

    def routes(*, shared: bool) -> list[LearnedRoute]:
        both = [NextHop(ip_address("192.0.2.1")), NextHop(ip_address("198.51.100.1"))]
        sets = [tuple(both), tuple(both[:1])]
        made = []
        for n in range(40):
            hops = sets[n % 2] if shared else tuple(NextHop(h.gateway) for h in sets[n % 2])
            made.append(LearnedRoute(ip_network(f"10.0.{n}.0/{24 + n % 3}"), hops, 512 + n % 2))
        return made

    held = {level(4, 24, 512): {ip_address("10.0.0.0").packed: shape}}
    apart = [
        sorted((c.level, c.hops, c.shape is shape, sorted(c.addresses)) for c in found)
        for found in (fib.cells(routes(shared=True), held), fib.cells(routes(shared=False), held))
    ]
    assert apart[0] == apart[1]
    assert sum(len(cell[3]) for cell in apart[0]) == 40
    assert [cell[3] for cell in apart[0] if cell[2]] == [[ip_address("10.0.0.0").packed]]


def test_surplus_is_what_is_held_and_not_desired() -> None:
    shape = fib.Shape(1, 82, 512, 82_200_000, ())
    hops = (NextHop(ip_address("192.0.2.1")),)
    here, there = ip_network("10.0.0.1/32"), ip_network("fd00::1/128")
    held: fib.Table = {}
    for prefix in (here, there, ip_network("10.0.0.2/32"), ip_network("0.0.0.0/0")):
        at, address = route_key(prefix, 512)
        held.setdefault(at, {})[address] = shape
    compared = fib.cells([LearnedRoute(here, hops), LearnedRoute(there, hops)], held)
    assert fib.surplus(compared, held) == {
        level(4, 32, 512): [ip_address("10.0.0.2").packed],
        level(4, 0, 512): [b""],
    }


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "10.0.0.0/8", "::/0", "fd00::/64", "fd00::1/128"])
def test_requests_name_their_route_and_their_place(prefix: str) -> None:
    first = ip_network(prefix)
    at, address = route_key(first, 512)
    count = 3 if first.prefixlen else 1
    addresses = [address] * count
    for batch in batches.over_group(82_200_000, at, addresses, replace=False):
        found = list(walk(batch.requests))
        assert [sequence for _, _, sequence, _, _ in found] == [NUMBERED + n for n in range(count)]
        for kind, _, _, start, end in found:
            data = batch.requests[start:end]
            parts = attributes(data, 12)
            assert kind == m.RTM_NEWROUTE
            assert data[:2] + parts.get(m.RTA_DST, b"") == destination(first)
            assert parts[m.RTA_NH_ID] == struct.pack("=I", 82_200_000)
            assert parts[m.RTA_PRIORITY] == struct.pack("=I", 512)
    assert fib.network(at, address) == first
    assert fib.metric(at) == 512


def test_a_batch_is_never_longer_than_it_may_be() -> None:
    at, _ = route_key(ip_network("fd00::1/128"), 512)
    addresses = [n.to_bytes(16, "big") for n in range(2000)]
    found = list(batches.without(at, addresses))
    assert [one for batch in found for one in batch.addresses] == addresses
    assert max(len(batch.requests) for batch in found) <= 32_000
