"""Random worlds of policies: tiers, policies, endpoints of this host, and what selectors stand for;
and the next one after each, a step away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from api.resources.policy import NetworkPolicy, Tier
from policies.failsafe import NO_FAILSAFE, Failsafe, failsafe
from policies.model import Default, Endpoint, HostInterface, Members, Membership, Plan
from policies.plan import plan

SELECTORS = ("app == 'a'", "app == 'b'", "has(net)", "all()")
ADDRESSES = [ip_address(f"10.0.0.{number}") for number in range(1, 6)] + [
    ip_address(text) for text in ("fd00::1", "fd00::2", "::ffff:1.2.3.4")
]
NETS = [
    ip_network(text)
    for text in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "192.0.2.0/24",
        "192.0.3.0/24",
        "192.0.4.0/23",
        "198.51.100.7/32",
        "255.255.255.255/32",
        "fd00::/8",
        "fd00:1::/32",
        "::/0",
        "ffff::/16",
    )
]
TIERS = ("default", "first", "last")
PORTS = (80, "http", "ssh", "100:200", "150:300", 1)


@dataclass(frozen=True)
class World:
    tiers: dict[str, Tier]
    policies: dict[str, NetworkPolicy]
    endpoints: dict[str, Endpoint]
    known: Membership
    default: Default = "Allow"
    hosts: tuple[HostInterface, ...] = ()
    failsafe: Failsafe = NO_FAILSAFE

    def plan(self) -> Plan:
        ends = self.endpoints.values(), self.default, self.hosts, self.failsafe
        return plan(self.tiers.values(), self.policies.values(), *ends)


def _nets(draw: st.DrawFn, version: int | None) -> list[str]:
    some = [str(net) for net in NETS if version in (None, net.version)]
    return draw(st.lists(st.sampled_from(some), max_size=3))


@st.composite
def entities(draw: st.DrawFn, ported: bool, version: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("nets", "notNets"):
        if draw(st.integers(0, 3)) == 0:
            found[key] = _nets(draw, version)
    for key in ("selector", "notSelector"):
        if draw(st.integers(0, 2)) == 0:
            found[key] = draw(st.sampled_from(SELECTORS))
    for key in ("ports", "notPorts") if ported else ():
        if draw(st.booleans()):
            found[key] = draw(st.lists(st.sampled_from(PORTS), max_size=3))
    return found


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"action": draw(st.sampled_from(("Allow", "Deny", "Log", "Pass")))}
    if found["action"] == "Deny":
        found["reject"] = draw(st.booleans())
    protocol = draw(st.sampled_from((None, "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", 47)))
    version = draw(st.sampled_from((None, 4, 6)))
    version = {"ICMP": 4, "ICMPv6": 6}.get(str(protocol), version)
    if protocol is not None:
        found["protocol"] = protocol
    elif draw(st.booleans()):
        found["notProtocol"] = draw(st.sampled_from(("TCP", "ICMP", 89)))
    if version is not None:
        found["ipVersion"] = version
    if protocol in ("ICMP", "ICMPv6"):
        for key in ("icmp", "notICMP"):
            if draw(st.booleans()):
                code = draw(st.sampled_from(({}, {"code": 1})))
                found[key] = {"type": draw(st.sampled_from((8, 3, 128, 254))), **code}
    ported = protocol in ("TCP", "UDP", "SCTP")
    for key in ("source", "destination"):
        found[key] = draw(entities(ported, version))
    return found


@st.composite
def policies(draw: st.DrawFn, name: str) -> NetworkPolicy:
    spec: dict[str, Any] = {
        "tier": draw(st.sampled_from(TIERS)),
        "selector": draw(st.sampled_from(SELECTORS)),
        "staged": draw(st.integers(0, 4)) == 0,
        "applyOnForward": draw(st.booleans()),
        "ingress": draw(st.lists(rules(), max_size=3)),
        "egress": draw(st.lists(rules(), max_size=3)),
    }
    if draw(st.booleans()):
        spec["order"] = draw(st.sampled_from((1, 2)))
    return NetworkPolicy.model_validate({"metadata": {"name": name}, "spec": spec})


@st.composite
def endpoints(draw: st.DrawFn, name: str) -> Endpoint:
    labels = draw(st.sampled_from(({}, {"app": "a"}, {"app": "b"}, {"app": "b", "net": "x"})))
    return Endpoint(name, labels, link=f"rt{name}")


def hosts() -> st.SearchStrategy[tuple[HostInterface, ...]]:
    one = st.builds(
        HostInterface,
        st.sampled_from(("h1", "h2")),
        st.sampled_from(({}, {"app": "a"}, {"app": "b"})),
        st.sampled_from(("*", "up0", "up1")),
    )
    return st.lists(one, max_size=2).map(tuple)


def failsafes() -> st.SearchStrategy[Failsafe]:
    return st.sampled_from((NO_FAILSAFE, failsafe(), failsafe([], [])))


def _members() -> st.SearchStrategy[Members]:
    return st.builds(
        Members,
        st.frozensets(st.sampled_from(ADDRESSES), max_size=4),
        st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(NETS), max_size=4)),
    )


def known() -> st.SearchStrategy[Membership]:
    """Selectors and ports that may be told or not."""
    port = st.tuples(st.sampled_from(ADDRESSES), st.sampled_from((6, 17)), st.integers(1, 3))
    keys = st.tuples(st.sampled_from(("http", "ssh")), st.sampled_from(("", *SELECTORS)))
    return st.builds(
        Membership,
        st.dictionaries(st.sampled_from(SELECTORS), _members()),
        st.dictionaries(keys, st.frozensets(port, max_size=4)),
    )


def _tiers() -> st.SearchStrategy[dict[str, Tier]]:
    def made(name: str, order: int | None, default: str) -> Tier:
        spec = {"order": order, "defaultAction": default}
        return Tier.model_validate({"metadata": {"name": name}, "spec": spec})

    return st.fixed_dictionaries(
        {},
        optional={
            name: st.builds(
                made,
                st.just(name),
                st.sampled_from((None, 1, 2)),
                st.sampled_from(("Deny", "Pass")),
            )
            for name in TIERS
        },
    )


NAMES = ("p1", "p2", "p3", "p" + "x" * 60)
LINKS = ("1", "2", "3", "4")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    return World(
        draw(_tiers()),
        {name: draw(policies(name)) for name in NAMES if draw(st.booleans())},
        {name: draw(endpoints(name)) for name in LINKS if draw(st.booleans())},
        draw(known()),
        draw(st.sampled_from(("Allow", "Allow", "Deny"))),
        draw(hosts()),
        draw(failsafes()),
    )


@st.composite
def after(draw: st.DrawFn, world: World) -> World:
    """One thing is different."""
    what = draw(st.sampled_from(("tiers", "policy", "endpoint", "known", "default", "host", "all")))
    if what == "tiers":
        return replace(world, tiers=draw(_tiers()))
    if what == "policy":
        name = draw(st.sampled_from((*NAMES, *world.policies, *world.policies)))
        rest = {key: one for key, one in world.policies.items() if key != name}
        some = {name: draw(policies(name))} if draw(st.booleans()) else {}
        return replace(world, policies={**rest, **some})
    if what == "endpoint":
        name = draw(st.sampled_from(LINKS))
        others = {key: one for key, one in world.endpoints.items() if key != name}
        more = {name: draw(endpoints(name))} if draw(st.booleans()) else {}
        return replace(world, endpoints={**others, **more})
    if what == "known":
        return replace(world, known=draw(known()))
    if what == "host":
        return replace(world, hosts=draw(hosts()), failsafe=draw(failsafes()))
    if what == "default":
        return replace(world, default=draw(st.sampled_from(("Allow", "Deny"))))
    return draw(worlds())
