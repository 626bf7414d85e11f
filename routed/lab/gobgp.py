"""GoBGP 3 as a switch's routing daemon: a BGP table and nothing else.

gobgpd installs no route (its zebra client panics with FRR 8), so no packet passes a ToR that runs
it, and it originates no default route: this lab shows what is announced, kept and withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routed.lab.fabric import LabError, inside, prefix
from routed.lab.processes import Process
from routed.lab.topology import BOTH, Topology, Tor

PACKAGE = "gobgpd"
PROGRAMS: tuple[str, ...] = ("gobgpd", "gobgp")
# path attribute type codes: RFC 4271, section 5.1.3; RFC 4760, section 3
_NEXT_HOP, _MP_REACH = 3, 14


def configuration(top: Topology, tor: Tor) -> str:
    """A ToR: hosts by range, each with its own ASN; it keeps their routes over a restart. Every
    session carries both families."""
    subnets = {4: tor.subnet, 6: tor.subnet6}
    clients = {4: top.client_address(tor), 6: top.client_address6(tor)}
    families = "".join(
        f"""  [[peer-groups.afi-safis]]
    [peer-groups.afi-safis.config]
      afi-safi-name = "ipv{version}-unicast"
    [peer-groups.afi-safis.mp-graceful-restart.config]
      enabled = true
"""
        for version in (4, 6)
    )
    sessions = "".join(
        f"""[[dynamic-neighbors]]
  [dynamic-neighbors.config]
    prefix = "{subnets[version]}"
    peer-group = "hosts"
[[neighbors]]
  [neighbors.config]
    neighbor-address = "{clients[version]}"
    peer-as = {top.client_as}
  [neighbors.timers.config]
    connect-retry = 1
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv6-unicast"
"""
        for version in top.versions
    )
    return f"""[global.config]
  as = {tor.as_number}
  router-id = "{tor.address}"
[[peer-groups]]
  [peer-groups.config]
    peer-group-name = "hosts"
  [peer-groups.timers.config]
    hold-time = 9
    keepalive-interval = 3
  [peer-groups.graceful-restart.config]
    enabled = true
    restart-time = 120
{families}{sessions}"""


def processes(top: Topology, tor: Tor, directory: Path) -> list[Process]:
    """gobgpd alone."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = directory / f"{tor.namespace}.toml"
    path.write_text(configuration(top, tor), encoding="ascii")
    words = ["gobgpd", "-f", str(path), "-t", "toml", "--api-hosts", "127.0.0.1:50051"]
    words += ["--log-level", "warn"]
    return [Process(tor.namespace, [*prefix(tor.namespace), *words], directory)]


def prefixes(
    directory: Path, namespace: str, versions: Sequence[int] = BOTH
) -> dict[str, list[str]]:
    return {
        text: hops for version in versions for text, hops in _prefixes(namespace, version).items()
    }


def _prefixes(namespace: str, version: int) -> dict[str, list[str]]:
    said = inside(namespace, "gobgp", "-j", "global", "rib", "-a", f"ipv{version}")
    try:
        routes: dict[str, list[dict[str, Any]]] = json.loads(said)
    except ValueError as error:
        raise LabError(f"cannot read the table of {namespace}: {said.strip()}") from error
    return {
        prefix_text: [
            attribute["nexthop"]
            for path in paths
            for attribute in path["attrs"]
            if attribute["type"] in (_NEXT_HOP, _MP_REACH) and "nexthop" in attribute
        ]
        for prefix_text, paths in routes.items()
    }
