"""Workloads of the ipvlan modes, which have no link here: they are told by their addresses.

What a slave sends comes to the host's OUTPUT, as if the host had sent it: to the parent, or, where
it is for the host itself, to `lo`, by which it then comes to INPUT; in IPv6, which is not held to
the parent, to other links as well. What comes to one by the parent passes INPUT (ipvlan-l3s only),
what comes by another link FORWARD, on its way to the host's own slave. What the host itself sends
goes there from OUTPUT, with a source of the host's. (Read in drivers/net/ipvlan, tried in
tests/guest.) So:

- Anti-spoof: what OUTPUT sees must have a source of one of these workloads, or of the host, or have
  been sent by a process of the host (transparent proxies; a slave's socket is of another namespace,
  which `meta skuid` does not see), or refuse a connection in the name of its destination. Slaves
  have no neighbours, and serve no DHCP.
- What comes by a parent for an address that is neither the host's nor one of these is for one that
  a workload has given itself: dropped.
- To the host itself: echo requests and answers.
- Policies of each direction, in chains of their own at these hooks; host endpoints see what they
  send and are sent as forwarded.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.compile import names
from policies.compile.chains import Line, Place
from policies.compile.hooks import ANSWERS, HOST_KEYS, LOOPBACK, interface_lines, workload_links
from policies.compile.matches import WORDS
from policies.compile.ruleset import ADDRESSES, LINKS, Chain, Set, chain
from policies.marks import LINK_GROUP, SLAVE_GROUP
from policies.model import Direction, Ipvlan

PARENTS = "slaves-parents"
FIELDS = {Direction.INGRESS: "daddr", Direction.EGRESS: "saddr"}
_LOCAL = "type { local, broadcast, multicast, anycast }"


def unjudged(version: int) -> str:
    """The set of the addresses that no policy is for."""
    return names.slaves(version, "unjudged")


NAMES = (PARENTS, *(name for v in WORDS for name in (names.slaves(v), unjudged(v))))


def sets(ipvlan: Ipvlan) -> dict[str, Set]:
    """Who they are, by NAMES."""
    found = {PARENTS: Set(LINKS, ipvlan.parents)}
    for version, kind in ADDRESSES.items():
        for name, some in (
            (names.slaves(version), ipvlan.addresses),
            (unjudged(version), ipvlan.unjudged),
        ):
            texts = frozenset(str(one) for one in some if one.version == version)
            found[name] = Set(kind, texts)
    return found


def key(version: int, direction: Direction) -> str:
    """What of a packet says whose it is."""
    return f"{WORDS[version]} {FIELDS[direction]}"


def base(version: int, direction: Direction) -> str:
    """The match of what is of these workloads."""
    return f"{key(version, direction)} @{names.slaves(version)}"


def own_chains() -> dict[str, Chain]:
    """What holds for them before any policy."""
    of_theirs = [(f"{base(version, Direction.EGRESS)} accept", "their own") for version in WORDS]
    antispoof = [
        ("ip6 saddr @slaves6 icmpv6 type { 133, 134, 135, 136, 137 } counter drop", "neighbours"),
        ("ip saddr @slaves4 udp sport 67 udp dport 68 counter drop", "DHCP"),
        ("ip6 saddr @slaves6 udp sport 547 udp dport 546 counter drop", "DHCP"),
        *of_theirs,
        ("meta skuid 0-4294967295 accept", "of a process"),
        (
            "ip saddr 127.0.0.0/8 ip daddr != 127.0.0.0/8 ct state new,invalid counter drop",
            "loopback",
        ),
        ("fib saddr type local accept", "of the host"),
        ("fib saddr . oif type local accept", "of the host, link-local"),
        # before there is an address (RFC 4862, RFC 3810, RFC 3376)
        ("ip6 saddr :: icmpv6 type { 131, 133, 135, 143 } accept", "no address yet"),
        ("ip saddr 0.0.0.0 meta l4proto 2 accept", "no address yet"),
        ("meta l4proto 6 ct state related accept", "refusals"),  # nf_send_reset
        ("counter drop", "foreign source"),
    ]
    arriving = [
        (
            f"iifname @{PARENTS} {WORDS[version]} daddr != @{names.slaves(version)} "
            f"fib daddr . mark {_LOCAL.replace('type', 'type !=')} counter drop",
            "foreign destination",
        )
        for version in WORDS
    ]
    to_host = [
        ('iifname != "lo" accept', "not theirs"),
        ANSWERS,
        *(
            (f"{base(version, Direction.EGRESS)} goto slaves-allowed", "theirs")
            for version in WORDS
        ),
    ]
    allowed = [
        ("icmp type echo-request accept", "ping"),
        ("icmpv6 type echo-request accept", "ping"),
        ("counter drop", "to the host"),
    ]
    return {
        "slaves-antispoof": _at("output", -140, antispoof),
        "slaves-arriving": _at("input", -10, arriving),
        "slaves-tohost": _at("input", 1, to_host),
        "slaves-allowed": chain(allowed),
    }


def base_chains(place: Place, *, links: bool) -> Iterator[tuple[str, Chain]]:
    """Those of one walk in one direction, by name. `links`: whether there is a walk for what is
    sent to links of ours."""
    roots = [(version, place.name(names.slaves(version))) for version in WORDS]
    walk, later = _walk(place)
    theirs = [(f"{base(v, place.direction)} goto {root}", "theirs") for v, root in roots]
    if place.direction is Direction.EGRESS:
        yield f"{walk}-slaves-egress", _at("output", -8 + later, [ANSWERS, *theirs])
        return
    yield f"{walk}-slaves-ingress", _at("input", -6 + later, [ANSWERS, *theirs])
    # in IPv4 what they send leaves by the parent
    theirs6 = base(6, Direction.EGRESS)
    to_slave = f"oifgroup {SLAVE_GROUP:#x} {theirs6} goto {place.name(names.slaves(6))}"
    to_link = f"oifgroup {LINK_GROUP} {theirs6} goto {place.name('links')}"
    sent = [(to_slave, "to another parent"), *[(to_link, "to a link")] * links]
    yield f"{walk}-slaves-sent", _at("output", -6 + later, [ANSWERS, *sent])


def over_slaves(place: Place) -> list[Line]:
    """What is forwarded to them, by the host's own slaves."""
    return [
        (
            f"oifgroup {SLAVE_GROUP:#x} meta nfproto ipv{version} "
            f"goto {place.name(names.slaves(version))}",
            "to a slave",
        )
        for version in WORDS
    ]


