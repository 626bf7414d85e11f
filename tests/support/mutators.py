"""The mistakes that a compiler of policies could make, each made on purpose: a fixed list.

A mutator changes what was compiled, everywhere, as the mistake would: it is a function of a
ruleset. `MUTATORS` has each under the words by which it is reported when the catalogue of cases
does not notice it. What a rule says is told by its parts, so the list goes on to mean the same when
the compiler puts them in another order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_network

from policies.compile.ruleset import Set
from support.mutating import (
    Lines,
    Mutator,
    chains,
    first_of,
    last_of,
    sets,
    swapped,
    texts,
    without,
    without_first,
    without_last,
)  # fmt: skip
from support.slave_mutators import of_slaves

# a match of a rule, by what it is about; {x} is an anonymous set, a prefix or a number
_VALUE = r"(?:\{[^}]*\}|[^\s@]\S*)"
PARTS = {
    "family": r"meta nfproto ipv[46]",
    "protocol": r"meta l4proto \d+",
    "not the protocol": r"meta l4proto != \d+",
    "type of ICMP": r"icmp(?:v6)? type \d+",
    "not the type of ICMP": r"icmp(?:v6)? type != \d+",
    "code of ICMP": r"icmp(?:v6)? code \d+",
    "not the code of ICMP": r"icmp(?:v6)? code != \d+",
    **{
        f"{negation}{what} of the {end}": f"{address} {field}{operator}{value}"
        for negation, operator in (("", " "), ("not the ", " != "))
        for end, field in (("source", "saddr"), ("destination", "daddr"))
        for what, address, value in (
            ("nets of IPv4", "ip", _VALUE),
            ("nets of IPv6", "ip6", _VALUE),
            ("selector in IPv4", "ip", r"@selector4-\S+"),
            ("selector in IPv6", "ip6", r"@selector6-\S+"),
            ("network sets of IPv4", "ip", r"@nets4-\S+"),
            ("network sets of IPv6", "ip6", r"@nets6-\S+"),
        )
    },
    **{
        f"{negation}{what} of the {end}": value
        for negation, operator in (("", " "), ("not the ", " != "))
        for end, side in (("source", "s"), ("destination", "d"))
        for what, value in (
            ("ports", f"th {side}port{operator}{_VALUE}"),
            ("named ports in IPv4", rf"ip {side}addr \. \S+ \S+ \. th {side}port{operator}@\S+"),
            ("named ports in IPv6", rf"ip6 {side}addr \. \S+ \S+ \. th {side}port{operator}@\S+"),
        )
    },
}


def _turned(match: re.Match[str]) -> str:
    """The opposite of a match."""
    words = match[0]
    if " != " in words:
        return words.replace(" != ", " ", 1)
    if words.startswith("meta nfproto"):
        return words.replace("ipv4", "ipv0").replace("ipv6", "ipv4").replace("ipv0", "ipv6")
    first = re.match(r"(?:meta|icmp|icmpv6|th) \S+|ip6? \S+(?: \. \S+ \S+ \. th \S+)?", words)
    assert first is not None, words
    return f"{first[0]} !={words[first.end() :]}"


def _other_end(match: re.Match[str]) -> str:
    swapped = {"saddr": "daddr", "daddr": "saddr", "sport": "dport", "dport": "sport"}
    return re.sub("|".join(swapped), lambda word: swapped[word[0]], match[0])


def _by_one(step: int, match: re.Match[str]) -> str:
    """Every number of a match, its own words aside, is one more or less."""
    head, tail = re.match(r"(\D*?(?:ip6?|icmpv6|l4proto|\S+) \S+(?: !=)? )(.*)", match[0]).groups()  # type: ignore[union-attr]
    return head + re.sub(r"\d+", lambda number: str(max(0, int(number[0]) + step)), tail)


def _lower_end(match: re.Match[str]) -> str:
    return re.sub(r"(\d+)-\d+", r"\1", match[0])


def _longer(match: re.Match[str]) -> str:
    """Prefixes are half as large."""

    def half(prefix: re.Match[str]) -> str:
        net = ip_network(prefix[0])
        return str(next(net.subnets())) if net.prefixlen < net.max_prefixlen else prefix[0]

    return re.sub(r"[0-9a-f.:]+/\d+", half, match[0])


def _shorter(match: re.Match[str]) -> str:
    """Prefixes are twice as large."""

    def twice(prefix: re.Match[str]) -> str:
        net = ip_network(prefix[0])
        return str(net.supernet()) if net.prefixlen else prefix[0]

    return re.sub(r"[0-9a-f.:]+/\d+", twice, match[0])


def _jumps_reversed(lines: Lines) -> Lines:
    jumps = [one for one in lines if one[0].startswith("jump ")]
    return [jumps.pop() if one[0].startswith("jump ") else one for one in lines]


def _neighbour(_: str, one: Set) -> list[str]:
    """The first element is the address beside it."""
    first, *rest = sorted(one.elements) or ["0.0.0.0"]
    return [str(ip_address(first) + 1), *rest] if one.elements else []


def _another_port(_: str, one: Set) -> list[str]:
    """All are one more."""
    return [f"{head} . {int(port) + 1}" for head, _, port in map(_split, one.elements)]


def _another_protocol(_: str, one: Set) -> list[str]:
    return [
        f"{head.rpartition(' . ')[0]} . {'17' if head.endswith(' 6') else '6'} . {port}"
        for head, _, port in map(_split, one.elements)
    ]


def _split(element: str) -> tuple[str, str, str]:
    return element.rpartition(" . ")


def _whole_net(_: str, one: Set) -> list[str]:
    return (
        [_shorter(re.match(".*", net)) for net in sorted(one.elements)[:1]]
        + sorted(  # type: ignore[arg-type]
            one.elements
        )[1:]
    )


RULES = r"(?:trial-)?(?:ingress|egress)-(?:policy|tier)-"  # chains that have a policy's rules
REAL = r"(?:ingress|egress)-"


def _of_direction(direction: str) -> Iterator[tuple[str, Mutator]]:
    policy, tier, end = (f"{direction}-{word}-" for word in ("policy", "tier", "of"))
    inside, base = f"{direction}-(?:policy|tier)-", f"policy-{direction}"
    trial = f"trial-{direction}-"
    denied = rf"goto {direction}-(?:deny|reject)-\S+"
    log, states = r'limit .* log prefix "log .* group \d+', "established,related"
    yield "Allow as Deny", texts("accept$", "drop", policy)
    yield "Allow as nothing", texts("accept", "", inside)
    yield "Deny as Allow", texts(denied, "accept", inside)
    yield "Deny as nothing", texts(denied, "", inside)
    yield "Pass as Allow", texts("return", "accept", tier)
    yield "Pass as Deny", texts("return", "drop", tier)
    yield "Pass as nothing", texts("return", "", tier)
    yield "a tier's Deny as Pass", texts("drop", "return", tier)
    yield "a tier's Deny as Allow", texts("drop", "accept", tier)
    yield "the node's default Deny as Allow", texts("drop", "accept", end)
    yield "the node's default Allow as Deny", texts("accept", "drop", end)
    yield "rules in another order", chains(swapped, inside)
    yield "rules backwards", chains(lambda lines: lines[::-1], policy)
    yield "policies backwards", chains(_jumps_reversed, tier)
    yield "tiers backwards", chains(_jumps_reversed, end)
    yield "the first rule lost", chains(lambda lines: lines[1:], policy)
    yield "the last rule lost", chains(lambda lines: lines[:-1], policy)
    yield "the first policy lost", chains(lambda lines: lines[1:], tier)
    yield "the first tier lost", chains(lambda lines: lines[1:], end)
    yield "answers as drops", texts("reject with .*", "drop", f"{direction}-reject-")
    yield "no RST", without("meta l4proto 6 reject with tcp reset", f"{direction}-reject-")
    yield "another answer", texts("admin-prohibited", "port-unreachable", f"{direction}-")
    yield "Log not logged", texts(log, "", inside)
    yield "Log as Allow", texts(f"({log})", r"\1 accept", inside)
    yield "denials not logged", without(r'log prefix "deny .*', f"{direction}-")
    yield "logged elsewhere", texts(r"group \d+", "group 83", f"{direction}-")
    yield "rules are not counted", texts("counter", "", policy)
    yield "tiers are not counted", texts("counter", "", tier)
    yield "the node's default is not counted", texts("counter drop", "drop", end)
    yield "jump to a policy as goto", texts("jump", "goto", tier)
    yield "jump to a tier as goto", texts("jump", "goto", end)
    yield "trial lost", without(".*", f"{trial}tier-")
    yield "trial in effect", texts("accept", "drop", trial)
    yield "trial goes on after a rule", texts("accept", "", f"{trial}policy-")
    yield "trial is not counted", texts("counter", "", f"{trial}(?:policy|tier)-")
    yield "trial passes as it allows", texts("return", "accept", f"{trial}tier-")
    yield "unknown links pass", without("counter drop", f"{direction}-links")
    yield "answers are judged", without("ct state .*", base)
    yield "all states pass", texts(states, f"{states},invalid", base)
    yield "what is related is judged", texts(states, "established", base)
    yield "what is established is judged", texts(states, "related", base)
    yield "what is not ours is judged", without("[io]ifgroup .*", base)
    yield "nothing is judged", without(".*", base)


def _of_hosts() -> Iterator[tuple[str, Mutator]]:
    states, ports = "established,related", r"th dport \{[^}]*\}"
    for at in ("host-in", "host-out", "forward-in", "forward-out"):
        base = f"policy-{at}"
        key, other = ("iif", "oif") if at.endswith("in") else ("oif", "iif")
        yield f"answers are judged, {at}", without("ct state .*", base)
        yield f"what is related is judged, {at}", texts(states, "established", base)
        yield f"what is established is judged, {at}", texts(states, "related", base)
        yield f"all states pass, {at}", texts(states, f"{states},invalid", base)
        yield f"links of workloads are judged, {at}", without(f"{key}group .*", base)
        yield f"nothing is judged, {at}", without(f"{key}name .* goto .*|goto .*", base)
        if at.startswith("forward"):
            yield f"by the other interface, {at}", texts(f"{key}name", f"{other}name", base)
            continue
        yield f"failsafe ports lost, {at}", without(ports, base)
        yield f"only the first failsafe port, {at}", texts(ports, first_of, base)
        yield f"only the last failsafe port, {at}", texts(ports, last_of, base)
        yield f"all ports are failsafe, {at}", texts(ports, "", base)
        yield f"failsafe for the other end, {at}", texts("dport", "sport", base)
        needed = r"icmpv6 type \{[^}]*\}"
        yield f"no neighbours, {at}", without(needed, base)
        yield f"only the first of ICMPv6, {at}", texts(needed, first_of, base)
        yield f"only the last of ICMPv6, {at}", texts(needed, last_of, base)
        yield f"all of ICMPv6, {at}", texts(needed, "meta l4proto 58", base)
        yield f"no path MTU, {at}", without("icmp type 3 .*", base)
        yield f"all that cannot be reached, {at}", texts("icmp code 4", "", base)
    yield "failsafe ports are tried, host-in", without(ports, "trial-host-in")
    yield "an interface is of all others", without('iifname "up0" accept', "policy-host-in")
    yield (
        "failsafe ports are forwarded to",
        chains(
            lambda lines: [("meta l4proto 6 th dport 22 accept", "x"), *lines], "policy-forward-in"
        ),
    )


def _all() -> Iterator[tuple[str, Mutator]]:
    for what, pattern in PARTS.items():
        yield f"lost: {what}", texts(pattern, "", RULES)
        yield f"turned: {what}", texts(pattern, _turned, RULES)
        yield f"rules lost that have: {what}", without(pattern, RULES)
        if re.search("saddr|daddr|sport|dport|port", pattern):
            yield f"of the other end: {what}", texts(pattern, _other_end, RULES)
        if "@" not in pattern and "family" not in what and "nets" not in what:
            for step, word in ((1, "more"), (-1, "less")):
                yield f"one {word}: {what}", texts(pattern, partial(_by_one, step), RULES)
        if _VALUE in pattern:
            yield f"only the first: {what}", texts(pattern, first_of, RULES)
            yield f"only the last: {what}", texts(pattern, last_of, RULES)
            if "nets" in what:
                yield f"half: {what}", texts(pattern, _longer, RULES)
                yield f"twice: {what}", texts(pattern, _shorter, RULES)
            else:
                yield f"ranges begin and do not end: {what}", texts(pattern, _lower_end, RULES)
    for direction in ("ingress", "egress"):
        for what, mutator in _of_direction(direction):
            yield f"{what}, {direction}", mutator
    yield "sent on by the other link, ingress", texts("oifname", "iifname", "ingress-links")
    yield "sent on by the other link, egress", texts("iifname", "oifname", "egress-links")
    yield "groups in another order", chains(swapped, r"(?:ingress|egress)-links")
    yield "the first group lost", chains(lambda lines: lines[1:], r"(?:ingress|egress)-links")
    yield "bits the wrong way", texts(r"(\S+ )@(bit-\S+)", r"\1!= @\2", REAL)
    yield "half of the groups lost", without(r"goto \S+-links-?[01]*0", REAL)
    yield "towards the host nothing is judged", without(".*", "policy-tohost")
    yield "answers to the host are judged", without("ct state .*", "policy-tohost")
    yield "neighbours are judged", without("icmpv6 type .*", "policy-tohost")
    yield (
        "neighbours may do all of ICMPv6",
        texts(r"icmpv6 type \{.*\}", "meta l4proto 58", "policy-tohost"),
    )
    yield from _of_hosts()
    yield from of_slaves()
    for version in (4, 6):
        for kind in ("selector", "nets", "named"):
            name = f"{kind}{version}-"
            yield f"empty sets: {name}", sets(lambda _, one: (), name)
            yield f"the first element lost: {name}", sets(without_first, name)
            yield f"the last element lost: {name}", sets(without_last, name)
        yield f"the address beside: selector{version}-", sets(_neighbour, f"selector{version}-")
        yield f"the port beside: named{version}-", sets(_another_port, f"named{version}-")
        yield f"the other protocol: named{version}-", sets(_another_protocol, f"named{version}-")
        yield f"twice: nets{version}-", sets(_whole_net, f"nets{version}-")
    yield "the first link lost", sets(without_first, "links-")
    yield "empty sets of bits", sets(lambda _, one: (), "bit-")


MUTATORS: dict[str, Mutator] = dict(_all())
