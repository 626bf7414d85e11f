"""The MTU of a workload's link, in bytes. Pure.

As asked for, else as set for the node, else the smallest of the links that lead off the host, less
what encapsulation takes of it where a pool of the workload's has that: an outer header of the
family that nodes have addresses of (RFC 7348: outer IP, UDP, VXLAN, inner Ethernet). It is decided
when a workload is attached, and stays: a path that gets smaller later is found by path MTU
discovery (RFC 1191, RFC 8201), whose messages the host sends and lets through.
"""

from __future__ import annotations

from collections.abc import Collection

from api.resources.errors import Cause, Invalid
from api.resources.ippool import Encapsulation
from api.resources.net import IPAddress
from routed.agent.intent import Intent

LEAST_V6 = 1280  # RFC 8200, section 5
OUTER = {4: 20, 6: 40}
VXLAN = 8 + 8 + 14  # UDP, VXLAN, inner Ethernet


def derived(uplink: int, addresses: Collection[IPAddress], intent: Intent) -> int:
    """Of a workload with `addresses`, where the links that lead off have `uplink`."""
    pools = (intent.pool_index.find(address) for address in addresses)
    if all(pool is None or pool.spec.encapsulation is Encapsulation.NEVER for pool in pools):
        return uplink
    return uplink - overhead(intent.node.spec.addresses if intent.node is not None else ())


def overhead(nodes: Collection[IPAddress]) -> int:
    """What VXLAN takes, between nodes with such addresses; IPv4 is preferred."""
    only_v6 = bool(nodes) and all(address.version == 6 for address in nodes)
    return OUTER[6 if only_v6 else 4] + VXLAN


def too_small(workload: str, mtu: int, addresses: Collection[IPAddress]) -> Invalid | None:
    """What keeps an IPv6 address from a link of that MTU, which the kernel would refuse."""
    if mtu >= LEAST_V6 or all(address.version == 4 for address in addresses):
        return None
    said = (
        f"IPv6 needs {LEAST_V6} bytes, the links that lead off this host leave {mtu}: "
        "raise their MTU, or take IPv4 only (ipFamilies)"
    )
    return Invalid(f"cannot attach {workload}: {said}", causes=[Cause("ipFamilies", said)])
