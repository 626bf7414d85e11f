"""The lab's fabric as a value: who is there, under which name, number and address.

    client --- tor1 ---+--- host1 (agent, speaker, workloads)
          \\--- tor2 -.-/ \\--- host2
    management: a bridge with the control plane (.1) and every host (.11, .12, ...)

A ToR is a router with one subnet for its hosts (172.31.T.0/24, .1 is the ToR) on a bridge, as a
rack's switch has on an SVI; a client subnet hangs off each ToR (172.29.T.0/24). IPv6 is the same,
with fd00:31:T::/64 and fd00:29:T::/64, and the same numbers of hosts. A lab has one of the two
families of IP or both on every link; in one with IPv6 alone no link has an IPv4 address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from api.resources.errors import Cause, ConfigError

MAX_HOSTS, MAX_TORS = 50, 8
BOTH = (4, 6)  # versions of IP


class Family(StrEnum):
    """The value of `--family`."""

    BOTH = "both"
    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def versions(self) -> tuple[int, ...]:
        return {"both": BOTH, "ipv4": (4,), "ipv6": (6,)}[self.value]


@dataclass(frozen=True, slots=True)
class Tor:
    number: int
    namespace: str

    @property
    def as_number(self) -> int:
        return 65_000 + self.number

    @property
    def address(self) -> str:
        return f"172.31.{self.number}.1"

    @property
    def subnet(self) -> str:
        return f"172.31.{self.number}.0/24"

    @property
    def client_side(self) -> str:
        return f"172.29.{self.number}.1"

    @property
    def address6(self) -> str:
        return f"fd00:31:{self.number}::1"

    @property
    def subnet6(self) -> str:
        return f"fd00:31:{self.number}::/64"

    @property
    def client_side6(self) -> str:
        return f"fd00:29:{self.number}::1"


@dataclass(frozen=True, slots=True)
class Host:
    number: int
    namespace: str

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def management(self) -> str:
        return f"172.30.0.{10 + self.number}"

    @property
    def management6(self) -> str:
        return f"fd00:30::{10 + self.number}"

    def address(self, tor: Tor) -> str:
        return f"172.31.{tor.number}.{10 + self.number}"

    def address6(self, tor: Tor) -> str:
        return f"fd00:31:{tor.number}::{10 + self.number}"


@dataclass(frozen=True, slots=True)
class Topology:
    """`name` begins every namespace, so that two labs never meet."""

    name: str
    hosts: tuple[Host, ...]
    tors: tuple[Tor, ...]
    family: Family = Family.BOTH

    @property
    def versions(self) -> tuple[int, ...]:
        return self.family.versions

    @property
    def client(self) -> str:
        return f"{self.name}-client"

    @property
    def management(self) -> str:
        return f"{self.name}-mgmt"

    @property
    def server(self) -> str:
        """As it stands in a URL."""
        return "172.30.0.1" if 4 in self.versions else "[fd00:30::1]"

    @property
    def client_as(self) -> int:
        return 64_999

    def client_address(self, tor: Tor) -> str:
        return f"172.29.{tor.number}.2"

    def client_address6(self, tor: Tor) -> str:
        return f"fd00:29:{tor.number}::2"

    @property
    def client_own(self) -> dict[int, str]:
        """The client's address on no link, by version of IP."""
        own = {4: "172.28.0.1", 6: "fd00:28::1"}
        return {version: own[version] for version in self.versions}

    @property
    def namespaces(self) -> list[str]:
        """Those of the fabric itself; workloads' are named after them."""
        found = [tor.namespace for tor in self.tors] + [host.namespace for host in self.hosts]
        return [*found, self.client, self.management]


def topology(name: str, hosts: int, tors: int, family: Family = Family.BOTH) -> Topology:
    """The fabric of `hosts` and `tors`; ConfigError if they cannot be."""
    problems = []
    if not re.fullmatch(r"[a-z][a-z0-9]{0,9}", name):
        problems.append(Cause("--name", f"{name!r} must be 1 to 10 of a-z, 0-9, a letter first"))
    if not 1 <= hosts <= MAX_HOSTS:
        problems.append(Cause("--hosts", f"must be 1 to {MAX_HOSTS}, not {hosts}"))
    if not 1 <= tors <= MAX_TORS:
        problems.append(Cause("--tors", f"must be 1 to {MAX_TORS}, not {tors}"))
    if problems:
        raise ConfigError("the lab", problems)
    return Topology(
        name,
        tuple(Host(n, f"{name}-host{n}") for n in range(1, hosts + 1)),
        tuple(Tor(n, f"{name}-tor{n}") for n in range(1, tors + 1)),
        family,
    )
