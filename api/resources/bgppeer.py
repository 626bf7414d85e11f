"""BGPPeer and BGPConfiguration: whom the nodes speak BGP with, and the defaults.

Field names are Calico's where the meaning is the same.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, InterfaceName, Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource
from api.resources.selectors import SelectorText

MAX_ASN = 4_294_967_294


class BGPPeerSpec(Model):
    """One peering of every node that `node` or `nodeSelector` names.

    Times are seconds. `hold_time` is 0 (no keepalives) or at least 3 (RFC 4271, 4.2);
    `keepalive_time` defaults to a third of it. `ttl_security` is the number of hops the peer may
    be away (GTSM, RFC 5082); `password_file` is a path on the node, mode 0600, read by the
    speaker (TCP MD5, RFC 2385). `import_default` lets the default route in.
    `num_allowed_local_as_numbers` is how often our own AS may stand in a received path.
    """

    node: DNSSubdomain | None = None
    node_selector: SelectorText = "all()"
    peer_ip: Address = Field(alias="peerIP")
    as_number: int = Field(ge=1, le=MAX_ASN)
    local_as_number: int | None = Field(default=None, alias="localASNumber", ge=1, le=MAX_ASN)
    source_address: Address | None = None
    interface: InterfaceName | None = None
    hold_time: int = Field(default=9, ge=0, le=65_535)
    keepalive_time: int | None = Field(default=None, ge=0, le=21_845)
    graceful_restart_time: int = Field(default=120, ge=0, le=4095)
    ttl_security: int | None = Field(default=None, ge=1, le=254)
    password_file: str | None = Field(default=None, pattern="^/.*")
    import_default: bool = False
    num_allowed_local_as_numbers: int = Field(
        default=0, alias="numAllowedLocalASNumbers", ge=0, le=10
    )
    max_prefixes: int | None = Field(default=None, ge=1)
    filters: list[DNSSubdomain] = Field(default_factory=list)
    bfd: bool = False

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        if self.hold_time in (1, 2):
            found.append(
                Cause("spec.holdTime", "must be 0 or at least 3 seconds (RFC 4271, section 4.2)")
            )
        if (
            self.keepalive_time is not None
            and self.hold_time
            and (self.keepalive_time * 3 > self.hold_time or self.keepalive_time == 0)
        ):
            found.append(
                Cause("spec.keepaliveTime", f"must be 1 to a third of holdTime {self.hold_time}")
            )
        if self.source_address and self.source_address.version != self.peer_ip.version:
            found.append(
                Cause("spec.sourceAddress", f"must be IPv{self.peer_ip.version} as peerIP is")
            )
        if self.peer_ip.is_multicast or self.peer_ip.is_unspecified or self.peer_ip.is_loopback:
            found.append(Cause("spec.peerIP", f"{self.peer_ip} is not a host's address"))
        return found


@resource(
    "bgppeers",
    short=("peer", "peers"),
    columns=(
        Column("PEER", "spec.peerIP"),
        Column("ASN", "spec.asNumber"),
        Column("NODES", "spec.nodeSelector"),
        Column("HOLD", "spec.holdTime", 1),
        Column("DEFAULT", "spec.importDefault", 1),
    ),
)
class BGPPeer(Resource):
    KIND: ClassVar[str] = "BGPPeer"

    kind: str = Field(default="BGPPeer", pattern="^BGPPeer$")
    spec: BGPPeerSpec
    status: Status = Field(default_factory=Status)


class BGPConfigurationSpec(Model):
    """Defaults for all nodes; the object is called ``default``.

    `as_number_range` is where nodes without `asNumber` get theirs: private 4-byte ASNs
    (RFC 6996) unless said otherwise. `communities` (``65000:100`` or ``65000:1:2``) go on every
    announcement.
    """

    as_number_range: str = Field(default="4200000000-4294967294", pattern=r"^\d{1,10}-\d{1,10}$")
    communities: list[str] = Field(default_factory=list)

    def asn_range(self) -> range:
        first, _, last = self.as_number_range.partition("-")
        return range(int(first), int(last) + 1)

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        numbers = self.asn_range()
        if not len(numbers) or numbers[0] < 1 or numbers[-1] > MAX_ASN:
            found.append(
                Cause(
                    "spec.asNumberRange",
                    f"{self.as_number_range!r} must be FIRST-LAST within 1-{MAX_ASN}",
                )
            )
        for index, text in enumerate(self.communities):
            parts = text.split(":")
            limit = {2: 0xFFFF, 3: 0xFFFF_FFFF}.get(len(parts), -1)
            if not all(part.isascii() and part.isdigit() and int(part) <= limit for part in parts):
                found.append(
                    Cause(
                        f"spec.communities[{index}]",
                        f"{text!r} is neither ASN:VALUE (RFC 1997) nor ASN:A:B (RFC 8092)",
                    )
                )
        return found


@resource(
    "bgpconfigurations",
    short=("bgpconfig",),
    columns=(Column("ASNS", "spec.asNumberRange"), Column("COMMUNITIES", "spec.communities", 1)),
)
class BGPConfiguration(Resource):
    KIND: ClassVar[str] = "BGPConfiguration"

    kind: str = Field(default="BGPConfiguration", pattern="^BGPConfiguration$")
    spec: BGPConfigurationSpec = Field(default_factory=BGPConfigurationSpec)
    status: Status = Field(default_factory=Status)
