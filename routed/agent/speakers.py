"""What the speaker says at its second socket, over HTTP: its metrics, and what it announces.

An older one answers every path with its metrics; what it announces is then not known.
"""

from __future__ import annotations

import httpx

from api.resources.net import IPNetwork, parse_cidr
from routed.settings import AgentSettings

PATIENCE = 2.0  # seconds


async def metrics(settings: AgentSettings) -> bytes:
    """In the exposition format; nothing if it does not answer."""
    answer = await _asked(settings, "/metrics")
    return b"" if answer is None else answer.content


async def told(settings: AgentSettings) -> frozenset[IPNetwork] | None:
    """Every prefix that it is to announce, whoever told it so; None if it does not say."""
    answer = await _asked(settings, "/advertised")
    if answer is None or not answer.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        return frozenset(map(parse_cidr, answer.json()["items"]))
    except (ValueError, KeyError, TypeError):
        return None


async def _asked(settings: AgentSettings, path: str) -> httpx.Response | None:
    path_of = str(settings.speaker_metrics_socket)
    transport = httpx.AsyncHTTPTransport(uds=path_of, verify=False)  # no TLS: no CAs to load
    try:
        async with httpx.AsyncClient(
            transport=transport, timeout=PATIENCE, trust_env=False
        ) as client:
            return await client.get(f"http://speaker{path}")
    except httpx.HTTPError:
        return None
