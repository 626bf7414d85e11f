"""The pools of these histories: small, so that they fill up, and all is used again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from api.ipam.space import block_name


@dataclass(frozen=True)
class Pool:
    """`cooldown` is in seconds."""

    name: str
    cidr: str
    block_size: int
    cooldown: int = 0
    fixed: bool = False

    def document(self) -> dict[str, Any]:
        spec = {"cidr": self.cidr, "blockSize": self.block_size, "cooldownSeconds": self.cooldown}
        kind = {"allocation": "Fixed"} if self.fixed else {}
        return {"metadata": {"name": self.name}, "spec": spec | kind}

    @cached_property
    def inside(self) -> dict[str, tuple[str, ...]]:
        """The addresses of each block."""
        blocks = ip_network(self.cidr).subnets(new_prefix=self.block_size)
        return {block_name(block): tuple(map(str, block)) for block in blocks}

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for block in self.inside.values() for address in block)

    @cached_property
    def subjects(self) -> list[tuple[str, ...]]:
        """What is given out, each under the names by which it may be owned: a block, or in a
        Fixed pool an address and its block."""
        if self.fixed:
            return [(addresses[0], block) for block, addresses in self.inside.items()]
        return [(block,) for block in self.inside]


WIDE = Pool("wide", "10.8.0.0/20", 26, cooldown=1)  # 64 blocks of 64 addresses
NARROW = Pool("narrow", "10.10.0.0/26", 30)  # 16 blocks of 4
FIXED = Pool("fixed", "10.11.0.0/28", 32, fixed=True)
POOLS: Mapping[str, Pool] = {pool.name: pool for pool in (WIDE, NARROW, FIXED)}
