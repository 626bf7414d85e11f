"""`routectl trace`: what policies say of a flow, and which rule says it.

Reads what is declared from the service and asks the reference evaluator. What a node does where no
tier decides, and its failsafe ports, are in its agent's settings, which the service does not know:
these are taken as they are by default.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import typer

from api.client import Client
from api.resources import HostEndpoint, NetworkPolicy, NetworkSet, Node, Tier, Workload
from api.resources.errors import Cause, ConfigError
from api.resources.meta import Resource
from api.resources.policy import NUMBERS
from policies.reference import Decision, Judgement, Packet, Passed, World, gathered, judge
from routed.ctl import explained, traffic
from routed.ctl.connection import Connection
from routed.ctl.traffic import End, What

KINDS: tuple[type[Resource], ...] = (
    Tier, NetworkPolicy, NetworkSet, HostEndpoint, Workload, Node,
)  # fmt: skip


async def declared(client: Client) -> list[Resource]:
    """Everything that policies are about."""
    found: list[Resource] = []
    for model in KINDS:
        found += await client.list(model)
    return found


def trace(
    connection: Connection,
    words: tuple[str, str],
    what: What,
    *,
    default: Literal["Allow", "Deny"],
    source_port: int,
    form: str,
) -> None:
    """Print it; ConfigError if an end is not known."""
    world = gathered(connection.run(declared), default)
    try:
        sources, destinations = (traffic.ends(world, word) for word in words)
        flows = traffic.packets(world, sources, destinations, what, source_port)
    except ValueError as error:
        raise ConfigError("trace", [Cause("", str(error))]) from None
    judged = [(*flow, judge(world, flow[2])) for flow in flows]
    if form == "json":
        typer.echo(json.dumps([_document(*one) for one in judged], indent=4))
        return
    for one in judged:
        typer.echo("\n".join(_lines(*one)))
        if note := mapped(world, one[2]):
            typer.echo(f"  {note}")
    typer.echo("routes and BGP: not looked at yet")


def mapped(world: World, packet: Packet) -> str:
    """What a port of a node is translated to before policies see it, where that is so; else ""."""
    at = packet.destination_port, packet.protocol
    for one in world.workloads:
        if packet.destination not in world.nodes.get(one.spec.node, ()):
            continue
        for port in one.spec.ports:
            if (port.host_port, NUMBERS[port.protocol]) == at:
                name = one.metadata.name
                return f"{one.spec.node} maps it to port {port.port} of {name}: trace that as well"
    return ""


def _lines(source: End, destination: End, packet: Packet, found: Judgement) -> list[str]:
    lines = [f"{explained.flow(source, destination, packet)}: {found.verdict}"]
    lines += [f"  {line}" for line in explained.parts(found, source, destination)]
    lines += [f"  staged: {line}" for line in explained.staged(found, source, destination)]
    return lines


def _document(source: End, destination: End, packet: Packet, found: Judgement) -> dict[str, Any]:
    return {
        "from": {"name": source.called, "address": str(source.address)},
        "to": {"name": destination.called, "address": str(destination.address)},
        "what": traffic.told(packet),
        "verdict": found.verdict,
        "egress": _decision(found.egress),
        "ownHost": _decision(found.own_host),
        "hostEndpoints": [_host(one) for one in found.hosts],
        "ingress": _decision(found.ingress),
        "stagedEgress": _decision(found.staged_egress),
        "stagedIngress": _decision(found.staged_ingress),
    }


def _host(one: Passed) -> dict[str, Any]:
    return {
        "name": one.endpoint,
        "node": one.node,
        "direction": one.direction,
        "forwarded": one.forwarded,
        "decision": _decision(one.decision),
        "staged": _decision(one.staged),
    }


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    return {
        "verdict": decision.verdict,
        "by": decision.by,
        "tier": decision.tier or None,
        "policy": decision.policy or None,
        "rule": decision.rule,
        "logged": [{"policy": policy, "rule": rule} for policy, rule in decision.logged],
    }
