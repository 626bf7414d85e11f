"""Which pools a workload's addresses are of, and what is said where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.ipam.blocks import block_name
from api.resources import IPBlock, IPPool, IPReservation, Node, ObjectMeta
from api.resources.errors import Conflict, Invalid, PoolExhausted, RoutedError
from api.resources.ippool import IPBlockSpec
from api.resources.net import IPAddress, parse_cidr
from api.resources.workload import IPFamily, Origin, WorkloadSpec
from routed.agent.addresses import AddressBook
from routed.agent.attachment import Attachment
from routed.agent.cooling import CoolingLog
from routed.agent.intent import Intent
from routed.agent.request import AttachRequest, parse_attach

FOUR, SIX = "10.65.0.0/28", "fd00:65::/124"


def pool(name: str, cidr: str, **spec: Any) -> IPPool:
    return IPPool.model_validate(
        {"metadata": {"name": name}, "kind": "IPPool", "spec": {"cidr": cidr, **spec}}
    )


def block(pool: str, cidr: str) -> IPBlock:
    spec = IPBlockSpec(node="h1", pool=pool, cidr=parse_cidr(cidr))
    return IPBlock(metadata=ObjectMeta(name=block_name(parse_cidr(cidr))), spec=spec)


def intent_of(*pools: IPPool, own: bool = True, **node: Any) -> Intent:
    held = {}
    for one in pools if own else ():
        made = block(one.metadata.name, str(one.spec.cidr))
        held[made.metadata.name] = made
    return Intent(
        node_name="h1",
        node=Node.model_validate({"metadata": {"name": "h1"}, "kind": "Node", "spec": node}),
        pools={one.metadata.name: one for one in pools},
        blocks=held,
    )


class NoMore:
    async def claim(self, *, pool: str = "", address: IPAddress | None = None) -> Intent:
        raise PoolExhausted(f"cannot claim of {pool or address}")


def assigned(directory: Path, intent: Intent, **wanted: Any) -> list[str]:
    """The addresses of one workload that asks for `wanted`."""
    book = AddressBook(CoolingLog(directory / "cooling.log", "boot"), 16)
    book.own(intent)
    one = Attachment(id="w.h1", name="w", node="h1", origin=Origin.NODE, addresses=[], **wanted)
    try:
        asyncio.run(book.prepare(intent, one, NoMore()))
        return [str(address) for address in book.assign(intent, one)]
    except RoutedError:
        assert not book.allocator.assigned, "all of them or none"
        raise


BOTH = intent_of(
    pool("six", SIX, blockSize=124), pool("four", FOUR, blockSize=28)
)  # by name, six is second


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ({}, ["10.65.0.0"]),
        ({"pools": ["six"]}, ["fd00:65::"]),
        ({"pools": ["six", "four"]}, ["10.65.0.0", "fd00:65::"]),
        ({"ip_families": [IPFamily.IPV6]}, ["fd00:65::"]),
        ({"ip_families": [IPFamily.IPV6, IPFamily.IPV4]}, ["fd00:65::", "10.65.0.0"]),
        ({"pools": ["six", "four"], "ip_families": [IPFamily.IPV4]}, ["10.65.0.0"]),
    ],
)
def test_one_address_of_each_family(
    wanted: Mapping[str, Any], given: list[str], tmp_path: Path
) -> None:
    assert assigned(tmp_path, BOTH, **wanted) == given


def test_v6_alone_is_used_where_there_is_nothing_else(tmp_path: Path) -> None:
    assert assigned(tmp_path, intent_of(pool("six", SIX, blockSize=124))) == ["fd00:65::"]


@pytest.mark.parametrize(
    ("intent", "wanted", "says"),
    [
        (intent_of(), {}, "no pool is to be used by node h1: there is none"),
        (intent_of(pool("four", FOUR, blockSize=28)), {"ip_families": ["IPv6"]}, "no IPv6 pool"),
        (
            intent_of(
                pool("a", FOUR, blockSize=28, disabled=True),
                pool("b", "10.66.0.0/24", nodeSelector="rack == 'r1'"),
                pool("c", "10.67.0.0/24", allocation="Fixed"),
            ),
            {},
            "a is disabled; b has the nodeSelector \"rack == 'r1'\", which excludes this node; "
            "c has allocation Fixed",
        ),
        (intent_of(pool("a", FOUR, blockSize=28), unschedulable=True), {}, "is being drained"),
        (intent_of(pool("a", FOUR, blockSize=28)), {"pools": ["b"]}, "no pool 'b'; there are: a"),
        (intent_of(pool("a", FOUR, blockSize=28), own=False), {}, "0 free.*no block more"),
        (
            intent_of(pool("a", FOUR, blockSize=28), pool("s", SIX, blockSize=124), own=False),
            {"pools": ["a", "s"]},
            "pool a ",
        ),
    ],
)
def test_why_not(intent: Intent, wanted: Mapping[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((PoolExhausted, Invalid), match=says.replace("(", r"\(")):
        assigned(tmp_path, intent, **wanted)


def test_what_is_reserved_is_not_given(tmp_path: Path) -> None:
    held = IPReservation.model_validate(
        {"metadata": {"name": "gw"}, "kind": "IPReservation",
         "spec": {"reservedCIDRs": ["10.65.0.0/30"]}}
    )  # fmt: skip
    intent = replace(BOTH, reservations={"gw": held})
    assert assigned(tmp_path, intent) == ["10.65.0.4"]
    with pytest.raises(Conflict, match=r"10\.65\.0\.2 is reserved by IPReservation gw"):
        assigned(tmp_path, intent, requested=["10.65.0.2"])


def test_what_goes_back() -> None:
    """Of the pools that are used by themselves a reserve is kept, of all others nothing."""

    def spare(intent: Intent, directory: Path = Path("/nonexistent")) -> list[str]:
        book = AddressBook(CoolingLog(directory / "cooling.log", "boot"), 4)
        book.own(intent)
        return book.spare_blocks(intent)

    blocks = [f"10.65.0.{n}/28" for n in (0, 16, 32)]
    pools = {
        word: pool("main", "10.65.0.0/24", blockSize=28, **spec)
        for word, spec in {
            "used": {},
            "disabled": {"disabled": True},
            "others": {"nodeSelector": "has(gpu)"},
        }.items()
    }

    def owning(word: str, **node: Any) -> Intent:
        held = [block("main", cidr) for cidr in blocks]
        one = intent_of(pools[word], own=False, **node)
        return replace(one, blocks={b.metadata.name: b for b in held})

    assert spare(owning("used")) == ["10-65-0-32-28", "10-65-0-16-28"]
    for intent in (owning("disabled"), owning("others"), owning("used", unschedulable=True)):
        assert len(spare(intent)) == 3
    fixed = pool("fixed", "10.70.0.0/30", allocation="Fixed")
    one = block("fixed", "10.70.0.1/32")
    assert spare(replace(intent_of(fixed, own=False), blocks={one.metadata.name: one}))


@pytest.mark.parametrize(
    ("families", "says"),
    [(["IPv4", "IPv4"], "ipFamilies"), (["IPv5"], "ipFamilies"), ("IPv4", "ipFamilies")],
)
def test_families_that_cannot_be(families: object, says: str) -> None:
    body = b'{"name":"w","netns":"w","ipFamilies":%s}'
    text = str(families).replace("'", '"') if isinstance(families, list) else f'"{families}"'
    with pytest.raises(Invalid, match=says):
        parse_attach(body % text.encode())
    assert AttachRequest.model_validate({"name": "w", "netns": "w", "ipFamilies": ["IPv6"]})


@pytest.mark.parametrize(
    ("addresses", "families", "field", "says"),
    [
        (["10.65.0.5"], ["IPv6"], "addresses[0]", "10.65.0.5 is of a family that ipFamilies"),
        (["fd00:65::5"], ["IPv4"], "addresses[0]", "fd00:65::5 is of a family that ipFamilies"),
        (["10.65.0.5", "fd00:65::5"], ["IPv4"], "addresses[1]", "fd00:65::5 is of a family"),
        (["10.65.0.5"], ["IPv4", "IPv6"], "ipFamilies", "has IPv6, which no address"),
    ],
)
def test_addresses_are_of_the_families_asked_for(
    addresses: list[str], families: list[str], field: str, says: str
) -> None:
    """By the agent's socket and through the service; without what is wrong it would be given one
    that was not asked for."""
    asked = {"addresses": addresses, "ipFamilies": families}
    with pytest.raises(Invalid) as refused:
        parse_attach(json.dumps({"name": "w", "netns": "w", **asked}).encode())
    first = refused.value.causes[0]
    assert (first.field, says in first.message) == (field, True)
    declared = WorkloadSpec.model_validate({"node": "h1", "netns": "w", **asked}).causes()
    assert (declared[0].field, says in declared[0].message) == (f"spec.{field}", True)
    fitting = {"name": "w", "netns": "w", "addresses": ["10.65.0.5", "fd00:65::5"]}
    assert AttachRequest.model_validate({**fitting, "ipFamilies": ["IPv6", "IPv4"]})
    assert AttachRequest.model_validate(fitting)


class OnlyOf:
    """Has a block more of the pool `name` alone; `asked` is what it was asked for, in order."""

    def __init__(self, name: str, intent: Intent, error: type[RoutedError] = PoolExhausted) -> None:
        self.name, self.intent, self.error = name, intent, error
        self.asked: list[str] = []

    async def claim(self, *, pool: str = "", **more: Any) -> Intent:
        self.asked.append(pool)
        if pool != self.name:
            raise self.error(f"cannot claim of {pool}")
        cidr = self.intent.pools[pool].spec.cidr
        made = block(pool, str(cidr))
        return replace(self.intent, blocks={**self.intent.blocks, made.metadata.name: made})


def test_a_pool_without_a_block_more_is_passed_over_and_all_are_said_if_none_has_one(
    tmp_path: Path,
) -> None:
    intent = intent_of(
        pool("a", "10.1.0.0/26"), pool("b", "10.2.0.0/26"), pool("c", "10.3.0.0/26"), own=False
    )
    wanted = Attachment(id="w.h1", name="w", node="h1", origin=Origin.NODE, addresses=[])

    def prepared(source: OnlyOf) -> AddressBook:
        book = AddressBook(CoolingLog(tmp_path / "cooling.log", "boot"), 16)
        asyncio.run(book.prepare(intent, wanted, source))
        return book

    source = OnlyOf("b", intent)
    book = prepared(source)
    assert source.asked == ["a", "b"]
    assert str(book.assign(source.intent, wanted)[0]).startswith("10.2.0.")
    with pytest.raises(PoolExhausted) as refused:
        prepared(OnlyOf("none", intent))
    assert all(f"cannot claim of {name}" in str(refused.value) for name in "abc")
    source = OnlyOf("b", intent, Conflict)  # not of the pool: another would be refused as well
    with pytest.raises(PoolExhausted, match=r"cannot claim of a$"):
        prepared(source)
    assert source.asked == ["a"]
