"""Reading the kernel's connections, all of them."""

from __future__ import annotations

from ipaddress import ip_address

from routed.kernel import conntrack
from routed.kernel.netlink import Netlink


def entries(*addresses: str) -> list[bytes]:
    """The connections that name one of `addresses`, by what a dump of all of them says."""
    wanted = {ip_address(address).packed for address in addresses}
    with Netlink(protocol=conntrack.NETLINK_NETFILTER) as netlink:
        return [
            entry
            for family in conntrack.FAMILIES.values()
            for entry in netlink.read(
                conntrack.dump(family), lambda data: conntrack.naming(data, wanted)
            )
        ]
