"""`routectl trace`: what policies say of a flow, which rule says it, and the way that it takes.

Reads what is declared from the service and asks the reference evaluator. What a node does where no
tier decides, and its failsafe ports, are in its agent's settings, which the service does not know:
these are taken as they are by default. The agents of both ends are asked through the service for
their routes, sessions and announcements.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Literal

import typer
import yaml

from api.client import Client
from api.resources import HostEndpoint, NetworkPolicy, NetworkSet, Node, Tier, Workload
from api.resources.errors import Cause, ConfigError, IntentError
from api.resources.meta import Resource
from api.resources.policy import NUMBERS
from policies.reference import Decision, Judgement, Packet, Passed, World, gathered, judge
from routed.ctl import explained, paths, pathsaid, traffic
from routed.ctl.connection import Connection
from routed.ctl.paths import Fabric, Question
from routed.ctl.traffic import End, What

KINDS: tuple[type[Resource], ...] = (
    Tier, NetworkPolicy, NetworkSet, HostEndpoint, Workload, Node,
)  # fmt: skip


ASKED_MOST = 32  # questions to agents of one trace


async def declared(client: Client) -> list[Resource]:
    """Everything that policies and paths are about."""
    found: list[Resource] = []
    for model in (*KINDS, *paths.KINDS):
        found += await client.list(model)
    return found


async def asked(
    client: Client, fabric: Fabric, questions: Iterable[Question]
) -> dict[Question, dict[str, Any] | str]:
    """The answer of each agent, or why there is none."""

    async def one(question: Question) -> dict[str, Any] | str:
        if why := fabric.unasked(question.node):
            return why
        try:
            return await client.way(question.node, question.to, question.source)
        except IntentError as error:  # of an older service too
            return str(error)

    every = dict.fromkeys(questions)
    if len(every) > ASKED_MOST:
        return dict.fromkeys(every, f"more than {ASKED_MOST} questions: trace fewer flows")
    return dict(zip(every, await asyncio.gather(*map(one, every)), strict=True))


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
    objects = connection.run(declared)
    world, fabric = gathered(objects, default), Fabric(objects)
    try:
        sources, destinations = (traffic.ends(world, word) for word in words)
        flows = traffic.packets(world, sources, destinations, what, source_port)
    except ValueError as error:
        raise ConfigError("trace", [Cause("", str(error))]) from None
    ends = [(fabric.place(source), fabric.place(destination)) for source, destination, _ in flows]
    wanted = [question for pair in ends for question in paths.questions(*pair)]
    answers = connection.run(lambda client: asked(client, fabric, wanted))
    judged = [(*flow, judge(world, flow[2])) for flow in flows]
    ways = [paths.path(fabric, *pair, answers) for pair in ends]
    if form:
        found = [{**_document(*one), "path": way} for one, way in zip(judged, ways, strict=True)]
        text = json.dumps(found, indent=4)
        plain = yaml.safe_dump(json.loads(text), sort_keys=False).rstrip()
        typer.echo(text if form == "json" else plain)
        return
    for one, way in zip(judged, ways, strict=True):
        typer.echo("\n".join(_lines(*one)))
        if note := mapped(world, one[2]):
            typer.echo(f"  {note}")
        for line in pathsaid.lines(way):
            typer.echo(f"  path: {line}")


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
