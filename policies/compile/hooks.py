"""Where policies are asked: the base chains.

Egress comes before ingress, so that a packet between two workloads of one host meets both, each in
base chains of its own: `accept` ends only one of them. What workloads send to the host itself meets
egress before the allow-list of the base table, which is at priority 0 of input. Answers, and what
is related, meet none of it.

Interfaces of the host itself have base chains of their own: what its processes receive and send,
and what it forwards, where it comes in before workloads' egress and where it goes out after their
ingress. Links of workloads, and loopback, meet none of these. What keeps the host within reach
passes before any policy. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.compile.chains import Line, Place, Walk
from policies.compile.ruleset import Chain, chain
from policies.failsafe import NAMES, Failsafe
from policies.marks import LINK_GROUP, OUR_GROUPS
from policies.model import EVERY, Direction

KEYS = {Direction.INGRESS: "oif", Direction.EGRESS: "iif"}
_HOOKS = {
    ("trial-egress", Direction.EGRESS, Walk.TRIAL): "forward priority -1",
    ("policy-egress", Direction.EGRESS, Walk.REAL): "forward priority 0",
    ("trial-ingress", Direction.INGRESS, Walk.TRIAL): "forward priority 1",
    ("policy-ingress", Direction.INGRESS, Walk.REAL): "forward priority 2",
    ("trial-tohost", Direction.EGRESS, Walk.TRIAL): "input priority -2",
    ("policy-tohost", Direction.EGRESS, Walk.REAL): "input priority -1",
}
LOOPBACK = "lo"
HOST_KEYS = {Direction.INGRESS: "iif", Direction.EGRESS: "oif"}
# (name, hook, priority of the trial; the walk that decides follows), by direction and forwarding
_HOST_HOOKS = {
    (Direction.INGRESS, False): ("host-in", "input", -4),
    (Direction.EGRESS, False): ("host-out", "output", -1),
    (Direction.INGRESS, True): ("forward-in", "forward", -3),
    (Direction.EGRESS, True): ("forward-out", "forward", 3),
}
ANSWERS = ("ct state established,related accept", "answers")
# neighbour discovery with the host itself (RFC 4861), without which there is no IPv6
_NEIGHBOURS = (
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
    "neighbours",
)


def base_chains(
    place: Place, onward: list[Line], over_slaves: Sequence[Line] = ()
) -> Iterator[tuple[str, Chain]]:
    """Those of one walk in one direction, by name; `onward` is what the first packet of a flow of a
    link of ours meets, `over_slaves` what one meets that is forwarded to others (ipvlan)."""
    for (name, direction, walk), hook in _HOOKS.items():
        if (direction, walk) == (place.direction, place.walk):
            others = (f"{KEYS[direction]}group != {LINK_GROUP} accept", "not ours")
            more = [_NEIGHBOURS] if "input" in hook else []
            first = [ANSWERS, *over_slaves, others] if over_slaves else [others, ANSWERS]
            lines = [*first, *more, *onward]
            yield name, chain(lines, f"type filter hook {hook}; policy accept;")


# neighbour discovery and multicast listeners (RFC 4861, RFC 3810), path MTU (RFC 1191, RFC 8201)
_NEEDED = [
    ("icmpv6 type { 2, 130, 131, 132, 133, 134, 135, 136, 143 } accept", "needed"),
    ("icmp type 3 icmp code 4 accept", "needed"),
]


def failsafe_lines(place: Place, failsafe: Failsafe) -> list[Line]:
    """What of the host itself passes before any policy."""
    inbound = place.direction is Direction.INGRESS
    return [*_NEEDED, *_failsafe(failsafe.inbound if inbound else failsafe.outbound)]


def host_base(
    place: Place, *, forwarded: bool, first: list[Line], targets: list[tuple[str, str]]
) -> tuple[str, Chain]:
    """The base chain of interfaces of the host, by name. `first` passes before any policy;
    `targets`: (interface, where what begins a flow goes), `EVERY` last."""
    name, hook, priority = _HOST_HOOKS[place.direction, forwarded]
    key = HOST_KEYS[place.direction]
    lines = [
        ANSWERS,
        workload_links(key),
        (f'{key}name "{LOOPBACK}" accept', "loopback"),
        *first,
        *interface_lines(key, targets),
    ]
    walk = "policy" if place.real else "trial"
    at = priority + int(place.real)
    return f"{walk}-{name}", chain(lines, f"type filter hook {hook} priority {at}; policy accept;")


def workload_links(key: str) -> Line:
    """What comes or goes by links that are not of the host itself passes."""
    return f"{key}group {OUR_GROUPS} accept", "of workloads"


def interface_lines(key: str, targets: list[tuple[str, str]]) -> list[Line]:
    """Where what begins a flow by each interface goes."""
    return [
        (
            target if interface == EVERY else f'{key}name "{interface}" {target}',
            f"interface {interface}",
        )
        for interface, target in targets
    ]


def _failsafe(ports: frozenset[tuple[int, int]]) -> Iterator[Line]:
    for number, name in NAMES.items():
        some = sorted(port for protocol, port in ports if protocol == number)
        if some:
            listed = ", ".join(map(str, some))
            yield f"meta l4proto {number} th dport {{ {listed} }} accept", f"failsafe {name}"
