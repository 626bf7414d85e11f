"""Routes of ours, or gateways of workloads, that somebody removes again and again: who, and what to
tell it. Pure.

Each is put back at once, so traffic goes on but for a moment; a program that does it with each of
its reloads is to be configured. Once is no reason to alarm anybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.meta import Condition
from routed.kernel.removals import Removal

ROUTE_FLAPPING = "RouteFlapping"  # the condition
WINDOW = 600.0  # seconds that count
TIMES = 3  # in the window, by one program
NETWORKD = (
    "put ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no under [Network] in "
    "/etc/systemd/networkd.conf.d/routed.conf; and, before systemd 256, which removes next hops "
    "all the same, KeepConfiguration=yes under [Network] in the .network files of the uplinks"
)
NETWORK_MANAGER = (
    "put unmanaged-devices=interface-name:rt*;interface-name:ri* under [keyfile] in "
    "/etc/NetworkManager/conf.d/routed.conf, and start it anew"
)
REMEDIES = {
    "systemd-network": NETWORKD,  # the kernel cuts names of programs to 15 characters
    "NetworkManager": NETWORK_MANAGER,
    "ip": "find the script that flushes routes, and let it leave out those of protocol 82",
}
OTHERWISE = "tell it to leave routes and next hops of protocol 82 alone"


def condition(removals: Iterable[Removal], now: float) -> Condition:
    """Of the Node. `now` is of the clock of the removals."""
    found: dict[str, list[Removal]] = {}
    for one in removals:
        if now - one.last < WINDOW:
            found.setdefault(one.program, []).append(one)
    again = {program: some for program, some in sorted(found.items()) if len(some) >= TIMES}
    return Condition(
        type=ROUTE_FLAPPING,
        status="True" if again else "False",
        reason="RemovedByOthers" if again else "RoutesStay",
        message="; ".join(_told(program, some) for program, some in again.items()),
    )


def _told(program: str, some: list[Removal]) -> str:
    pid = f" (pid {some[-1].pid})" if some[-1].pid else ""
    count = sum(one.count for one in some)
    often = f"{len(some)} times in {WINDOW / 60:.0f} minutes ({count} in all)"
    remedy = REMEDIES.get(program, OTHERWISE)
    return f"{program}{pid} removed routes or gateways of this node {often}: {remedy}"
