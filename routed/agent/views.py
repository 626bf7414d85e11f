"""What an agent says of itself: readiness, status, the Node's conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from api.resources import Condition
from policies.counters import Count
from routed.agent import flapping, renumbered, skew
from routed.agent.counting import Rule
from routed.agent.plan import unused_peers
from routed.state import ForwardRefused

if TYPE_CHECKING:
    from routed.agent.agent import Agent

FINDINGS_MOST = 1000  # in a status
YIELD_EVERY = 2000  # prefixes


def not_ready(agent: Agent) -> list[str]:
    """Why attaching would not work; empty: it would."""
    found = []
    if agent.intent is None:
        found.append("the control plane has never been reached")
    if not agent.filtering.ready:
        found.append("the filter table is not in place")
    if not agent.rounds:
        found.append("the kernel has not been read back yet")
    found += [f"forwarding is blocked; run: {one.remedy}" for one in agent.filtering.blocking]
    return found


def conditions(agent: Agent) -> list[Condition]:
    """The Node's conditions: Ready when attaching works, BGPEstablished when all sessions are,
    AddressesConsistent when nothing differs, PoliciesEnforced when they are as declared."""
    missing = not_ready(agent)
    ready = Condition(
        type="Ready",
        status="False" if missing else "True",
        reason="NotReady" if missing else "AgentReady",
        message="; ".join(missing),
    )
    speech, unread = agent.speech, agent.control.known.unread
    sessions = speech.sessions
    down = sorted(name for name, one in sessions.items() if one.state != "Established")
    unused = unused_peers(agent.intent) if agent.intent else {}
    if not speech.connected:
        reason = "NoSpeaker"
    else:
        reason = "SessionsDown" if down else "PeersNotUsed" if unused else "SessionsUp"
    speaking = Condition(
        type="BGPEstablished",
        status="True" if reason == "SessionsUp" else "False",
        reason=reason,
        message=", ".join([*down, *(f"{name} is {why}" for name, (_, why) in unused.items())]),
    )
    blocked = Condition(
        type="ForwardBlocked",
        status="True" if agent.filtering.blocking else "False",
        reason="ForeignPolicyDrop" if agent.filtering.blocking else "NotBlocked",
        message="; ".join(one.told() for one in agent.filtering.blocking),
    )
    skewed = skew.condition(
        agent.control.skew, skew.of_speaker(speech.version) if speech.connected else "", unread
    )
    refused = next((e for e in agent.report.failed.values() if isinstance(e, ForwardRefused)), None)
    forwarding = Condition(
        type="ForwardIPv6Refused",
        status="True" if refused else "False",
        reason="DefaultRouteByAdvertisement" if refused else "NotRefused",
        message=str(refused or ""),
    )
    removed = flapping.condition(agent.kernel.removals, time.monotonic())
    switched = agent.switched.condition(time.monotonic())
    node = agent.intent.node if agent.intent else None
    moved = renumbered.condition(node, agent.own.chosen)
    agreed = agent.agreement.condition()
    policed = agent.guard.condition()
    return [ready, speaking, blocked, forwarding, removed, switched, moved, skewed, agreed, policed]


def routes(agent: Agent, peers: Collection[str]) -> list[dict[str, Any]]:
    """`GET /v1/routes`: the paths that peers (none named: all) have told us; `used` are those of
    prefixes that became routes of this host, over the same gateways."""
    learned = agent.imports.learned
    found = []
    for prefix, paths in agent.speech.paths.items():
        hops = {hop.gateway for hop in learned[prefix].next_hops} if prefix in learned else set()
        for peer, path in paths.items():
            if peers and peer not in peers:
                continue
            found.append(
                {
                    "prefix": str(prefix),
                    "peer": peer,
                    "nextHops": [str(hop) for hop in path.next_hops],
                    "asPath": list(path.as_path),
                    "stale": path.stale,
                    "used": bool(hops) and hops.issuperset(path.next_hops),
                }
            )
    return found


def counter(rule: Rule, count: Count) -> dict[str, Any]:
    """One of `GET /v1/counters`."""
    return {**rule._asdict(), "packets": count.packets, "bytes": count.octets}


def status(agent: Agent) -> dict[str, Any]:
    """`GET /v1/status`."""
    speech = agent.speech
    received = speech.received()
    sessions = [
        {
            "peer": session.peer,
            "address": str(session.address),
            "state": session.state,
            "since": session.since,
            "error": session.error,
            "families": [f"IPv{version}" for version in session.families],
            "received": received[session.peer],
        }
        for session in speech.sessions.values()
    ]
    unused = unused_peers(agent.intent) if agent.intent else {}
    for name, (address, why) in unused.items():
        idle = {"peer": name, "address": str(address), "state": "Idle", "since": time.time()}
        sessions.append({**idle, "error": why, "families": [], "received": 0})
    return {
        "node": agent.settings.node,
        "versions": agent.versions(),
        "addresses": [one.wire() for one in agent.own.status()],
        "ready": not not_ready(agent),
        "controlPlane": "in sync" if agent.control.in_sync else "out of reach",
        "controlPlaneProblem": agent.control.problem,
        "speaker": "connected" if speech.connected else "out of reach",
        "workloads": len(agent.records),
        "bgp": {
            "sessions": sessions,
            "advertised": speech.advertised,
            "received": received.total(),
        },
        "failed": {key: str(error) for key, error in agent.report.failed.items()},
        "findings": agent.agreement.findings[:FINDINGS_MOST],
        "conditions": [condition.wire() for condition in conditions(agent)],
    }


async def received(agent: Agent) -> dict[str, Any]:
    """`GET /v1/received`: of each peer what it shows of our pools, each prefix with the AS that it
    comes from (null: of ours). Others get their turn while it is put together."""
    pools, found = agent.intent.pool_index if agent.intent else None, _peers(agent)
    for number, (prefix, paths) in enumerate(list(agent.speech.paths.items())):
        if number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        if pools is None or not prefix.prefixlen or pools.find(prefix.network_address) is None:
            continue
        for peer, path in paths.items():
            if peer in found and not path.stale:
                origin = path.as_path[-1] if path.as_path else None
                found[peer]["prefixes"].append([str(prefix), origin])
    return found


def _peers(agent: Agent) -> dict[str, dict[str, Any]]:
    whole = agent.speech.received_whole
    return {
        name: {
            "version": one.address.version,
            "versions": list(one.families or (one.address.version,)),
            "prefixes": [],
        }
        for name, one in agent.speech.sessions.items()
        if whole and one.state == "Established"
    }
