"""BGPPeer and BGPConfiguration: whom the nodes speak BGP with, and the defaults.

Field names are Calico's where the meaning is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, InterfaceName, Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource
from api.resources.selectors import SelectorText, parse
from api.resources.workload import IPFamily

MAX_ASN = 4_294_967_294


class BGPPeerSpec(Model):
    """One peering of every node that `node` or `nodeSelector` names.

    Times are seconds. `hold_time` is 0 (no keepalives) or at least 3 (RFC 4271, 4.2);
    `keepalive_time` defaults to a third of it. `ttl_security` is the number of hops the peer may
    be away (GTSM, RFC 5082); `password_file` is a path on the node, mode 0600, read by the
    speaker (TCP MD5, RFC 2385). `import_default` lets the default route in.
    `num_allowed_local_as_numbers` is how often our own AS may stand in a received path.
    `ip_families` are those that one session carries; two peers of a node differ in `peer_ip`.
    """

    def versions(self) -> tuple[int, ...]:
        """The versions of IP that the session carries."""
        return tuple(one.version for one in self.ip_families) or (self.peer_ip.version,)

    node: DNSSubdomain | None = None
    """The one node that holds the session; instead of nodeSelector."""
    node_selector: SelectorText = "all()"
    """The nodes that hold a session each."""
    peer_ip: Address = Field(alias="peerIP")
    """The switch's address."""
    as_number: int = Field(ge=1, le=MAX_ASN)
    """The switch's autonomous system."""
    local_as_number: int | None = Field(default=None, alias="localASNumber", ge=1, le=MAX_ASN)
    """What the node calls itself to this peer, instead of its own ASN."""
    source_address: Address | None = None
    """Ours, of the same family as peerIP."""
    interface: InterfaceName | None = None
    """The link that the peer is on; needed where peerIP is link-local."""
    ip_families: list[IPFamily] = Field(default_factory=list, max_length=2)
    """What the session carries: IPv4, IPv6 or both; that of peerIP by default. IPv4 in a session
    over IPv6 has an IPv6 next hop where the peer takes it (RFC 8950)."""
    hold_time: int = Field(default=9, ge=0, le=65_535)
    """Seconds without a word until the session is over: 0, or at least 3 (RFC 4271, section
    4.2)."""
    keepalive_time: int | None = Field(default=None, ge=0, le=21_845)
    """Seconds between keepalives: a third of holdTime by default."""
    graceful_restart_time: int = Field(default=120, ge=0, le=4095)
    """Seconds that routes outlive a session that ended (RFC 4724)."""
    ttl_security: int | None = Field(default=None, ge=1, le=254)
    """How many hops the peer may be away (RFC 5082)."""
    password_file: str | None = Field(default=None, pattern="^/.*")
    """A file on the node, mode 0600, with the TCP MD5 secret (RFC 2385)."""
    import_default: bool = False
    """Use the peer's default route, behind any other that the host has (metric 2048)."""
    num_allowed_local_as_numbers: int = Field(
        default=0, alias="numAllowedLocalASNumbers", ge=0, le=10
    )
    """How often our own AS may be in the path of what the peer says."""
    max_prefixes: int | None = Field(default=None, ge=1)
    """Of more routes than these the others are not used."""
    filters: list[DNSSubdomain] = Field(default_factory=list)
    """Import and export rules, in order, by name. Not in effect yet."""
    bfd: bool = False
    """Watch the path by BFD. Not in effect yet."""

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
        own = IPFamily.IPV4 if self.peer_ip.version == 4 else IPFamily.IPV6
        if len(set(self.ip_families)) != len(self.ip_families):
            found.append(Cause("spec.ipFamilies", "names a family twice"))
        elif self.ip_families and own not in self.ip_families:
            said = f"must have {own}, the family of peerIP; others beside it if wanted"
            found.append(Cause("spec.ipFamilies", said))
        if self.peer_ip.version == 6 and self.peer_ip.is_link_local and self.interface is None:
            said = f"is needed: {self.peer_ip} is link-local, there is one on every link"
            found.append(Cause("spec.interface", said))
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
    """A switch (or another router) that nodes hold a BGP session with."""

    KIND: ClassVar[str] = "BGPPeer"

    kind: str = Field(default="BGPPeer", pattern="^BGPPeer$")
    spec: BGPPeerSpec
    """Whom to speak with, and how."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""

    def selects(self, node: str, labels: Mapping[str, str]) -> bool:
        """Whether the node called so, with these labels, is to have the session."""
        if self.spec.node is not None:
            return self.spec.node == node
        return parse(self.spec.node_selector).matches(labels)


class BGPConfigurationSpec(Model):
    """Defaults for all nodes; the object is called ``default``.

    `as_number_range` is where nodes without `asNumber` get theirs: private 4-byte ASNs
    (RFC 6996) unless said otherwise. `communities` (``65000:100`` or ``65000:1:2``) go on every
    announcement.
    """

    as_number_range: str = Field(default="4200000000-4294967294", pattern=r"^\d{1,10}-\d{1,10}$")
    """FIRST-LAST, where nodes without asNumber get theirs: private four-byte ASNs by default (RFC
    6996)."""
    communities: list[str] = Field(default_factory=list)
    """On every announcement: ASN:VALUE (RFC 1997) or ASN:A:B (RFC 8092)."""

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
    """Defaults of all nodes; there is one, called default."""

    KIND: ClassVar[str] = "BGPConfiguration"

    kind: str = Field(default="BGPConfiguration", pattern="^BGPConfiguration$")
    spec: BGPConfigurationSpec = Field(default_factory=BGPConfigurationSpec)
    """Defaults of all nodes."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""
