"""Never two owners: random histories of a service and three nodes, through the real decisions.

Pools are made and deleted, blocks claimed (by pool, by address) and given back, addresses assigned,
asked for, freed; agents crash and come back with what survives, hosts boot with a clock of their
own. A model that knows nothing of blocks' numbers, free lists or cool-downs judges every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.ipam import blocks
from api.ipam.allocator import Allocator, Block, Cooling
from api.ipam.space import Held, Space
from api.resources import IPBlock, IPPool
from api.resources.decode import decode
from api.resources.errors import Conflict, Invalid, PoolExhausted
from api.resources.net import IPAddress, IPNetwork, parse_address
from api.resources.registry import KINDS

# Small, so that they fill up; some overlap each other, some are never to be pools.
POOLS: list[dict[str, Any]] = [
    {"cidr": "10.65.0.0/28", "blockSize": 30},
    {"cidr": "10.65.0.0/29", "blockSize": 31, "cooldownSeconds": 30},
    {"cidr": "10.65.0.16/29", "blockSize": 31},
    {"cidr": "10.65.0.24/30", "allocation": "Fixed"},
    {"cidr": "fd00::/124", "blockSize": 126},
    {"cidr": "fd00::8/125", "blockSize": 127, "cooldownSeconds": 0},
    {"cidr": "fd00::10/126", "allocation": "Fixed"},
    {"cidr": "127.0.0.0/28", "blockSize": 30},
    {"cidr": "169.254.7.0/28", "blockSize": 30},
    {"cidr": "0.0.0.0/0", "blockSize": 26},
    {"cidr": "fe80::/120", "blockSize": 126},
    {"cidr": "::ffff:0:0/120", "blockSize": 126},
]
NEVER = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
]
RESERVED = [
    "10.65.0.0/30",
    "10.65.0.2/31",
    "10.65.0.8/29",
    "10.65.0.17/32",
    "10.65.0.0/24",
    "10.65.0.25/32",
    "fd00::/127",
    "fd00::8/126",
    "fd00::12/128",
    "192.0.2.0/24",
]
ADDRESSES = [f"10.65.0.{n}" for n in range(30)] + [f"fd00::{n:x}" for n in range(0x14)]
NODES = ("h1", "h2", "h3")
T = TypeVar("T")


@dataclass
class Host:
    """One node; `saved` is what its agent has written down of what cools."""

    name: str
    allocator: Allocator = field(default_factory=Allocator)
    saved: dict[IPAddress, Cooling] = field(default_factory=dict)
    clock: float = 0.0  # of its boot


class Cluster(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.space = Space()
        self.hosts = {name: Host(name) for name in NODES}
        self.time = 0.0
        self.count = 0
        # the model
        self.pools: dict[str, IPNetwork] = {}
        self.owners: dict[IPNetwork, str] = {}
        self.holders: dict[IPAddress, tuple[str, str]] = {}  # node, workload
        self.reserved: dict[str, list[IPNetwork]] = {}
        self.freed: dict[IPAddress, tuple[str, float, float]] = {}  # workload, when, cool-down

    def pick(self, data: st.DataObject, among: list[T], of: Callable[[T], IPNetwork]) -> T:
        """One of them, most likely one that holds an address which was freed not long ago."""
        warm = [
            one
            for one in among
            if any(a in of(one) and self.time - when < 60 for a, (_, when, _) in self.freed.items())
        ]
        return data.draw(st.sampled_from([*among, *warm * 3]))

    # -- the service ------------------------------

    @precondition(lambda self: len(self.pools) < 4)
    @rule(number=st.integers(0, len(POOLS) - 1))
    def make_pool(self, number: int) -> None:
        name, spec = f"p{number}", POOLS[number]
        if name in self.pools:
            return
        cidr = ip_network(spec["cidr"])
        bad = [*NEVER, *self.pools.values()]
        allowed = not any(cidr.version == other.version and cidr.overlaps(other) for other in bad)
        try:
            pool = decode(KINDS["ippools"], {"metadata": {"name": name}, "spec": spec})
        except Invalid:
            assert not allowed
            return
        assert isinstance(pool, IPPool)
        assert (blocks.overlapping(cidr, self.space.pools.values(), name) is None) is allowed
        if allowed:
            self.pools[name] = cidr
            self.space.set_pool(name, pool)

    @precondition(lambda self: self.pools)
    @rule(data=st.data())
    def delete_pool(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pools)))
        inside = [cidr for cidr in self.owners if self.within(cidr, self.pools[name])]
        assert self.space.owned(name) == len(inside)
        if not inside:
            del self.pools[name]
            self.space.set_pool(name, None)

    @rule(
        name=st.sampled_from(["r1", "r2"]),
        texts=st.lists(st.sampled_from(RESERVED), min_size=1, max_size=3, unique=True),
    )
    def reserve(self, name: str, texts: list[str]) -> None:
        self.reserved[name] = [ip_network(text) for text in texts]
        self.space.set_reservation(name, tuple(self.reserved[name]))
        for node in NODES:
            self.own(node)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def reserve_no_more(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.reserved)))
        del self.reserved[name]
        self.space.set_reservation(name, None)
        for node in NODES:
            self.own(node)

    def is_reserved(self, address: IPAddress) -> bool:
        return any(address in cidr for cidrs in self.reserved.values() for cidr in cidrs)

    @precondition(lambda self: self.pools)
    @rule(data=st.data(), node=st.sampled_from(NODES))
    def claim_of_pool(self, data: st.DataObject, node: str) -> None:
        name = self.pick(data, sorted(self.pools), lambda name: self.pools[name])
        pool = self.space.pools[name]
        all_blocks = list(pool.spec.cidr.subnets(new_prefix=pool.spec.block_size))
        free = [
            cidr
            for cidr in all_blocks
            if cidr not in self.owners and not all(map(self.is_reserved, cidr))
        ]
        try:
            cidr = self.claimed(node, pool=name)
        except PoolExhausted:
            assert not free
        else:
            assert cidr == free[0], "the lowest"
            self.given(cidr, node)

    @rule(text=st.sampled_from(ADDRESSES), node=st.sampled_from(NODES))
    def claim_of_address(self, text: str, node: str) -> None:
        address = parse_address(text)
        owner = next((who for cidr, who in self.owners.items() if address in cidr), None)
        try:
            cidr = self.claimed(node, address=text)
        except Conflict as error:
            if not self.is_reserved(address):
                assert owner not in (None, node)
                assert f"node {owner}" in str(error)
        except Invalid:
            assert not any(address in pool for pool in self.pools.values())
        else:
            assert address in cidr
            if self.owners.get(cidr) != node:
                self.given(cidr, node)

    def claimed(self, node: str, **spec: str) -> IPNetwork:
        document = {"metadata": {"name": "claim"}, "spec": {"node": node, **spec}}
        wanted = decode(KINDS["ipblocks"], document)
        assert isinstance(wanted, IPBlock)
        cidr, pool = blocks.claim(wanted, self.space, {})
        self.space.set_block(blocks.block_name(cidr), Held(cidr, pool, node))
        return cidr

    def given(self, cidr: IPNetwork, node: str) -> None:
        assert not any(
            cidr.version == other.version and cidr.overlaps(other) for other in self.owners
        ), f"{cidr} has two owners"
        self.owners[cidr] = node
        self.own(node)

    # -- the nodes ------------------------------

    def own(self, node: str) -> None:
        mine = [held for held in self.space.blocks.values() if held.node == node]
        self.hosts[node].allocator.own(
            [Block(held.cidr, held.pool, float(self.cooldown(held.pool))) for held in mine],
            self.space.reserved,
        )

    def cooldown(self, pool: str) -> int:
        return self.space.pools[pool].spec.cooldown_seconds

    def now(self, host: Host) -> float:
        """Monotonic: from the host's boot on."""
        return self.time - host.clock

    @rule(node=st.sampled_from(NODES), data=st.data())
    def give_back(self, node: str, data: st.DataObject) -> None:
        """The agent gives back what is empty of what it owns."""
        host = self.hosts[node]
        spare = [
            block
            for pool in sorted(self.pools)
            for block in host.allocator.empty_blocks(pool, self.now(host))
        ]
        if not spare:
            return
        cidr = self.pick(data, spare, lambda block: block.cidr).cidr
        assert not any(address in cidr for address in self.holders), f"{cidr} is in use"
        self.space.set_block(blocks.block_name(cidr), None)
        del self.owners[cidr]
        self.own(node)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        cidr = self.pick(data, sorted(self.owners, key=str), lambda cidr: cidr)
        node, owner = self.owners[cidr], self.fresh_name()
        host = self.hosts[node]
        name = next(name for name, pool in self.pools.items() if self.within(cidr, pool))
        version, now = self.pools[name].version, self.now(host)
        room = host.allocator.free(name, version, now)
        address = host.allocator.assign(name, version, owner, now)
        assert (address is None) == (room == 0)
        if address is not None:
            self.held(address, node, owner)

    @precondition(lambda self: self.owners)
    @rule(again=st.booleans(), data=st.data())
    def ask_for(self, again: bool, data: st.DataObject) -> None:
        """An address by name, perhaps by who had it last."""
        cidr = self.pick(data, sorted(self.owners, key=str), lambda cidr: cidr)
        node = self.owners[cidr]
        host = self.hosts[node]
        address = data.draw(st.sampled_from(list(cidr)))
        last = self.freed.get(address)
        owner = last[0] if again and last else self.fresh_name()
        try:
            host.allocator.take(address, owner, self.now(host))
        except Conflict:
            assert address in self.holders or last or self.is_reserved(address)
        else:
            self.held(address, node, owner)

    def held(self, address: IPAddress, node: str, owner: str) -> None:
        assert address not in self.holders, f"{address} has two holders"
        assert not self.is_reserved(address), f"{address} is nobody's"
        assert any(address in cidr and who == node for cidr, who in self.owners.items())
        if address in self.freed:
            last, when, cooldown = self.freed.pop(address)
            assert owner == last or self.time - when >= cooldown, f"{address} is still warm"
        self.holders[address] = (node, owner)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        node, owner = data.draw(st.sampled_from(sorted(set(self.holders.values()))))
        host = self.hosts[node]
        for address in host.allocator.release(owner, self.now(host)):
            self.gone(address)
        host.saved = dict(host.allocator.cooling)

    def gone(self, address: IPAddress) -> None:
        _, owner = self.holders.pop(address)
        pool = self.space.pool_of(address)
        assert pool is not None
        self.freed[address] = (owner, self.time, float(pool.spec.cooldown_seconds))

    @rule(seconds=st.sampled_from([0.5, 29.0, 31.0, 59.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule(node=st.sampled_from(NODES))
    def agent_dies(self, node: str) -> None:
        """Its successor has the records of what is attached, and what was saved of what cools."""
        host = self.hosts[node]
        host.allocator = Allocator()
        self.own(node)
        mine = {address: who for address, (at, who) in self.holders.items() if at == node}
        for address, owner in mine.items():
            host.allocator.hold(address, owner)
        host.allocator.cool(host.saved)
        host.saved = dict(host.allocator.cooling)

    @rule(node=st.sampled_from(NODES))
    def host_boots(self, node: str) -> None:
        """Its workloads are gone, and what was saved of what cools; what the service has reports
        of cools once. The clock begins anew. Of what was cooling nothing is known any more: a boot
        takes at least as long as that (ADR 1, R4)."""
        host = self.hosts[node]
        reported = {a: who for a, (at, who) in self.holders.items() if at == node}
        for address in reported:
            self.gone(address)
        self.time += 60.0
        host.clock = self.time
        host.allocator = Allocator()
        self.own(node)
        now = self.now(host)
        host.allocator.cool({address: Cooling(who, now) for address, who in reported.items()})
        host.saved = dict(host.allocator.cooling)

    # -- what always holds ------------------------------

    @invariant()
    def service_and_model_agree(self) -> None:
        assert {h.cidr: h.node for h in self.space.blocks.values()} == self.owners
        for name, cidr in self.pools.items():
            inside = [block for block in self.owners if self.within(block, cidr)]
            assert self.space.owned(name) == len(inside)

    @invariant()
    def nodes_and_model_agree(self) -> None:
        known = {
            address: (host.name, owner)
            for host in self.hosts.values()
            for address, owner in host.allocator.assigned.items()
        }
        assert known == self.holders

    @staticmethod
    def within(cidr: IPNetwork, pool: IPNetwork) -> bool:
        return cidr.version == pool.version and pool.supernet_of(cidr)  # type: ignore[arg-type]

    def fresh_name(self) -> str:
        self.count += 1
        return f"w{self.count}"


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
