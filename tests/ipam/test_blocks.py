"""Blocks: lowest free, aligned, inside the pool, refused with the owner's name."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ipam import blocks
from api.ipam.space import Held, Lowest, Space
from api.resources import IPBlock, IPPool
from api.resources.errors import Conflict, Invalid, PoolExhausted


def pool(cidr: str, name: str = "main", **spec: Any) -> IPPool:
    return IPPool.model_validate({"metadata": {"name": name}, "kind": "IPPool",
                                  "spec": {"cidr": cidr, **spec}})  # fmt: skip


def block(node: str = "h1", **spec: Any) -> IPBlock:
    return IPBlock.model_validate({"metadata": {"name": "claim"}, "kind": "IPBlock",
                                   "spec": {"node": node, **spec}})  # fmt: skip


def space(pools: list[IPPool], owned: list[IPBlock]) -> Space:
    made = Space()
    for one in owned:  # before the pools, as a store shows them
        assert one.spec.cidr is not None
        held = Held(one.spec.cidr, one.spec.pool, one.spec.node)
        made.set_block(blocks.block_name(one.spec.cidr), held)
    for one_pool in pools:
        made.set_pool(one_pool.metadata.name, one_pool)
    return made


@given(st.sets(st.integers(0, 15)), st.sampled_from(["10.65.0.0/24", "fd00::/64"]))
def test_the_lowest_free_block_is_the_lowest_free(taken: set[int], cidr: str) -> None:
    size = 28 if "." in cidr else 68
    one = pool(cidr, blockSize=size if "." in cidr else 120)
    if ":" in cidr:
        one = pool("fd00::/116", blockSize=120)
    inside = list(one.spec.cidr.subnets(new_prefix=one.spec.block_size))
    owned = [block(cidr=str(inside[i]), pool="main") for i in taken]
    found = space([one], owned).lowest_free(one)
    free = [cidr for i, cidr in enumerate(inside) if i not in taken]
    assert found == (free[0] if free else None)


@given(st.lists(st.tuples(st.booleans(), st.integers(10, 20)), max_size=60))
def test_the_lowest_number_after_any_history(history: list[tuple[bool, int]]) -> None:
    numbers = Lowest()
    for take, number in history:
        (numbers.take if take else numbers.free)(number)
        assert numbers.lowest(10) == next(n for n in range(10, 22) if n not in numbers.taken)


@given(
    st.sets(st.integers(0, 15)),
    st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=4),
)
def test_no_block_is_given_that_is_reserved_as_a_whole(
    taken: set[int], ranges: list[tuple[int, int]]
) -> None:
    one = pool("10.65.0.0/24", blockSize=28)
    inside = list(one.spec.cidr.subnets(new_prefix=28))
    made = space([one], [block(cidr=str(inside[i]), pool="main") for i in taken])
    cidrs = [ip_network(f"10.65.0.{at}/{length}", strict=False) for at, length in ranges]
    made.set_reservation("mine", tuple(cidrs))
    reserved = {address for cidr in cidrs for address in cidr}
    free = [c for i, c in enumerate(inside) if i not in taken and not reserved.issuperset(c)]
    assert made.lowest_free(one) == (free[0] if free else None)
    assert all((a in made.reserved) == (a in reserved) for a in one.spec.cidr)
    made.set_reservation("mine", None)
    left = [c for i, c in enumerate(inside) if i not in taken]
    assert made.lowest_free(one) == (left[0] if left else None)


class Counted(set[int]):
    looks = 0

    def __contains__(self, number: object) -> bool:
        self.looks += 1
        return super().__contains__(number)


def test_a_claim_costs_the_same_with_many_blocks_owned() -> None:
    owned = Counted(range(20_000))
    numbers = Lowest(owned)
    assert numbers.lowest(0) == 20_000
    owned.looks = 0
    for number in range(0, 2000, 2):  # given back at the bottom, and claimed again
        numbers.free(number)
        numbers.free(number + 1)
        numbers.take(numbers.lowest(0))
        assert numbers.lowest(0) == number + 1
        numbers.take(number + 1)
        assert numbers.lowest(0) == 20_000
    assert owned.looks < 10 * 2000
    for _ in range(2000):  # asked for by address, and given back
        numbers.free(7)
        numbers.take(7)
    owned.looks = 0
    assert numbers.lowest(0) == 20_000
    assert owned.looks < 10


@given(st.integers(0, 2**16 - 1))
def test_the_block_of_an_address_holds_it_and_is_aligned(offset: int) -> None:
    one = pool("10.65.0.0/16")
    address = ip_address("10.65.0.0") + offset
    found = blocks.block_of(address, one)
    assert address in found
    assert found.prefixlen == 26
    assert found.subnet_of(one.spec.cidr)  # type: ignore[arg-type]


def test_names_of_blocks_are_unique_also_for_v6() -> None:
    names = {blocks.block_name(ip_network(c)) for c in ("::1:0/122", "1::/122", "0:1::/122")}
    assert len(names) == 3


def claim(wanted: IPBlock, held: dict[str, IPBlock], **spec: Any) -> str:
    pools = {"main": pool("10.65.0.0/24", **spec), "other": pool("10.66.0.0/24", "other")}
    return str(blocks.claim(wanted, space(list(pools.values()), list(held.values())), {})[0])


def test_claims() -> None:
    owned = block("h2", cidr="10.65.0.0/26", pool="main")
    held = {"10-65-0-0-26": owned}
    assert claim(block(pool="main"), held) == "10.65.0.64/26"
    assert claim(block(address="10.65.0.200"), held) == "10.65.0.192/26"
    assert claim(block("h2", address="10.65.0.3"), held) == "10.65.0.0/26", "its own, again"
    with pytest.raises(Conflict, match="of node h2"):
        claim(block("h1", address="10.65.0.3"), held)
    with pytest.raises(Conflict, match="of node h2"):
        claim(block("h1", cidr="10.65.0.0/26"), held)
    with pytest.raises(Invalid, match="outside every pool"):
        claim(block(address="192.0.2.1"), held)
    with pytest.raises(Invalid, match=r"10\.65\.0\.64/26 is"):
        claim(block(cidr="10.65.0.64/27"), held)
    with pytest.raises(Invalid, match="is in pool main, not other"):
        claim(block(address="10.65.0.200", pool="other"), held)
    with pytest.raises(Invalid, match="no pool 'none'"):
        claim(block(pool="none"), held)
    with pytest.raises(Invalid, match="disabled"):
        claim(block(pool="main"), held, disabled=True)
    with pytest.raises(Invalid, match="excludes node h1"):
        claim(block(pool="main"), held, nodeSelector="has(gpu)")


def test_an_exhausted_pool_says_how_big_it_is() -> None:
    held = {
        blocks.block_name(c): block("h2", cidr=str(c), pool="main")
        for c in ip_network("10.65.0.0/24").subnets(new_prefix=26)
    }
    with pytest.raises(
        PoolExhausted,
        match=r"10\.65\.0\.0/24.*of its 4 blocks of /26 4 are owned, 0 wholly reserved",
    ):
        claim(block(pool="main"), held)


def test_a_reserved_address_is_nobodys() -> None:
    made = space([pool("10.65.0.0/24", blockSize=26)], [])
    made.set_reservation("gateways", (ip_network("10.65.0.0/30"), ip_network("10.65.0.128/25")))
    with pytest.raises(Conflict, match=r"10\.65\.0\.2 is reserved by IPReservation gateways"):
        blocks.claim(block(address="10.65.0.2"), made, {})
    for wanted in ("10.65.0.0/26", "10.65.0.64/26"):
        cidr, name = blocks.claim(block(pool="main"), made, {})
        assert str(cidr) == wanted
        made.set_block(blocks.block_name(cidr), Held(cidr, name, "h1"))
    with pytest.raises(PoolExhausted, match="2 are owned, 2 wholly reserved, 0 free"):
        blocks.claim(block(pool="main"), made, {})
