"""Leases: one address each, of Fixed pools only, nobody else's as long as they are there."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ipam import blocks
from api.ipam.leases import lease
from api.ipam.space import Held, Space
from api.resources import AddressLease, IPBlock, IPPool
from api.resources.errors import Conflict, Invalid, PoolExhausted


def pool(name: str, cidr: str, **spec: Any) -> IPPool:
    return IPPool.model_validate(
        {"metadata": {"name": name}, "kind": "IPPool", "spec": {"cidr": cidr, **spec}}
    )


def wanted(**spec: Any) -> AddressLease:
    return AddressLease.model_validate({"metadata": {"name": "db"}, "spec": spec})


def space() -> Space:
    made = Space()
    for one in (
        pool("fixed", "10.70.0.0/29", allocation="Fixed"),
        pool("main", "10.65.0.0/16"),
        pool("six", "fd00:70::/64", allocation="Fixed"),
    ):
        made.set_pool(one.metadata.name, one)
    return made


def owned(made: Space, text: str, node: str = "h1") -> None:
    cidr = ip_network(text)
    made.set_block(blocks.block_name(cidr), Held(cidr, "fixed", node))


@given(
    leased=st.sets(st.integers(0, 7)),
    own=st.sets(st.integers(0, 7)),
    reserved=st.lists(st.tuples(st.integers(0, 7), st.integers(29, 32)), max_size=3),
)
def test_the_lowest_that_is_free(
    leased: set[int], own: set[int], reserved: list[tuple[int, int]]
) -> None:
    made = space()
    made.leases = {ip_address(f"10.70.0.{n}"): f"l{n}" for n in leased}
    for number in own:
        owned(made, f"10.70.0.{number}/32")
    cidrs = [ip_network(f"10.70.0.{at}/{length}", strict=False) for at, length in reserved]
    made.set_reservation("r", tuple(cidrs))
    free = [
        n
        for n in range(8)
        if n not in leased | own and not any(ip_address(f"10.70.0.{n}") in c for c in cidrs)
    ]
    try:
        address, name = lease(wanted(pool="fixed"), made)
    except PoolExhausted as error:
        assert not free
        assert f"{len(leased)} are leased, {len(own)} owned" in str(error)
    else:
        assert (str(address), name) == (f"10.70.0.{free[0]}", "fixed")


def test_a_large_reserved_range_is_passed_over_at_once() -> None:
    made = space()
    made.set_reservation("r", (ip_network("fd00:70::/65"),))
    assert str(lease(wanted(pool="six"), made)[0]) == "fd00:70:0:0:8000::"


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"pool": "none"}, Invalid, "no pool 'none'; there are: fixed, main, six"),
        ({"pool": "main"}, Invalid, "has allocation Automatic, not Fixed"),
        ({"address": "10.65.0.9"}, Invalid, "has allocation Automatic, not Fixed"),
        ({"address": "192.0.2.1"}, Invalid, "outside every pool"),
        ({"address": "10.70.0.1", "pool": "six"}, Invalid, "is in pool fixed, not six"),
        ({"address": "10.70.0.2"}, Conflict, "only a workload with lease 'other'"),
        ({"address": "10.70.0.3"}, Conflict, "of node h1"),
        ({"address": "10.70.0.4"}, Conflict, "reserved by IPReservation r"),
    ],
)
def test_what_cannot_be_leased(spec: dict[str, Any], error: type[Exception], says: str) -> None:
    made = space()
    made.leases[ip_address("10.70.0.2")] = "other"
    owned(made, "10.70.0.3/32")
    made.set_reservation("r", (ip_network("10.70.0.4/32"),))
    with pytest.raises(error, match=says):
        lease(wanted(**spec), made)


def test_a_leased_block_is_claimed_by_its_lease_only() -> None:
    made = space()
    made.leases[ip_address("10.70.0.2")] = "db"

    def claim(**spec: Any) -> str:
        asked = {"node": "h1", "address": "10.70.0.2", **spec}
        one = IPBlock.model_validate(
            {"metadata": {"name": "claim"}, "kind": "IPBlock", "spec": asked}
        )
        return str(blocks.claim(one, made, {})[0])

    assert claim(lease="db") == "10.70.0.2/32"
    for other in ({}, {"lease": "web"}):
        with pytest.raises(Conflict, match="only a workload with lease 'db'"):
            claim(**other)
