"""One node of a history, as its agent would be: it claims blocks, assigns inside them by itself,
reports, gives back, and moves leased addresses. What was not answered is neither used nor
forgotten: it is asked for again, or looked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network

from api.ipam.allocator import Allocator, Block
from support.histories.asking import Asking, Document
from support.histories.leases import Leases
from support.histories.pools import FIXED, NARROW, POOLS, WIDE, Pool
from support.histories.record import ADDRESSES, FULL, GONE, NO, OK, THERE, UNKNOWN, UNSENT
from support.histories.web import Web

HELD_MOST = 4  # blocks of one pool
AT_ONCE = 16  # addresses of one workload
WORKLOADS_MOST = 12


@dataclass(slots=True)
class Attached:
    """`uid` of its report; "": not known."""

    addresses: list[IPv4Address]
    uid: str = ""


@dataclass
class Node:
    """`web` has the node's credentials, `operator` those of who makes leases and looks at all."""

    name: str
    nodes: int
    web: Web
    operator: Web
    asking: Asking
    chance: random.Random
    allocator: Allocator = field(default_factory=Allocator)
    blocks: dict[str, Document] = field(default_factory=dict)
    workloads: dict[str, Attached] = field(default_factory=dict)
    leaving: dict[str, Attached] = field(default_factory=dict)  # their reports are to go
    going: dict[tuple[str, str], str] = field(default_factory=dict)  # uid of what is to go
    in_doubt: bool = False  # a claim was not answered
    made: int = 0

    def __post_init__(self) -> None:
        self.leases = Leases(self)
        self.deeds: dict[Callable[[], object], int] = {
            self.attach: 40,
            self.detach: 40,
            self.claim: 6,
            self.give_back: 6,
            self.report: 3,
            self.look: 2,
            self.sweep: 1,
            self.look_at_another: 3,
            self.leases.make: 2,
            self.leases.end: 2,
            self.leases.move_here: 4,
        }

    def step(self) -> None:
        """One deed, after what is left of earlier ones."""
        if self.in_doubt:
            self.look()
        elif self.going and self.chance.random() < 0.7:
            (plural, name), uid = self.chance.choice(list(self.going.items()))
            self.end(plural, name, uid)
        else:
            (deed,) = self.chance.choices([*self.deeds], [*self.deeds.values()])
            deed()

    # -- blocks ------------------------------

    def of(self, pool: Pool) -> list[str]:
        return [name for name in self.blocks if name in pool.inside]

    def claim(self) -> None:
        pool = self.chance.choice((WIDE, NARROW))
        if len(self.of(pool)) < HELD_MOST:
            self.claimed({"pool": pool.name}, pool)

    def claimed(self, spec: dict[str, str], pool: Pool) -> None:
        document, invoked = {"spec": {"node": self.name, **spec}}, time.monotonic()
        outcome, made = self.asking.create(self.web, "ipblocks", document, pool=pool.name)
        if outcome == THERE:
            self.find(made, invoked)
        elif made:
            self.have(made)
        self.in_doubt |= outcome == UNKNOWN

    def have(self, document: Document) -> None:
        name = document["metadata"]["name"]
        self.going.pop(("ipblocks", name), None)  # that one is gone: here is another
        self.blocks[name] = document
        self.own()

    def find(self, document: Document, invoked: float) -> None:
        """A block is ours; if we did not know of it, the answer to its claim was lost."""
        name, uid = document["metadata"]["name"], document["metadata"]["uid"]
        if name not in self.blocks and self.going.get(("ipblocks", name)) != uid:
            self.asking.adopt("ipblocks", document, document["spec"]["pool"], invoked)
            self.have(document)

    def own(self) -> None:
        cidrs = [ip_network(one["spec"]["cidr"]) for one in self.blocks.values()]
        pools = [POOLS[one["spec"]["pool"]] for one in self.blocks.values()]
        self.allocator.own(
            Block(cidr, pool.name, float(pool.cooldown))
            for cidr, pool in zip(cidrs, pools, strict=True)
        )

    def look(self) -> None:
        """What the service says is ours."""
        invoked = time.monotonic()
        items = self.asking.list(self.web, "ipblocks", self.name)
        if items is None:
            return
        self.in_doubt = False
        for document in items:
            self.find(document, invoked)

    def report(self, name: str = "") -> bool:
        """How many addresses of a block are used and cool; whether the service knows."""
        if not self.blocks:
            return False
        name = name or self.chance.choice([*self.blocks])
        held = self.blocks[name]
        self.allocator.expire(time.monotonic())
        counts = self.allocator.counts(self.allocator.blocks[ip_network(held["spec"]["cidr"])])
        status = {**held["status"], "assigned": counts.assigned, "cooling": counts.cooling}
        if status == held["status"]:
            return True
        outcome, made = self.asking.report(self.web, "ipblocks", {**held, "status": status})
        if outcome == OK:
            self.blocks[name] = made
        elif outcome != GONE:  # perhaps at another revision by now
            now = self.asking.get(self.operator, "ipblocks", name)
            if now and now["metadata"]["uid"] == held["metadata"]["uid"]:
                self.blocks[name] = now
        return outcome == OK

    def give_back(self) -> None:
        """An empty block, once nothing in it is reported any more and the service knows that."""
        now = time.monotonic()
        known = {a for one in self.workloads.values() for a in one.addresses}
        known |= {a for one in self.leaving.values() for a in one.addresses}
        empty = [
            name
            for pool in POOLS
            for block in self.empty_blocks(pool, now)
            for name, held in self.blocks.items()
            if held["spec"]["cidr"] == str(block.cidr) and not known & set(block.cidr)
        ]
        if not empty:
            return
        name = self.chance.choice(empty)
        if self.report(name):
            held = self.blocks.pop(name)
            self.own()
            if self.end("ipblocks", name, held["metadata"]["uid"]) in (NO, UNSENT):
                self.have(held)

    def empty_blocks(self, pool: str, now: float) -> list[Block]:
        return self.allocator.empty_blocks(pool, now)

    def end(self, plural: str, name: str, uid: str) -> str:
        """Delete it. Without an answer nobody knows whose it is: it is asked again."""
        self.going[plural, name] = uid
        outcome = self.asking.delete(self.web_of(plural), plural, name, uid)
        if outcome in (OK, GONE):
            del self.going[plural, name]
            if plural == "workloads":
                del self.leaving[name]
        return outcome

    def web_of(self, plural: str) -> Web:
        return self.operator if plural == "addressleases" else self.web

    # -- workloads ------------------------------

    def attach(self) -> None:
        if len(self.workloads) < WORKLOADS_MOST:
            pool = self.chance.choice((WIDE, NARROW))
            if self.of(pool):
                self.assign(pool, self.chance.randint(1, AT_ONCE))
        else:
            self.detach()

    def next_name(self) -> str:
        self.made += 1
        return f"w{self.made}.{self.name}"

    def assign(self, pool: Pool, count: int) -> None:
        owner, given = self.next_name(), []
        for _ in range(count):
            now = time.monotonic()
            address = self.allocator.assign(pool.name, 4, owner, now)
            if address is None:
                self.asking.note("create", ADDRESSES, FULL, now, uid=owner, pool=pool.name)
                break
            self.assigned(str(address), owner, pool, now)
            given.append(IPv4Address(int(address)))
        if given:
            self.workloads[owner] = Attached(given)
            self.tell(owner)

    def attached(self, owner: str, addresses: list[str], pool: Pool, now: float) -> None:
        """Addresses that were asked for by name."""
        for address in addresses:
            self.assigned(address, owner, pool, now)
        self.workloads[owner] = Attached([*map(IPv4Address, addresses)])
        self.tell(owner)

    def assigned(self, address: str, owner: str, pool: Pool, now: float) -> None:
        self.asking.note(
            "create", ADDRESSES, OK, now, name=address, uid=owner, what=address, pool=pool.name
        )

    def tell(self, owner: str) -> None:
        """Report a workload."""
        addresses = [str(address) for address in self.workloads[owner].addresses]
        document = {
            "metadata": {"name": owner},
            "spec": {"node": self.name, "origin": "Node"},
            "status": {"phase": "Ready", "addresses": addresses},
        }
        invoked = time.monotonic()
        outcome, made = self.asking.create(self.web, "workloads", document, name=owner)
        if outcome == NO:  # perhaps it is there already
            made = self.asking.get(self.web, "workloads", owner) or {}
            if made:
                self.asking.adopt("workloads", made, "", invoked)
        if made:
            self.workloads[owner].uid = made["metadata"]["uid"]

    def detach(self) -> None:
        if not self.workloads:
            return
        owner = self.chance.choice([*self.workloads])
        held = self.workloads[owner]
        if not held.uid:
            self.tell(owner)
            return
        now = time.monotonic()
        if str(held.addresses[0]) in FIXED.addresses:
            self.allocator.forget(owner)  # leased: nobody else can have it
        else:
            self.allocator.release(owner, now)
        for address in held.addresses:
            self.asking.note("delete", ADDRESSES, OK, now, name=str(address), uid=owner)
        self.leaving[owner] = self.workloads.pop(owner)
        self.end("workloads", owner, held.uid)

    def sweep(self) -> None:
        """Reports that came to be after all, of what is not here any more."""
        invoked = time.monotonic()
        for document in self.asking.list(self.web, "workloads", self.name) or ():
            name, uid = document["metadata"]["name"], document["metadata"]["uid"]
            if name in self.workloads or self.going.get(("workloads", name)) == uid:
                continue
            self.asking.adopt("workloads", document, "", invoked)
            self.leaving[name] = Attached([*map(IPv4Address, document["status"]["addresses"])])
            self.end("workloads", name, uid)

    # -- others ------------------------------

    def look_at_another(self) -> None:
        if self.chance.random() < 0.2:
            pool = self.chance.choice((WIDE, NARROW, FIXED))
            self.asking.get(self.operator, "ipblocks", self.chance.choice([*pool.inside]))
        else:
            self.asking.get(self.operator, "addressleases", self.leases.anybodys())
