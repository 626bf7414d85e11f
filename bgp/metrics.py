"""What the speaker measures of itself, for Prometheus: answered at a unix socket, over HTTP.

The agent's /metrics includes it, so one target a host is enough; the socket answers also while no
agent is there. At /advertised is what it is to announce, whoever told it so: an agent compares it
with what it has said itself. Whatever else is asked, the answer is the metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from bgp.speaker import Speaker

PATIENCE = 5.0  # seconds for a client to send its request


class SpeakerMetrics(Collector):
    """Read from the speaker when asked for."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterable[Metric]:
        speaker = self._speaker
        starts = CounterMetricFamily("routed_speaker_exabgp_starts", "ExaBGPs started.")
        starts.add_metric([], speaker.exabgp.starts)
        yield starts
        flaps = CounterMetricFamily(
            "routed_speaker_session_ends", "Established sessions that ended.", labels=["peer"]
        )
        for peer, count in speaker.ended.items():
            flaps.add_metric([peer], count)
        yield flaps
        labelled = {
            "routed_speaker_session_established": "1: Established.",
            "routed_speaker_received_paths": "Paths of this peer.",
            "routed_speaker_refused_paths": "Paths refused: loops, or beyond maxPrefixes.",
            "routed_speaker_pending_changes": "Changes not handed to ExaBGP yet.",
        }
        found = {
            name: GaugeMetricFamily(name, text, labels=["peer"]) for name, text in labelled.items()
        }
        for address, inbound in speaker.inbound.items():
            name = inbound.peer.name
            session = speaker.sessions.get(name)
            up = session is not None and session.state == "Established"
            values = (
                int(up), len(inbound.paths), inbound.refused, len(speaker.outbound[address].dirty),
            )  # fmt: skip
            for family, value in zip(found.values(), values, strict=True):
                family.add_metric([name], value)
        yield from found.values()
        wanted = len(speaker.wanted)
        yield GaugeMetricFamily("routed_speaker_advertised_prefixes", "To announce.", value=wanted)
        whole = int(speaker.complete)
        yield GaugeMetricFamily("routed_speaker_complete", "1: End-of-RIB may go.", value=whole)
        commands = speaker.exabgp.outstanding
        yield GaugeMetricFamily("routed_speaker_commands", "Unanswered commands.", value=commands)

    def _body(self, advertised: bool) -> tuple[bytes, str]:
        if advertised:
            items = sorted(map(str, self._speaker.wanted))
            return json.dumps({"items": items}).encode(), "application/json"
        return generate_latest(self._registry), "text/plain; version=0.0.4"

    async def serve(self, path: Path) -> None:
        """Answer until cancelled; the socket is the owner's alone."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path, limit=1 << 14)
        path.chmod(0o600)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                asked = await reader.readuntil(b"\r\n\r\n")
                body, kind = self._body(asked.split(maxsplit=2)[1:2] == [b"/advertised"])
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
                writer.write(f"{head}Content-Type: {kind}\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # a client that went away, or sends no request
        finally:
            with contextlib.suppress(OSError):
                writer.close()
