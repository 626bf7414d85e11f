"""The service's own certificate: renewed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from api.auth import ca
from api.service import renewal

NAMES = ["localhost"]


async def shown(port: int, trusted: Path) -> x509.Certificate:
    """What a new connection is shown, verified as any client does."""
    context = ssl.create_default_context(cafile=str(trusted))
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(found)


def test_renewed_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "SERVER_DAYS", ca.RENEW_DAYS - 1)
    before = ca.ensure(tmp_path, NAMES)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(before.certificate, before.key)
    monkeypatch.setattr(ca, "SERVER_DAYS", 397)
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.05)

    looks, ensure = [0], ca.ensure

    def looked(directory: Path, names: list[str]) -> ca.Certificates:
        looks[0] += 1
        return ensure(directory, names)

    monkeypatch.setattr(ca, "ensure", looked)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def body() -> None:
        async with await asyncio.start_server(echo, "localhost", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            old = await shown(port, before.ca)
            trusting = ssl.create_default_context(cafile=str(before.ca))
            reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
            keeping = asyncio.create_task(renewal.keep_certificate(tmp_path, NAMES, context))
            deadline = time.monotonic() + 10
            while (new := await shown(port, before.ca)) == old:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert (new.not_valid_after_utc - old.not_valid_after_utc).days > 300
            writer.write(b"on\n")
            assert await reader.readline() == b"on\n", "what is open goes on"
            writer.close()
            latest = await shown(port, before.ca)
            seen = looks[0]
            while looks[0] < seen + 3:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert await shown(port, before.ca) == latest, "once"
            keeping.cancel()

    asyncio.run(body())
