"""The lines that `ip` would print of what is ours: the state of the fake kernel, as text.

Pure: one function a kind of object. `route_key` tells which routes cannot be in one table together.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import ip_interface, ip_network

from api.resources.net import IPNetwork, host_prefix
from routed.kernel import beside
from routed.state import (
    BLACKHOLE_METRIC,
    GATEWAY_V4,
    GATEWAY_V6,
    HOST_MAC,
    LINK_GROUP,
    SLAVE_GROUP,
    Endpoint,
    LearnedRoute,
    NextHop,
)

OURS = " proto 82"


def host_prefix_text(address: str) -> str:
    return str(ip_network(address))


def netns_name(path: str) -> str:
    return path.removeprefix("/run/netns/")


def is_on(line: str, name: str) -> bool:
    return f" dev {name} " in f"{line} "


def as_up(line: str) -> str:
    return line.removesuffix(" down") + " up" if line.endswith(" down") else line


def link(endpoint: Endpoint) -> str:
    return (
        f"link {endpoint.host_interface} group {LINK_GROUP} alias {endpoint.alias} "
        f"mtu {endpoint.mtu} up"
    )


def slave(endpoint: Endpoint) -> str:
    """The host's own slave of an ipvlan parent."""
    alias = endpoint.route_alias.replace(" ", "/")
    return (
        f"link {endpoint.host_interface} group {SLAVE_GROUP} alias {alias} "
        f"ipvlan {endpoint.mode.removeprefix('ipvlan-')} on {endpoint.parent} up"
    )


def slave_interior(endpoint: Endpoint) -> Iterable[str]:
    name = endpoint.if_name
    yield f"link {name} ipvlan on {endpoint.parent} alias {endpoint.alias} up"
    for value in endpoint.addresses:
        yield f"address {host_prefix(value)} dev {name}"
    for version in {value.version for value in endpoint.addresses}:
        yield f"route default dev {name}" + (" inet6" if version == 6 else "")


def on_host(endpoint: Endpoint) -> Iterable[str]:
    """The addresses of a workload in the host's own namespace, on a link of their own."""
    name = endpoint.host_interface
    yield f"link {name} group {LINK_GROUP} alias {endpoint.alias} dummy up"
    for value in endpoint.addresses:
        yield f"address {host_prefix(value)} dev {name}"


def addresses_and_neighbours(endpoint: Endpoint) -> Iterable[str]:
    name = endpoint.host_interface
    for gateway, length in _gateways(endpoint):
        yield f"address {gateway}/{length} dev {name} scope link"
    for value in endpoint.addresses:
        yield f"neighbour {value} dev {name} lladdr {endpoint.mac.hex(':')} PERMANENT"


def limits(endpoint: Endpoint) -> Iterable[str]:
    held = endpoint.limits
    if held is not None:
        for word, rate, burst in (
            ("to", held.to_rate, held.to_burst),
            ("from", held.from_rate, held.from_burst),
        ):
            if rate:
                yield f"limit {word} dev {endpoint.host_interface} rate {rate} burst {burst}"


def interior(endpoint: Endpoint) -> Iterable[str]:
    name = endpoint.if_name
    yield f"link {name} peer {endpoint.host_interface} up"
    for value in endpoint.addresses:
        yield f"address {host_prefix(value)} dev {name}"
    for gateway, length in _gateways(endpoint):
        if length == 32 and endpoint.default_route:
            yield f"route {gateway} dev {name} scope link"
        yield f"neighbour {gateway} dev {name} lladdr {HOST_MAC.hex(':')} PERMANENT"
        if not endpoint.default_route:
            number = beside.table(endpoint.workload)
            yield f"route table {number} default via {gateway} dev {name} onlink"
            for value in endpoint.addresses:
                if (value.version == 4) == (length == 32):
                    yield f"rule from {value} lookup {number}"
            for prefix in endpoint.routes:
                if (prefix.version == 4) == (length == 32):
                    yield f"route {prefix} via {gateway} dev {name} onlink"
            continue
        yield f"route default via {gateway} dev {name}"


