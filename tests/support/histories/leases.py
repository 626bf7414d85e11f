"""The leases of one node of a history, and moving those of all nodes to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from api.resources.errors import Conflict
from support.histories.pools import FIXED
from support.histories.record import NO, UNKNOWN, UNSENT

if TYPE_CHECKING:
    from support.histories.node import Node

PLURAL = "addressleases"
LEASES = 2  # of one node


@dataclass
class Leases:
    """`held` are those that it has made, their uid by name."""

    node: Node
    held: dict[str, str] = field(default_factory=dict)

    def anybodys(self) -> str:
        chance = self.node.chance
        return f"l{chance.randrange(LEASES)}.n{chance.randrange(self.node.nodes)}"

    def make(self) -> None:
        node = self.node
        name = f"l{node.chance.randrange(LEASES)}.{node.name}"
        if name in self.held or (PLURAL, name) in node.going:
            return
        document = {"metadata": {"name": name}, "spec": {"pool": FIXED.name}}
        invoked = time.monotonic()
        outcome, made = node.asking.create(
            node.operator, PLURAL, document, pool=FIXED.name, name=name
        )
        if outcome == NO:  # perhaps it is there already
            made = node.asking.get(node.operator, PLURAL, name) or {}
            if made:
                node.asking.adopt(PLURAL, made, FIXED.name, invoked)
        if made:
            self.held[name] = made["metadata"]["uid"]

    def end(self) -> None:
        if not self.held:
            return
        name = self.node.chance.choice([*self.held])
        uid = self.held[name]
        outcome = self.node.asking.delete(self.node.operator, PLURAL, name, uid)
        if outcome not in (NO, UNSENT):  # else a node has its address
            del self.held[name]
        if outcome == UNKNOWN:
            self.node.going[PLURAL, name] = uid

    def move_here(self) -> None:
        """Take the address of somebody's lease, if no other node has it just now."""
        node, name = self.node, self.anybodys()
        lease = node.asking.get(node.operator, PLURAL, name)
        if not lease:
            return
        address = lease["spec"]["address"]
        block = next(one for one, inside in FIXED.inside.items() if address in inside)
        if block not in node.blocks:
            node.claimed({"address": address, "lease": name}, FIXED)
        if block in node.blocks:
            owner, now = node.next_name(), time.monotonic()
            try:
                node.allocator.take(IPv4Address(address), owner, now)
            except Conflict:
                return
            node.attached(owner, [address], FIXED, now)