def last(version: int, place: Place) -> list[Line]:
    """What meets an address of no group."""
    if not place.real:
        return []
    return [
        spared(version, place.direction),
        ("counter drop", place.label("", "", names.UNKNOWN_ADDRESS, counts=True)),
    ]


def spared(version: int, direction: Direction) -> Line:
    """Those that no policy is for."""
    return f"{key(version, direction)} @{unjudged(version)} accept", "not judged"


def not_of_host(direction: Direction) -> list[Line]:
    """Of what the host itself seems to receive or send, theirs is not judged as the host's."""
    return [(f"{base(version, direction)} accept", "of workloads") for version in WORDS]


def forwarded(place: Place, targets: list[tuple[str, str]]) -> tuple[str, Chain]:
    """The base chain of interfaces of the host for what they are sent (ingress), or send, by name;
    `targets` as of `hooks.host_base`."""
    walk, later = _walk(place)
    side = HOST_KEYS[place.direction]
    others = [
        (f"{key(version, place.direction)} != @{names.slaves(version)} accept", "of the host")
        for version in WORDS
    ]
    onward = interface_lines(side, targets)
    if place.direction is Direction.INGRESS:
        return f"{walk}-slaves-forward-in", _at("input", -9 + later, [ANSWERS, *others, *onward])
    within = [workload_links(side), (f'{side}name "{LOOPBACK}" accept', "loopback")]
    unjudged_ones = [spared(version, place.direction) for version in WORDS]
    lines = [ANSWERS, *within, *others, *unjudged_ones, *onward]
    return f"{walk}-slaves-forward-out", _at("output", -4 + later, lines)


def _walk(place: Place) -> tuple[str, int]:
    """How base chains begin; that which decides follows the trial."""
    return ("policy", 1) if place.real else ("trial", 0)


def _at(hook: str, priority: int, lines: list[Line]) -> Chain:
    return chain(lines, f"type filter hook {hook} priority {priority}; policy accept;")
