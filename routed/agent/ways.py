"""What this host knows of its way to an address: the kernel's route, what peers have told of it,
and, where it is announced from here, to whom. For `routectl trace`, by the local API and through
the service.

Only what is so here is said: what a switch does with a packet is the switch's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from api.resources.net import IPAddress, IPNetwork
from bgp.seam import Path
from routed.agent import speakers
from routed.agent.attachment import Attachment
from routed.agent.plan import sessions
from routed.kernel import ways
from routed.kernel.ways import NONE, Way

if TYPE_CHECKING:
    from routed.agent.agent import Agent


async def way(agent: Agent, to: IPAddress, source: IPAddress | None = None) -> dict[str, Any]:
    """`GET /v1/way`. `source`: of what comes from there, where a workload of this host has it.
    ApplyError, if the kernel does not say."""
    here, sender = _holder(agent, to), _holder(agent, source)
    link = sender.host_interface if sender is not None else ""
    found = await asyncio.to_thread(ways.way, to, source, link)
    told = await speakers.told(agent.settings)
    stated = set(agent.speech.prefixes())
    announced = [prefix for prefix in covering(to) if prefix in stated]
    return {
        "node": agent.settings.node,
        "address": str(to),
        "route": _route(agent, found),
        "learned": _learned(agent, to, found),
        "workload": here.id if here is not None else "",
        "interface": here.host_interface if here is not None else "",
        "ready": here is not None and here.id in agent.ready,
        "announced": [
            {"prefix": str(prefix), "speaker": None if told is None else prefix in told}
            for prefix in announced
        ],
        "sessions": sessions(agent.intent, agent.speech.sessions),
    }


def covering(address: IPAddress) -> Iterable[IPNetwork]:
    """The prefixes that hold it, the longest first."""
    for length in range(address.max_prefixlen, -1, -1):
        yield ip_network((address, length), strict=False)


def _holder(agent: Agent, address: IPAddress | None) -> Attachment | None:
    """Whose address it is here; of a namespace that is shared, its holder."""
    found = (one for one in agent.records.held.values() if address in one.addresses)
    return next((one for one in found if not one.shared_with), None)


def _route(agent: Agent, found: Way) -> dict[str, Any]:
    peers = {one.address: one.peer for one in agent.speech.sessions.values()}
    for paths in _paths(agent, found.prefix).values():
        peers.update(dict.fromkeys(paths.next_hops, paths.peer))
    return {
        "prefix": str(found.prefix) if found.prefix is not None else "",
        "kind": found.kind,
        "protocol": found.protocol,
        "metric": found.metric,
        "nextHops": [
            {
                "gateway": str(gateway) if gateway is not None else "",
                "interface": interface,
                "peer": peers.get(gateway, "") if gateway is not None else "",
            }
            for gateway, interface in found.hops
        ],
    }


def _learned(agent: Agent, to: IPAddress, found: Way) -> list[dict[str, Any]]:
    """The paths of the longest prefix that peers have told of, if it is no shorter than that of the
    route: what the route is before is not asked."""
    shortest = found.prefix.prefixlen if found.prefix is not None else int(found.kind != NONE)
    for prefix in covering(to):
        if prefix.prefixlen >= shortest and (paths := _paths(agent, prefix)):
            hops = {gateway for gateway, _ in found.hops}
            return [
                {
                    "prefix": str(prefix),
                    "peer": name,
                    "asPath": list(path.as_path),
                    "nextHops": [str(hop) for hop in path.next_hops],
                    "stale": path.stale,
                    "used": prefix == found.prefix and not hops.isdisjoint(path.next_hops),
                }
                for name, path in sorted(paths.items())
            ]
    return []


def _paths(agent: Agent, prefix: IPNetwork | None) -> dict[str, Path]:
    return agent.speech.paths.get(prefix, {}) if prefix is not None else {}
