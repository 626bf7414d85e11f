"""Whether a ping would be answered on a host that is only text (see `routed.kernel.fake`). Pure."""

from __future__ import annotations

from routed.kernel import lines

Inside = dict[str, set[str]]


def from_host(host: set[str], inside: Inside, address: str) -> bool:
    """Whether a ping from the host itself would be answered."""
    return any(
        line.startswith(f"route {lines.host_prefix_text(address)} dev ") for line in host
    ) and any(line.startswith(f"address {address}/") for held in inside.values() for line in held)


def from_inside(host: set[str], inside: Inside, netns: str, address: str) -> bool:
    """Whether a ping from inside `netns` would be answered."""
    if any(" ipvlan on " in line and line.endswith(" up") for line in inside[netns]):
        own = any(line.startswith(f"address {address}/") for line in host)
        default = any(line.startswith("route default dev ") for line in inside[netns])
        return default and (own or from_host(host, inside, address))
    source = _peer_of(inside, netns)
    if source is None or not _can_send(host, inside, netns, source):
        return False
    if any(line.startswith(f"address {address}/") for line in host):
        return True
    for line in host:
        if line.startswith(f"route {lines.host_prefix_text(address)} dev "):
            other = _netns_of(inside, line.split()[3])
            return other is not None and _can_send(host, inside, other, line.split()[3])
    return False


def _peer_of(inside: Inside, netns: str) -> str | None:
    for line in inside[netns]:
        if line.startswith("link ") and line.endswith(" up") and " peer " in line:
            return line.partition(" peer ")[2].split()[0]
    return None


def _netns_of(inside: Inside, host_interface: str) -> str | None:
    return next((n for n in inside if _peer_of(inside, n) == host_interface), None)


def _can_send(host: set[str], inside: Inside, netns: str, host_interface: str) -> bool:
    held = inside[netns]
    up = any(line.startswith(f"link {host_interface} ") and line.endswith(" up") for line in host)
    default = any(line.startswith("route default ") for line in held)
    return up and default and any(line.startswith("address ") for line in held)
