"""The part of the fake kernel that is ipvlan: what its lines are, and what the real one refuses.

Pure. A host is a set of lines, a namespace another (see `routed.kernel.fake`).
"""

from __future__ import annotations

import errno

from api.resources.errors import ApplyError, Cause, Conflict, Invalid
from routed.kernel import lines
from routed.kernel.seam import name_taken
from routed.state import ALIAS_PREFIX, Endpoint, slave_name


def refuse(endpoint: Endpoint, host: set[str], inside: dict[str, set[str]]) -> None:
    """Conflict or Invalid if it cannot be had on this host."""

    def conflict(said: str, field: str = "mode", remedy: str = "") -> Conflict:
        text = f"cannot attach {endpoint.workload} by {endpoint.mode}: {said}{remedy}"
        return Conflict(text, causes=[Cause(field, said)])

    if endpoint.netns is None:
        said = f"mode {endpoint.mode} has no hand-over form"
        raise Invalid(f"cannot attach {endpoint.workload}: {said}", causes=[Cause("netns", said)])
    if not any(line.startswith(f"link {endpoint.parent} ") for line in host):
        said = f"there is no link {endpoint.parent} on this host"
        raise Invalid(
            f"cannot attach {endpoint.workload} by {endpoint.mode}: {said}",
            causes=[Cause("mode", said)],
        )
    own = own_slave(host, endpoint.parent)
    mode = alias_mode(own)
    if own and mode != endpoint.mode and used(host, inside, endpoint.parent):
        said = f"{endpoint.parent} carries workloads of mode {mode}"
        raise conflict(said, remedy=f"; use {mode}, another link as ipvlanParent, or mode veth")
    held = inside[lines.netns_name(endpoint.netns)]
    mine = f" alias {endpoint.alias} "
    for line in held:
        if line.startswith(f"link {endpoint.if_name} ") and mine not in line:
            raise name_taken(endpoint)
    if any(line.startswith("route default ") for line in held if mine not in " ".join(held)):
        said = "the namespace has a default route already"
        raise conflict(said, "netns")
    for name, other in inside.items():
        on_it = [line for line in other if f" ipvlan on {endpoint.parent} " in line]
        if any(mine in line for line in on_it) and name == lines.netns_name(endpoint.netns):
            continue
        for value in endpoint.addresses if on_it else ():
            if any(line.startswith(f"address {value}/") for line in other):
                said = f"another slave of {endpoint.parent} has that address"
                raise conflict(said, "addresses")


def own_slave(host: set[str], parent: str) -> str:
    """The line of the host's own slave; "": there is none."""
    name = slave_name(parent)
    return next((line for line in host if line.startswith(f"link {name} ")), "")


def alias_mode(line: str) -> str:
    """The mode that the slave is there for."""
    return line.partition(f" alias {ALIAS_PREFIX}")[2].partition("/")[0]


def mode_of(line: str) -> str:
    """The mode that the parent is in."""
    return line.partition(" ipvlan ")[2].partition(" ")[0]


def flipped(host: set[str], parent: str, mode: str) -> set[str]:
    """The host after somebody has put the parent into another mode."""
    own = own_slave(host, parent)
    return (host - {own}) | {own.replace(f" ipvlan {mode_of(own)} ", f" ipvlan {mode} ")}


def used(host: set[str], inside: dict[str, set[str]], parent: str) -> bool:
    """Whether host routes lead over the host's own slave, or workloads have slaves of ours."""
    over = any(f" dev {slave_name(parent)} " in line for line in host if "route " in line)
    on_it = [line for held in inside.values() for line in held if f" ipvlan on {parent} " in line]
    return over or any(f" alias {ALIAS_PREFIX}" in line for line in on_it)


def refused_route(endpoint: Endpoint, error: ApplyError) -> ApplyError:
    """As the driver says it."""
    return ApplyError(endpoint.workload, "add the host route of", error.errno or errno.EEXIST)
