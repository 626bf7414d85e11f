"""What the reference evaluator has decided, for people."""

from __future__ import annotations

from policies.reference import By, Decision, Judgement, Packet, Passed, Verdict
from routed.ctl.traffic import End, told

SAID = {
    By.NODE: "no tier decides: the node's default",
    By.HOST: "a host to its own workload is always allowed",
    By.OWN_HOST: "the allow-list of a workload's own host",
    By.DISCOVERY: "neighbour discovery is judged by no policy",
    By.MODE: "its mode cannot be enforced",
    By.FAILSAFE: "a failsafe port, which no policy closes",
    By.NEEDED: "a host cannot do without it",
    By.UNSELECTED: "only staged policies select it",
}


def by(decision: Decision, direction: str) -> str:
    """What decided: `direction` is ingress or egress."""
    if decision.by is By.RULE:
        place = f"spec.{direction}[{decision.rule}]"
        return f"tier {decision.tier}, policy {decision.policy}, {place}"
    if decision.by is By.TIER:
        return f"tier {decision.tier}: no rule of its policies decides, so its defaultAction"
    return SAID[decision.by]


def parts(found: Judgement, source: End, destination: End) -> list[str]:
    """A line for each end that has a say, in the order in which they are asked."""
    lines = []
    hosts = [(one.decision, one.direction.lower(), host(one)) for one in found.hosts]
    for decision, direction, who in (
        (found.egress, "egress", f"egress of {source.called}"),
        (found.own_host, "ingress", f"own host of {source.called}"),
        *hosts,
        (found.ingress, "ingress", f"ingress of {destination.called}"),
    ):
        if decision is None:
            continue
        lines.append(f"{who}: {decision.verdict} ({by(decision, direction)})")
        for policy, rule in decision.logged:
            lines.append(f"{who}: logged (policy {policy}, spec.{direction}[{rule}])")
    return lines or ["nobody here has a say: neither end is judged by policies"]


def host(one: Passed) -> str:
    """Forwarding egress of host endpoint h1-uplink."""
    said = f"{one.direction.lower()} of host endpoint {one.endpoint}"
    return f"forwarding, {said}" if one.forwarded else said


def staged(found: Judgement, source: End, destination: End) -> list[str]:
    """What staged policies would deny, a line each."""
    hosts = [(one.staged, one.direction.lower(), host(one)) for one in found.hosts]
    return [
        f"{who}: {decision.verdict} ({by(decision, direction)})"
        for decision, direction, who in (
            (found.staged_egress, "egress", f"egress of {source.called}"),
            *hosts,
            (found.staged_ingress, "ingress", f"ingress of {destination.called}"),
        )
        if decision is not None
    ]


def deciding(found: Judgement, source: End, destination: End) -> str:
    """The line of the end that decided."""
    ends = Judgement(found.egress, found.own_host, found.ingress, found.hosts)
    lines = parts(ends, source, destination)
    if found.verdict is Verdict.ALLOW:
        return "; ".join(lines)
    return next(line for line in lines if f": {found.verdict} (" in line)


def flow(source: End, destination: End, packet: Packet) -> str:
    """web (10.0.0.1) -> db (10.0.0.2) TCP/5432."""

    def one(end: End) -> str:
        return end.called if end.called == str(end.address) else f"{end.called} ({end.address})"

    return f"{one(source)} -> {one(destination)} {told(packet)}"
