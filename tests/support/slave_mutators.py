"""The mistakes that a compiler of policies could make of workloads of the ipvlan modes; part of the
list of support/mutators.py."""

from __future__ import annotations

from collections.abc import Iterator

from policies.marks import LINK_GROUP, SLAVE_GROUP
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


def of_slaves() -> Iterator[tuple[str, Mutator]]:
    """Of what holds for workloads of the ipvlan modes, and of where their policies are asked."""
    states, spoof, host = "established,related", "slaves-antispoof", "slaves-tohost"
    for at in ("egress", "ingress", "sent", "forward-in", "forward-out"):
        base = f"policy-slaves-{at}"
        yield f"answers are judged, {base}", without("ct state .*", base)
        yield f"what is established is judged, {base}", texts(states, "related", base)
        yield f"all states pass, {base}", texts(states, f"{states},invalid", base)
        yield f"nothing is judged, {base}", without(".* goto .*|goto .*", base)
        yield f"the trial is lost, {base}", without("goto .*", f"trial-slaves-{at}")
        for word in ("ip", "ip6") * (at in ("egress", "ingress")):
            yield f"{word} is lost, {base}", without(rf"{word} [sd]addr @slaves[46] goto .*", base)
        if at.startswith("forward"):
            yield f"what is the host's is judged, {base}", without("ip6? .addr != .*", base)
    base = "policy-slaves-forward-out"
    yield "l3 is judged as forwarded", without(r"ip6? .addr @slaves\d-unjudged .*", base)
    yield "what slaves send to their host is forwarded", without('oifname "lo" .*', base)
    yield "what slaves send to links is by an interface", without("oifgroup .*", base)
    yield "slaves are the other end, egress", texts("saddr", "daddr", "egress-slaves")
    yield "slaves are the other end, ingress", texts("daddr", "saddr", "ingress-slaves")
    for direction in ("ingress", "egress"):
        name = f"{direction}-slaves"
        yield f"groups of slaves in another order, {direction}", chains(swapped, name)
        yield f"the first group of slaves lost, {direction}", chains(lambda x: x[1:], name)
        yield f"unknown addresses pass, {direction}", without("counter drop", name)
        yield f"l3 is judged, {direction}", without(".*-unjudged accept", name)
    slave = f"oifgroup {SLAVE_GROUP:#x}"
    yield "what is forwarded to slaves is not judged", without(f"{slave} .*", "policy-ingress")
    yield "slaves send to slaves unjudged", without(f"{slave} .*", "policy-slaves-sent")
    yield (
        "slaves send to links unjudged",
        without(f"oifgroup {LINK_GROUP} .*", "policy-slaves-sent"),
    )
    yield (
        "the trial of what is forwarded to slaves is lost",
        without(f"{slave} .*", "trial-ingress"),
    )
    yield "foreign sources pass", without("counter drop", spoof)
    yield "no source is theirs", without("ip6? saddr @slaves[46] accept", spoof)
    yield "theirs before what none of them sends", chains(_accepted_first, spoof)
    yield "the host has no address", without("(?:fib|meta skuid) .*", spoof)
    yield "all sources are the host's", texts("fib saddr type local", "", spoof)
    yield "all link-local ones are the host's", texts("fib saddr . oif type local", "", spoof)
    yield "loopback is the host's", without("ip saddr 127.*", spoof)
    yield "slaves have neighbours", without("ip6 saddr @slaves6 icmpv6 .*", spoof)
    neighbours = r"icmpv6 type \{[^}]*\}"
    yield "only the first of neighbours", texts(neighbours, first_of, spoof)
    yield "only the last of neighbours", texts(neighbours, last_of, spoof)
    yield "slaves serve DHCP in IPv4", without("ip saddr @slaves4 udp .*", spoof)
    yield "slaves serve DHCP in IPv6", without("ip6 saddr @slaves6 udp .*", spoof)
    yield "what is related may be forged", texts("meta l4proto 6 ct", "ct", spoof)
    yield "slaves may send anything to their host", without("ip6? .*", host)
    yield "answers to the host, of slaves", without("ct state .*", host)
    yield "what comes by a parent is to the host", without('iifname != "lo" accept', host)
    yield "no ping of slaves", without("icmp type .*", "slaves-allowed")
    yield "no ping of slaves in IPv6", without("icmpv6 type .*", "slaves-allowed")
    yield "all of ICMP from slaves", texts("icmp type echo-request", "meta l4proto 1", "slaves-al")
    yield "what comes to them is not theirs", texts("daddr !=", "daddr", "slaves-arriving")
    for at in ("in", "out"):
        base = f"policy-host-{at}"
        yield f"slaves are the host, {base}", without("ip6? .addr @slaves[46] accept", base)
    for version in (4, 6):
        name = f"slaves{version}"
        yield f"empty sets: {name}", sets(lambda _, one: (), rf"{name}$")
        yield f"the first element lost: {name}", sets(without_first, rf"{name}$")
        yield f"the last element lost: {name}", sets(without_last, rf"{name}$")
        yield f"groups are empty: {name}", sets(lambda _, one: (), rf"{name}-[0-9a-f]+$")
        yield f"none is unjudged: {name}", sets(lambda _, one: (), f"{name}-unjudged")


def _accepted_first(lines: Lines) -> Lines:
    return sorted(lines, key=lambda line: not line[0].endswith("accept"))
