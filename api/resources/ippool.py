"""IPPool and IPBlock: where addresses come from and which node owns which of them.

A pool is a CIDR cut into aligned blocks of `blockSize`; a block belongs to one node at a time,
and only that node assigns inside it (DESIGN, invariant 1).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from api.resources.errors import Cause
from api.resources.meta import API_GROUP, DNSSubdomain, Model, Resource, Status
from api.resources.net import Address, Cidr, reserved_overlap
from api.resources.registry import Column, resource
from api.resources.selectors import SelectorText

# An annotation on a block: the operator's statement that its node is off for good. Whoever deletes
# the block then takes it; a deletion that has the statement itself leaves none behind.
FORCE_RELEASE = f"{API_GROUP}/force-release"
# annotations on a block that was so taken from its owner, written for the next one: what they begin
# with, and what of
RECLAIMED = f"{API_GROUP}/reclaimed-"
FORCED = ("from", "by", "statement")


class Allocation(StrEnum):
    AUTOMATIC = "Automatic"
    FIXED = "Fixed"
    ANYCAST = "Anycast"


class Encapsulation(StrEnum):
    NEVER = "Never"
    CROSS_SUBNET = "CrossSubnet"
    ALWAYS = "Always"


class Announce(StrEnum):
    HOSTS = "Hosts"
    BLOCKS = "Blocks"
    BOTH = "Both"


class IPPoolSpec(Model):
    """`block_size` is a prefix length: default 26 (v4) and 122 (v6); /32, /128 in a Fixed pool."""

    cidr: Cidr
    """The prefix. Pools never overlap, nor do they touch reserved ranges. Immutable."""
    block_size: int = Field(default=0, ge=0, le=128)
    """Length of the prefix of a block: 26 (IPv4) or 122 (IPv6) by default; 32 or 128 in a Fixed
    pool. Immutable."""
    allocation: Allocation = Allocation.AUTOMATIC
    """Automatic: nodes assign from it by themselves. Fixed: blocks are single addresses, which have
    to be asked for. Anycast: no blocks. Immutable."""
    node_selector: SelectorText = "all()"
    """The nodes that use it by themselves."""
    disabled: bool = False
    """Nothing new is assigned from it; its empty blocks go back."""
    nat_outgoing: bool = False
    """What leaves for an address outside every pool gets the address of its host's link that it
    leaves by. Between pools nothing is translated."""
    encapsulation: Encapsulation = Encapsulation.NEVER
    """Whether packets between hosts are put into VXLAN. Not in effect yet."""
    announce: Announce = Announce.HOSTS
    """Hosts: each address by itself. Blocks: the blocks. Both."""
    cooldown_seconds: int = Field(default=60, ge=0, le=86_400)
    """For so long nobody else gets an address that was freed."""

    @model_validator(mode="before")
    @classmethod
    def _default_block_size(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("blockSize", data.get("block_size")) is not None:
            return data
        six = ":" in str(data.get("cidr", ""))
        fixed = data.get("allocation") == Allocation.FIXED
        size = (128 if six else 32) if fixed else (122 if six else 26)
        return {**data, "blockSize": size}

    def causes(self) -> list[Cause]:
        """Cross-field rules; every violation at once."""
        found: list[Cause] = []
        bits = self.cidr.max_prefixlen
        low = 20 if bits == 32 else 112
        if (reserved := reserved_overlap(self.cidr)) is not None:
            found.append(Cause("spec.cidr", f"{self.cidr} overlaps the reserved range {reserved}"))
        if self.allocation is Allocation.FIXED:
            if self.block_size != bits:
                found.append(
                    Cause("spec.blockSize", f"must be {bits} in a pool with allocation Fixed")
                )
        elif self.block_size < self.cidr.prefixlen:
            found.append(
                Cause(
                    "spec.blockSize",
                    f"pool {self.cidr} is smaller than one block of /{self.block_size}; "
                    f"at least {self.cidr.prefixlen} would fit",
                )
            )
        elif not low <= self.block_size <= bits:
            found.append(
                Cause(
                    "spec.blockSize",
                    f"must be {low} to {bits} for {self.cidr}, not {self.block_size}",
                )
            )
        return found


class IPPoolStatus(Status):
    pass


@resource(
    "ippools",
    short=("pool", "pools"),
    columns=(
        Column("CIDR", "spec.cidr"),
        Column("BLOCK", "spec.blockSize"),
        Column("ALLOCATION", "spec.allocation"),
        Column("DISABLED", "spec.disabled"),
        Column("SELECTOR", "spec.nodeSelector", 1),
        Column("ANNOUNCE", "spec.announce", 1),
    ),
    immutable=("spec.cidr", "spec.blockSize", "spec.allocation"),
)
class IPPool(Resource):
    """A prefix that addresses of workloads are of, cut into blocks that nodes own."""

    KIND: ClassVar[str] = "IPPool"

    kind: str = Field(default="IPPool", pattern="^IPPool$")
    spec: IPPoolSpec
    """What it is to be."""
    status: IPPoolStatus = Field(default_factory=IPPoolStatus)
    """Nothing yet."""


class IPBlockSpec(Model):
    """`cidr` and `pool` may be left out by whoever claims: the service chooses (lowest free), or,
    with `address`, takes the block that holds it; a leased one only for who names its `lease`.
    `epoch` is the service's: greater with every claim, and a write that names an earlier one is
    refused."""

    cidr: Cidr | None = None
    """The block. Left out by who claims: the service chooses."""
    pool: DNSSubdomain | Literal[""] = ""
    """The pool that it is a part of."""
    node: DNSSubdomain
    """The one node that assigns inside it."""
    epoch: int = Field(default=1, ge=1)
    """Tells its owners, one after the other, apart: the revision of the store at the claim, so that
    every claim has a greater one. Of no consequence in a claim; immutable."""
    address: Address | None = None
    """Claim the block that holds this address."""
    lease: DNSSubdomain | Literal[""] = ""
    """The AddressLease that the claimed address is of."""

    @model_validator(mode="after")
    def _something_to_claim(self) -> Self:
        if self.cidr is None and self.address is None and not self.pool:
            raise ValueError("one of cidr, address and pool must say what to claim")
        return self


class IPBlockStatus(Status):
    """What the owner last reported; `assigned` and `cooling` count addresses."""

    assigned: int = Field(default=0, ge=0, le=1 << 32)
    """How many of its addresses workloads have."""
    cooling: int = Field(default=0, ge=0, le=1 << 32)
    """How many were freed not long ago."""


@resource(
    "ipblocks",
    short=("block", "blocks"),
    columns=(
        Column("CIDR", "spec.cidr"),
        Column("POOL", "spec.pool"),
        Column("NODE", "spec.node"),
        Column("ASSIGNED", "status.assigned", 1),
        Column("COOLING", "status.cooling", 1),
        Column("EPOCH", "spec.epoch", 1),
    ),
    selectable=("spec.node", "spec.pool"),
    immutable=("spec.cidr", "spec.pool", "spec.node", "spec.epoch"),
    kept=("epoch",),
)
class IPBlock(Resource):
    """A part of a pool that one node owns: only it assigns inside. Nodes claim blocks and give them
    back by themselves; who deletes one asks its owner for it."""

    KIND: ClassVar[str] = "IPBlock"

    kind: str = Field(default="IPBlock", pattern="^IPBlock$")
    spec: IPBlockSpec
    """Which block it is, and whose."""
    status: IPBlockStatus = Field(default_factory=IPBlockStatus)
    """How much of it is used, as its owner said last."""
