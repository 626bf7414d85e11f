"""Scenes drawn at random, out of a world so small that rules meet the packets.

Hypothesis draws how many there are of everything, and a number for each, of which dice make the
rest: a counterexample loses policies, rules and workloads until it needs them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from typing import Any

from hypothesis import strategies as st

from api.resources.hostendpoint import HostEndpoint
from api.resources.policy import NetworkPolicy, NetworkSet, Tier
from api.resources.workload import IPVLAN, Mode, Workload
from policies.failsafe import failsafe
from policies.plan import plan
from support.rulesets.packets import ICMP, ICMPV6, PORTED
from support.scenes import HERE, THERE, UPLINK, Scene, Sent, addresses

HOST = ("10.0.9.1", "fd00::9:1")
FOUR = [f"10.0.0.{number}" for number in range(1, 9)]
SIX = [f"fd00::{number}" for number in range(1, 9)]
NETS = [
    "0.0.0.0/0", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.4/30", "10.0.0.4/31", "10.0.0.6/32",
    "::/0", "fd00::/64", "fd00::/126", "fd00::4/126", "fd00::6/127", "fd00::6/128",
]  # fmt: skip
SELECTORS = [
    "all()", "a == '1'", "a == '2'", "a != '1'", "has(b)", "!has(b)", "a == '1' && b == '2'",
    "a in {'1', '2'} || b == '1'", "b not in {'1'}", "c == 'none'", "kind == 'net'", "has(a)",
]  # fmt: skip
LABELS = [{}, *({"a": a} for a in "12"), *({"a": a, "b": b} for a in "12" for b in "12")]
NET_LABELS = [*LABELS, {"kind": "net"}, {"kind": "net"}]
PORTS = [1, 2, 3, "1:2", "2:4", "4:65535", "p", "q"]
OWN_PORTS = [("p", "TCP", 1), ("p", "UDP", 2), ("q", "TCP", 3), ("q", "TCP", 2)]
ACTIONS = ["Allow", "Allow", "Deny", "Deny", "Pass", "Log"]
PROTOCOLS = [None, None, "TCP", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", 6, 47, 1]
TYPES = [0, 3, 8, 128, 1]
TIERS = ["default", "t1", "t2", "t3"]
NUMBERS = st.integers(0, 2**32 - 1)
Fields = dict[str, Any]


def scenes() -> st.SearchStrategy[Scene]:
    rules = st.lists(NUMBERS, max_size=4)
    return st.builds(
        _scene,
        tiers=st.lists(NUMBERS, max_size=3),
        policies=st.lists(st.tuples(NUMBERS, rules, rules), min_size=1, max_size=5),
        local=st.lists(NUMBERS, min_size=1, max_size=4),
        remote=st.lists(NUMBERS, max_size=2),
        sets=st.lists(NUMBERS, max_size=2),
        hosts=st.lists(NUMBERS, max_size=3),
        rest=NUMBERS,
    )


def mixed() -> st.SearchStrategy[Scene]:
    """In which some of the local workloads are slaves of the uplink, all in the same mode."""
    return st.builds(_mixed, scenes(), NUMBERS, st.just((UPLINK,)))


def spread(of: st.SearchStrategy[Scene]) -> st.SearchStrategy[Scene]:
    """In which these are slaves of several links, each in a mode of its own. (The evaluator knows
    of one uplink.)"""
    return st.builds(_mixed, of, NUMBERS, st.just((UPLINK, "up1", "up2")))


def _mixed(scene: Scene, number: int, parents: tuple[str, ...]) -> Scene:
    dice = Random(number)  # noqa: S311
    modes = {parent: dice.choice([Mode.IPVLAN_L3S, *sorted(IPVLAN)]) for parent in parents}

    def turned(one: Workload) -> Workload:
        if one.spec.node != HERE or dice.random() < 0.5 / len(parents):
            return one
        parent = dice.choice(parents)
        spec = one.spec.model_copy(update={"mode": modes[parent]})
        status = one.status.model_copy(update={"host_interface": f"rtv-{parent}"})
        return one.model_copy(update={"spec": spec, "status": status})

    return replace(scene, workloads=tuple(map(turned, scene.workloads)))


def _scene(
    tiers: list[int],
    policies: list[tuple[int, list[int], list[int]]],
    local: list[int],
    remote: list[int],
    sets: list[int],
    hosts: list[int],
    rest: int,
) -> Scene:
    dice = Random(rest)  # noqa: S311 - not for secrets
    scene = Scene(
        tuple({tier.metadata.name: tier for tier in map(_tier, tiers)}.values()),
        tuple(_policy(place, *one) for place, one in enumerate(policies)),
        tuple(_set(place, one) for place, one in enumerate(sets)),
        tuple(_host(place, one) for place, one in enumerate(hosts)),
        (
            *(_local(place, one) for place, one in enumerate(local)),
            *(_remote(place, one) for place, one in enumerate(remote)),
        ),
        addresses(*HOST),
        dice.choice(["Allow", "Allow", "Deny"]),  # type: ignore[arg-type]
        failsafe=failsafe([dice.choice(["2/tcp", "3/udp"])], ["4/sctp", "1/tcp"]),
    )
    if dice.random() < 0.8:
        return scene
    ends = scene.endpoints, scene.default, scene.interfaces
    needs = plan(scene.tiers, scene.policies, *ends).needs()
    selectors, ports = sorted(needs.selectors), sorted(needs.ports)
    return replace(
        scene,
        untold=frozenset(dice.sample(selectors, min(len(selectors), dice.randint(0, 2)))),
        untold_ports=frozenset(dice.sample(ports, min(len(ports), dice.randint(0, 1)))),
    )


def _tier(number: int) -> Tier:
    dice = Random(number)  # noqa: S311
    spec = {
        "order": dice.choice([None, 1, 2]),
        "defaultAction": dice.choice(["Deny", "Pass"]),
    }
    return Tier.model_validate({"metadata": {"name": dice.choice(TIERS)}, "spec": spec})


def _policy(place: int, number: int, ingress: list[int], egress: list[int]) -> NetworkPolicy:
    dice = Random(number)  # noqa: S311
    spec: Fields = {
        "tier": dice.choice(TIERS),
        "order": dice.choice([None, 1, 1.5, 2, -1]),
        "selector": dice.choice(["", "", *SELECTORS]),
        "staged": dice.random() < 0.25,
        "applyOnForward": dice.random() < 0.5,
        "ingress": [_rule(one) for one in ingress],
        "egress": [_rule(one) for one in egress],
    }
    if dice.random() < 0.4:
        either = [word.title() for word in ("ingress", "egress") if spec[word]]
        spec["types"] = either if dice.random() < 0.5 else ["Egress", "Ingress"]
    return NetworkPolicy.model_validate({"metadata": {"name": f"p{place}"}, "spec": spec})


def _rule(number: int) -> Fields:
    dice = Random(number)  # noqa: S311
    found: Fields = {"action": dice.choice(ACTIONS)}
    if found["action"] == "Deny" and dice.random() < 0.6:
        found["reject"] = True
    protocol = dice.choice(PROTOCOLS)
    only = {"ICMP": 4, "1": 4, "ICMPv6": 6}.get(str(protocol))
    version = dice.choice([None, None, None, only] if only else [None, None, 4, 6])
    if protocol is not None:
        found["protocol"] = protocol
    if protocol is None or dice.random() < 0.05:
        found |= dice.choice([{}, {}, {"notProtocol": dice.choice(["TCP", "UDP", 47, "ICMP"])}])
    if version is not None:
        found["ipVersion"] = version
    for kind in ("icmp", "notICMP") if only else ():
        if dice.random() < 0.4:
            code = dice.choice([{}, {"code": 0}, {"code": 1}])
            found[kind] = {"type": dice.choice(TYPES), **code}
    for end in ("source", "destination"):
        if dice.random() < 0.5:
            found[end] = _entity(dice, version, ported=protocol in ("TCP", "UDP", "SCTP", 6))
    return found


def _entity(dice: Random, version: int | None, *, ported: bool) -> Fields:
    nets = [net for net in NETS if version is None or (":" in net) == (version == 6)]
    pools = {"nets": nets, "notNets": nets}
    pools |= {"ports": PORTS, "notPorts": PORTS} if ported else {}
    found: Fields = {}
    for kind in dice.sample([*pools, "selector", "notSelector"], dice.choice([1, 1, 2, 3])):
        found[kind] = (
            dice.sample(pools[kind], dice.randint(1, 3))
            if kind in pools
            else dice.choice(SELECTORS)
        )
    return found


def _local(place: int, number: int) -> Workload:
    """With addresses that no other has."""
    return _workload(
        f"w{place}", HERE, [[FOUR[place]], [SIX[place]], [FOUR[place], SIX[place]]], number
    )


def _remote(place: int, number: int) -> Workload:
    """Whose addresses may be those of others outside."""
    pools = [FOUR[4:6], SIX[4:6], [FOUR[5], SIX[5], SIX[6]], [FOUR[6]]]
    return _workload(f"r{place}", THERE, pools, number)


def _workload(name: str, node: str, pools: list[list[str]], number: int) -> Workload:
    dice = Random(number)  # noqa: S311
    ports = dice.sample(OWN_PORTS, dice.randint(0, 2))
    named = [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports]
    return Workload.model_validate(
        {
            "metadata": {"name": name, "labels": dice.choice(LABELS)},
            "spec": {"node": node, "netns": name, "ports": named},
            "status": {"addresses": dice.choice(pools)},
        }
    )


def _set(place: int, number: int) -> NetworkSet:
    dice = Random(number)  # noqa: S311
    metadata = {"name": f"n{place}", "labels": dice.choice(NET_LABELS)}
    spec = {"nets": dice.sample(NETS, dice.randint(0, 4))}
    return NetworkSet.model_validate({"metadata": metadata, "spec": spec})


def _host(place: int, number: int) -> HostEndpoint:
    dice = Random(number)  # noqa: S311
    metadata = {"name": f"h{place}", "labels": dice.choice(LABELS)}
    own = dice.sample([*FOUR[6:], *SIX[6:]], dice.randint(1, 2))
    here: list[Fields] = [
        {"interfaceName": dice.choice(["*", "up0", "up0", "up1"])},
        {"expectedIPs": dice.sample(HOST, 1)},
    ]
    spec = {"node": HERE, **dice.choice(here)} if place else {"node": THERE, "expectedIPs": own}
    spec["ports"] = [{"name": "p", "port": 2}]
    return HostEndpoint.model_validate({"metadata": metadata, "spec": spec})


def crowds(alike: int = 1) -> st.SearchStrategy[Scene]:
    """With so many local workloads and signatures that these are not asked for one by one; so many
    workloads are `alike`."""
    rules = st.lists(NUMBERS, max_size=3)
    return st.builds(
        _crowd,
        size=st.integers(17 * alike, 80),
        alike=st.just(alike),
        policies=st.lists(st.tuples(NUMBERS, rules, rules), min_size=6, max_size=9),
    )


def _crowd(size: int, alike: int, policies: list[tuple[int, list[int], list[int]]]) -> Scene:
    made = []
    for place, one in enumerate(policies):
        dice = Random(one[0])  # noqa: S311
        some = ", ".join(f"'{k}'" for k in range(size) if dice.random() < 0.5)
        policy = _policy(place, *one)
        spec = policy.spec.model_copy(update={"selector": f"k in {{{some}}}", "staged": False})
        made.append(policy.model_copy(update={"spec": spec}))
    workloads = [
        Workload.model_validate(
            {
                "metadata": {
                    "name": f"w{place}",
                    "labels": {"k": str(place // alike), "a": "12"[place // alike % 2]},
                },
                "spec": {"node": HERE, "netns": f"w{place}"},
                "status": {"addresses": [CROWD[0][place], CROWD[1][place]]},
            }
        )
        for place in range(size)
    ]
    return Scene(policies=tuple(made), workloads=tuple(workloads), host=addresses(*HOST))


CROWD = (
    [f"10.0.0.{number}" for number in range(1, 101)],
    [f"fd00::{number}" for number in range(1, 101)],
)


def packets(number: int, count: int, crowd: int = 8) -> Iterator[Sent]:
    """About as many, the same of the same number; `crowd`: how many addresses of a family may be
    at their ends, beside the host's."""
    dice = Random(number)  # noqa: S311
    four, six = ([*one[:crowd], own] for one, own in zip(CROWD, HOST, strict=True))
    families = [(four, ICMP)] * 3 + [(six, ICMPV6)] * 2
    weights = [3] * 4 + [2] * (crowd - 3)
    for _ in range(count):
        pool, echo = dice.choice(families)
        source, destination = dice.choices(pool, weights, k=2)
        protocol = dice.choice([6, 6, 6, 17, 17, 132, echo, echo, 47])
        numbers: tuple[int | None, int | None] = (None, None)
        if protocol in PORTED:
            numbers = dice.randint(1, 5), dice.randint(1, 5)
        elif protocol == echo:
            numbers = dice.choice(TYPES), dice.choice([0, 1])
        state = dice.choices(["new", "invalid", "established", "related"], [30, 2, 1, 1])[0]
        if {source, destination} - set(HOST):
            yield Sent(ip_address(source), ip_address(destination), protocol, *numbers, state)
