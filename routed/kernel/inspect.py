"""Reading a host as it is, with pyroute2: for what is asked once by a person, not on the hot path.

`features` makes things to see whether the kernel can; it must run in a network namespace that
nobody else uses and that ends with the process.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routed.kernel import messages as m
from routed.kernel import sysctl
from routed.kernel.netlink import Netlink

RTN_UNICAST = 1
KERNELS_OWN = ((0, 255), (32766, 254), (32767, 253), (32767, 254))  # priority, table


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link that leads out of this host: `driver` is the link's kind, empty for hardware."""

    name: str
    mtu: int
    running: bool
    kind: str
    addresses: tuple[str, ...]


def uplinks() -> list[Uplink]:
    """Every link that is up, not loopback and not ours."""
    with IPRoute() as route:
        held: dict[int, list[str]] = {}
        for message in route.get_addr():
            held.setdefault(message["index"], []).append(
                f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
            )
        found = []
        for link in route.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            info = link.get_attr("IFLA_LINKINFO")
            alias = str(link.get_attr("IFLA_IFALIAS") or "")
            if link["flags"] & 0x8 or not link["flags"] & 0x1 or alias.startswith("routed:"):
                continue
            kind = str(info.get_attr("IFLA_INFO_KIND")) if info else ""
            found.append(
                Uplink(
                    name,
                    int(link.get_attr("IFLA_MTU")),
                    bool(link["flags"] & 0x10000),
                    kind,
                    tuple(held.get(link["index"], ())),
                )
            )
    return found


def default_routes() -> dict[int, list[str]]:
    """Address family (2, 10) to the interfaces of its default routes."""
    with IPRoute() as route:
        names = {one["index"]: str(one.get_attr("IFLA_IFNAME")) for one in route.get_links()}
        found: dict[int, list[str]] = {}
        for family in (2, 10):
            for one in route.get_routes(family=family):
                if one["dst_len"] or one["type"] != RTN_UNICAST or one["table"] != 254:
                    continue
                hops = [hop["oif"] for hop in one.get_attr("RTA_MULTIPATH") or []]
                hops = hops or [one.get_attr("RTA_OIF")]
                found.setdefault(family, []).extend(names.get(hop, "?") for hop in hops)
    return found


def v6_defaults_at_risk() -> list[str]:
    """Links whose default route the host would lose by forwarding IPv6, which it does not yet."""
    if sysctl.forwards_v6():
        return []
    with Netlink() as netlink:
        return sysctl.at_risk(netlink)


def foreign_rules() -> list[str]:
    """Routing policy rules beside the three of every host: they may lead past our routes."""
    found = []
    with IPRoute() as route:
        for rule in route.get_rules():
            priority = rule.get_attr("FRA_PRIORITY") or 0
            table = rule.get_attr("FRA_TABLE") or rule["table"]
            if (priority, table) not in KERNELS_OWN:
                family = "ipv4" if rule["family"] == 2 else "ipv6"
                found.append(f"{family} priority {priority} table {table}")
    return found


def features() -> dict[str, str]:
    """Feature to why it is not there; empty: it is. See the module's docstring."""
    found: dict[str, str] = {}

    def tried(name: str, **link: object) -> None:
        try:
            route.link("add", ifname=name[:12], **link)
        except NetlinkError as error:
            found[name] = str(error)
        else:
            found[name] = ""

    with IPRoute() as route:
        tried("veth", kind="veth", peer={"ifname": "rt-peer"})
        tried("bridge", kind="bridge")
        parent = route.link_lookup(ifname="rt-peer")
        if parent:
            tried("ipvlan", kind="ipvlan", link=parent[0], ipvlan_mode=1)
        tried("vxlan", kind="vxlan", vxlan_id=1, vxlan_port=4789)
    with Netlink() as netlink:  # of which pyroute2 does not know
        why = netlink.transact([m.next_hop_group(1, (1,), replace=True)])[0]
        known = why != errno.EOPNOTSUPP  # there is no such group, says who knows of groups
        found["next hop objects"] = "" if known else f"{os.strerror(why)}: Linux 5.3 has them"
    namespaces = Path("/proc/self/ns/net").exists()
    found["network namespaces"] = "" if namespaces else "/proc/self/ns/net is not there"
    return found
