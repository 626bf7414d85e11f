"""The host side of a link just made: configured by one batch, and read back."""

from __future__ import annotations

import errno

from api.resources.errors import ApplyError
from routed.kernel import observe
from routed.kernel.netlink import Netlink
from routed.kernel.observe import Link
from routed.kernel.template import Shape
from routed.state import HOST_MAC, LINK_GROUP, Endpoint
from routed.steps import Point, reached


def finish(
    netlink: Netlink, endpoint: Endpoint, index: int, shape: Shape, values: list[bytes]
) -> Link:
    """Make the link `index` complete, its host routes last. ApplyError."""
    for number in netlink.transact_numbered(shape.host.fill(values)).values():
        raise ApplyError(endpoint.workload, "configure the host side of", number)
    reached(Point.HOST_SIDE_DONE)
    answers = netlink.ask_numbered(shape.readback.fill(values))
    up, alias, space = observe.readback(answers[0]) if 0 in answers else (False, b"", None)
    if not up or alias != endpoint.alias.encode():
        raise ApplyError(endpoint.workload, "read back the link of", errno.ENODEV)
    for place, value in enumerate(endpoint.addresses, 1):
        if observe.host_route_index(answers.get(place), value) != index:
            raise ApplyError(f"{endpoint.workload} {value}", "read back the route of", errno.ENODEV)
    return Link(
        index, endpoint.host_interface, LINK_GROUP, endpoint.alias, endpoint.mtu, up, HOST_MAC,
        peer=index + 1, peer_nsid=space,
    )  # fmt: skip