def taken(endpoint: Endpoint, held: Iterable[str]) -> str:
    """What another interface in a namespace of the lines `held` has already; "": nothing."""
    others = [line for line in held if not is_on(line, endpoint.if_name)]
    if endpoint.default_route:
        default = tuple(f"route default via {gateway} " for gateway, _ in _gateways(endpoint))
        if any(line.startswith(default) for line in others):
            return "the namespace has a default route, or one to our gateway, already"
    for prefix in endpoint.routes:
        if any(line.startswith(f"route {prefix} via ") for line in others):
            return f"cannot add the route to {prefix} in the namespace: there is one already"
    return ""


def _gateways(endpoint: Endpoint) -> list[tuple[str, int]]:
    versions = {value.version for value in endpoint.addresses}
    known = ((4, GATEWAY_V4, 32), (6, GATEWAY_V6, 64))
    return [(gateway, length) for version, gateway, length in known if version in versions]


def blackhole(prefix: IPNetwork) -> str:
    return f"route blackhole {prefix}{OURS} metric {BLACKHOLE_METRIC}"


def learned(route: LearnedRoute, hops: Iterable[tuple[str, str]]) -> str:
    """`hops` are gateways with their links."""
    text = " ".join(f"nexthop via {gateway} dev {name}" for gateway, name in sorted(hops))
    return f"route {route.prefix}{OURS} metric {route.metric} {text}"


def without_hops(lines: Iterable[str], name: str) -> set[str]:
    """What is left when the link `name` fails: of learned routes the other next hops, if any."""
    found = set()
    for line in lines:
        first, *hops = line.split(" nexthop ")
        left = [hop for hop in hops if not is_on(hop, name)]
        if left or not hops:
            found.add(" nexthop ".join([first, *left]))
    return found


def routes(
    lines: Iterable[str], learned_routes: Iterable[LearnedRoute]
) -> tuple[dict[str, str], dict[NextHop, int]]:
    """The routes that can be had on a host with `lines`, by key, and why next hops cannot be used:
    those behind a link without carrier only where a route has no other."""
    held = list(lines)
    found: dict[str, str] = {}
    unusable: dict[NextHop, int] = {}
    alone: set[NextHop] = set()
    for route in learned_routes:
        hops = []
        for hop in route.next_hops:
            try:
                hops.append(way(held, hop))
            except OSError as error:
                unusable[hop] = error.errno or errno.EIO
        if hops:
            found[f"route {route.prefix}"] = learned(route, hops)
        else:
            alone.update(route.next_hops)
    told = {h: why for h, why in unusable.items() if h in alone or why != errno.ENETDOWN}
    return found, told


def way(lines: Iterable[str], hop: NextHop) -> tuple[str, str]:
    """Gateway and link of a next hop, on a host with `lines`. OSError if it is not usable."""
    name, states = hop.interface, {}
    for line in lines:
        words = line.split()
        if words[0] == "link":
            states[words[1]] = words[-1]
        elif words[0] == "address" and hop.interface is None:
            net = ip_interface(words[1]).network
            if net.version == hop.gateway.version and hop.gateway in net:
                name = words[3]
    state = states.get(name or "")
    if state == "no-carrier":
        raise OSError(errno.ENETDOWN, "no carrier")
    if name is None or state != "up":
        raise OSError(errno.ENETUNREACH if hop.interface is None else errno.ENODEV, "no link")
    return str(hop.gateway), name


def route_key(line: str) -> tuple[IPNetwork, int]:
    """What two routes of one table cannot have in common: prefix and metric."""
    words = line.removeprefix("route ").removeprefix("blackhole ").split()
    default = "::/0" if ":" in line else "0.0.0.0/0"
    prefix = ip_network(default if words[0] == "default" else words[0])
    if "metric" in words:
        return prefix, int(words[words.index("metric") + 1])
    return prefix, 0 if prefix.version == 4 else 1024
