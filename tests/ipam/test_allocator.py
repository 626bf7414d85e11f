"""Assigning inside a node's blocks: never two owners, cooling honoured, nothing lost in a crash."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.ipam.allocator import Allocator, Block
from api.ipam.reserved import Reserved
from api.resources.errors import Conflict

COOLDOWN = 60.0
CIDRS = [ip_network("10.65.0.0/30"), ip_network("10.65.0.8/30"), ip_network("fd00::/127")]


class Node(RuleBasedStateMachine):
    """A node that claims, assigns, frees, crashes; `truth` is what its workloads really hold."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator()
        self.truth: dict[object, str] = {}
        self.freed: dict[object, tuple[str, float]] = {}
        self.owned: set[int] = set()
        self.now = 1000.0
        self.count = 0

    @rule(index=st.integers(0, 2))
    def claim(self, index: int) -> None:
        self.owned.add(index)
        self.own()

    def own(self) -> None:
        self.allocator.own(Block(CIDRS[i], "main", COOLDOWN) for i in self.owned)

    @rule(version=st.sampled_from([4, 6]))
    def assign(self, version: int) -> None:
        self.count += 1
        owner = f"w{self.count}"
        room = self.allocator.free("main", version, self.now)
        address = self.allocator.assign("main", version, owner, self.now)
        assert (address is None) == (room == 0)
        if address is not None:
            self.given(address, owner)

    @rule(index=st.integers(0, 2), offset=st.integers(0, 3))
    def take(self, index: int, offset: int) -> None:
        self.count += 1
        owner = f"w{self.count}"
        cidr = CIDRS[index]
        address = cidr.network_address + offset % cidr.num_addresses
        try:
            self.given(self.allocator.take(address, owner, self.now), owner)
        except Conflict as error:
            held = self.truth.get(address)
            assert held is not None or address in self.freed
            assert (held or self.freed[address][0]) in str(error)

    def given(self, address: object, owner: str) -> None:
        assert address not in self.truth, "two owners"
        if address in self.freed:
            last, since = self.freed.pop(address)
            assert owner == last or self.now - since >= COOLDOWN, "reused while cooling"
        self.truth[address] = owner

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.truth.values())))
        for address in self.allocator.release(owner, self.now):
            assert self.truth.pop(address) == owner
            self.freed[address] = (owner, self.now)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def crash(self) -> None:
        cooling = dict(self.allocator.cooling)
        self.allocator = Allocator()
        self.own()
        for address, owner in self.truth.items():
            self.allocator.hold(address, owner)  # type: ignore[arg-type]
        self.allocator.cool(cooling)

    @invariant()
    def same(self) -> None:
        assert self.allocator.assigned == self.truth
        for block in self.allocator.blocks.values():
            counts = self.allocator.counts(block)
            assert counts.assigned == sum(a in block.cidr for a in self.allocator.assigned)
            assert counts.cooling == sum(a in block.cidr for a in self.allocator.cooling)
            empty = block in self.allocator.empty_blocks("main", self.now)
            assert empty == (self.allocator.counts(block).free == block.cidr.num_addresses)


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_oldest_cooled_first_and_fresh_before_cooled() -> None:
    node = Allocator()
    node.own([Block(ip_network("10.65.0.0/31"), "main", 60)])
    assert str(node.assign("main", 4, "a", 0)) == "10.65.0.0"
    assert str(node.assign("main", 4, "b", 0)) == "10.65.0.1"
    node.release("b", 10)
    node.release("a", 20)
    assert node.assign("main", 4, "c", 65) is None
    assert str(node.assign("main", 4, "c", 85)) == "10.65.0.1"
    assert node.take(ip_address("10.65.0.0"), "a", 21), "its old holder may have it at once"


def test_the_error_of_an_empty_pool_names_everything() -> None:
    node = Allocator()
    cidr = ip_network("10.65.0.0/31")
    node.own([Block(cidr, "main", 60)])
    node.assign("main", 4, "a", 0)
    node.assign("main", 4, "b", 0)
    node.release("b", 1)
    said = str(node.exhausted("main", cidr, "no block more"))
    for part in ("pool main", "10.65.0.0/31", "1 used", "0 free", "1 cooling", "no block more"):
        assert part in said


def test_what_is_reserved_is_given_to_nobody_and_not_counted_as_free() -> None:
    node = Allocator()
    cidr = ip_network("10.65.0.0/30")
    node.own([Block(cidr, "main", 60)])
    assert str(node.assign("main", 4, "a", 0)) == "10.65.0.0"
    node.own([Block(cidr, "main", 60)], Reserved({"gateways": [ip_network("10.65.0.0/31")]}))
    assert node.free("main", 4, 0) == 2
    counts = node.counts(node.blocks[cidr])
    assert (counts.assigned, counts.reserved, counts.free) == (1, 1, 2)
    assert node.assigned == {ip_address("10.65.0.0"): "a"}, "who has one keeps it"
    with pytest.raises(Conflict, match="reserved by IPReservation gateways"):
        node.take(ip_address("10.65.0.1"), "b", 0)
    given = [node.assign("main", 4, owner, 0) for owner in "bcd"]
    assert list(map(str, given)) == ["10.65.0.2", "10.65.0.3", "None"]
    node.release("a", 0)
    assert node.assign("main", 4, "d", 100) is None, "nor once it has cooled"
    assert "1 cooling, 1 reserved" in str(node.exhausted("main", cidr, "no block more"))


@pytest.mark.parametrize("promised", [True, False])
def test_what_is_promised_to_others_is_not_given(promised: bool) -> None:
    node = Allocator()
    node.own([Block(ip_network("10.65.0.0/31"), "main", 60)])
    keep = {ip_address("10.65.0.0")} if promised else set()
    given = node.assign("main", 4, "a", 0, keep=keep)
    assert str(given) == ("10.65.0.1" if promised else "10.65.0.0")
