"""Leases: one address each, of Fixed pools only, nobody else's as long as they are there."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.ipam import blocks
from api.ipam.leases import lease
from api.ipam.reserved import Range, Reserved
from api.ipam.space import Held, Space
from api.resources import AddressLease, IPBlock, IPPool
from api.resources.errors import Conflict, Invalid, PoolExhausted
from api.resources.net import IPAddress, IPNetwork


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
    for number in leased:
        made.set_lease(ip_address(f"10.70.0.{number}"), f"l{number}")
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
        said = f"{len(own)} are owned by nodes, {len(leased - own)} more are leased"
        assert said in str(error)
    else:
        assert (str(address), name) == (f"10.70.0.{free[0]}", "fixed")


@given(
    st.lists(
        st.tuples(st.sampled_from(["lease", "own", "reserve"]), st.booleans(), st.integers(0, 7)),
        max_size=40,
    )
)
@example([("lease", True, 0), ("own", True, 0), ("own", False, 0)])
@example([("own", True, 0), ("lease", True, 0), ("lease", False, 0)])
def test_the_lowest_after_any_history(history: list[tuple[str, bool, int]]) -> None:
    made = space()
    leased: set[int] = set()
    own: set[int] = set()
    reserved: set[int] = set()
    for what, on, number in history:
        address = ip_address(f"10.70.0.{number}")
        if what == "lease":
            (leased.add if on else leased.discard)(number)
            made.set_lease(address, "some" if on else None)
        elif what == "own":
            (own.add if on else own.discard)(number)
            cidr = ip_network(address)
            held = Held(cidr, "fixed", "h1") if on else None
            made.set_block(blocks.block_name(cidr), held)
        else:
            (reserved.add if on else reserved.discard)(number)
            cidrs = [ip_network(f"10.70.0.{n}") for n in reserved]
            made.set_reservation("r", tuple(cidrs) or None)
        free = [n for n in range(8) if n not in leased | own | reserved]
        found = made.lowest_leasable(made.pools["fixed"])
        assert found == (ip_address(f"10.70.0.{free[0]}") if free else None)
        assert made.leased(made.pools["fixed"]) == len(leased - own)


class Counted(Reserved):
    """Reservations that count how often they are asked for their parts."""

    asked = 0

    def inside(self, cidr: IPNetwork) -> list[Range]:
        Counted.asked += 1
        return super().inside(cidr)


class Leases(dict[IPAddress, str]):
    """Leases that count how often somebody looks at all of them."""

    walks = 0

    def __iter__(self) -> Iterator[IPAddress]:
        self.walks += 1
        return super().__iter__()


def test_a_lease_and_a_claim_cost_the_same_with_many_leases_and_reservations() -> None:
    made = Space()
    for one in (pool("fixed", "10.80.0.0/16", allocation="Fixed"), pool("main", "10.65.0.0/16")):
        made.set_pool(one.metadata.name, one)
    made.leases = leases = Leases({ip_address("10.80.0.0") + n: f"l{n}" for n in range(0, 9000)})
    apart = [ip_network((int(ip_address("10.65.0.0")) + 8 * n, 30)) for n in range(4000)]
    made.reserved = Counted({"r": [*apart, ip_network("10.80.40.0/24")]})
    for number in range(300):
        address, _ = lease(wanted(pool="fixed"), made)
        made.set_lease(address, f"new{number}")
        claimed = IPBlock.model_validate(
            {
                "metadata": {"name": "claim"},
                "kind": "IPBlock",
                "spec": {"node": "h1", "pool": "main"},
            }
        )
        cidr, name = blocks.claim(claimed, made, {})
        made.set_block(blocks.block_name(cidr), Held(cidr, name, "h1"))
    assert len(leases) == 9300
    assert leases.walks <= 1, "looked at once, kept up from then on"
    assert Counted.asked <= 3, "once for each pool, and for the first claim of one without a block"


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
    made.set_lease(ip_address("10.70.0.2"), "other")
    owned(made, "10.70.0.3/32")
    made.set_reservation("r", (ip_network("10.70.0.4/32"),))
    with pytest.raises(error, match=says):
        lease(wanted(**spec), made)


def test_a_leased_block_is_claimed_by_its_lease_only() -> None:
    made = space()
    made.set_lease(ip_address("10.70.0.2"), "db")

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
