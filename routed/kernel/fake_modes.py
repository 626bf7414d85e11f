"""How the fake kernel holds workloads of other modes than veth: functions of its text."""

from __future__ import annotations

import errno
from typing import Protocol

from api.resources.errors import ApplyError
from api.resources.net import host_prefix
from routed.kernel import fake_ipvlan, lines
from routed.state import LINK_GROUP, Endpoint


class Text(Protocol):
    """What is needed of the fake kernel."""

    host: set[str]
    inside: dict[str, set[str]]

    def add_route(self, key: str, line: str) -> int: ...

    def there(self, endpoint: Endpoint) -> bool: ...


def put_on_host(kernel: Text, endpoint: Endpoint) -> int:
    wanted = set(lines.on_host(endpoint)) if endpoint.addresses else set()
    name = endpoint.host_interface
    ours = f"link {name} group {LINK_GROUP} "
    for line in kernel.host:
        if line.startswith(f"link {name} ") and not line.startswith(ours):
            raise ApplyError(endpoint.workload, f"make {name} of", errno.EEXIST)
    stray = {
        line
        for line in kernel.host - wanted
        if wanted and (lines.is_on(line, name) or line.startswith(f"link {name} "))
    }
    count = len(wanted - kernel.host) + len(stray)
    kernel.host = (kernel.host - stray) | wanted
    return count


def put_slave(kernel: Text, endpoint: Endpoint) -> int:
    fake_ipvlan.refuse(endpoint, kernel.host, kernel.inside)
    held = kernel.inside[lines.netns_name(str(endpoint.netns))]
    own, right = fake_ipvlan.own_slave(kernel.host, endpoint.parent), lines.slave(endpoint)
    count = int(own != right)
    kernel.host = (kernel.host - {own}) | {right}
    for value in endpoint.addresses:
        name = endpoint.host_interface
        line = f"route {host_prefix(value)} dev {name}{lines.OURS} scope link"
        try:
            count += kernel.add_route(endpoint.workload, line)
        except ApplyError as error:
            raise fake_ipvlan.refused_route(endpoint, error) from error
    wanted = set(lines.slave_interior(endpoint))
    count += len(wanted - held)
    held |= wanted
    return count


def restore(kernel: Text, endpoint: Endpoint) -> dict[str, str]:
    """The mode that somebody has given to the parent, put right."""
    own = fake_ipvlan.own_slave(kernel.host, endpoint.parent)
    wanted = endpoint.mode.removeprefix("ipvlan-")
    if not own or fake_ipvlan.mode_of(own) == wanted:
        return {}
    kernel.host = fake_ipvlan.flipped(kernel.host, endpoint.parent, wanted)
    return {endpoint.parent: fake_ipvlan.mode_of(own)}


def drop_slave(kernel: Text, endpoint: Endpoint) -> None:
    on_it = {f"route {host_prefix(a)} dev {endpoint.host_interface}{lines.OURS} scope link"
             for a in endpoint.addresses}  # fmt: skip
    kernel.host -= on_it
    if kernel.there(endpoint):
        held = kernel.inside[lines.netns_name(str(endpoint.netns))]
        if any(f" alias {endpoint.alias} " in line for line in held):
            held -= {line for line in held if lines.is_on(line, endpoint.if_name)}
            held -= {line for line in held if f" alias {endpoint.alias} " in line}
