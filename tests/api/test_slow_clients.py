"""Clients that send a request slowly, endlessly or not at all, against a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import ssl
import time
from contextlib import AsyncExitStack, ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import cast

import pytest
from support.service import Service, tls_socket

from api.auth import kubeconfig
from api.client import Client
from api.client.transport import BEATS
from api.resources import Node, ObjectMeta
from api.service import heartbeats
from api.service.connections import BEATEN_SECONDS, BODY_SECONDS, HEAD_BYTES, HEAD_SECONDS
from api.service.crowd import IN_FLIGHT

TRICKLING = 200
AFTER = 5.0  # seconds past a deadline, on a machine that is busy
PATH = b"/apis/routed.dev/v1/nodes"
GET = b"GET " + PATH + b" HTTP/1.1\r\nHost: x\r\n"


def connected(config: Path) -> ssl.SSLSocket:
    return tls_socket(kubeconfig.read(config))


def answer(held: ssl.SSLSocket, seconds: float) -> tuple[int, dict[str, str]]:
    """Status and body of what comes before the connection ends; it must within `seconds`."""
    deadline, said = time.monotonic() + seconds, b""
    while True:
        held.settimeout(max(0.1, deadline - time.monotonic()))
        came = held.recv(1 << 16)
        if not came:
            break
        said += came
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def token(service: Service) -> bytes:
    return b"Authorization: Bearer " + kubeconfig.read(service.admin).token.encode() + b"\r\n"


def test_a_connection_that_says_nothing_is_closed_and_one_between_heartbeats_kept(
    service: Service,
) -> None:
    assert heartbeats.EVERY_SECONDS <= HEAD_SECONDS
    assert heartbeats.EVERY_SECONDS < (BEATS.keepalive_expiry or 0) < BEATEN_SECONDS

    def silent() -> tuple[int, dict[str, str]]:
        with connected(service.admin) as held:
            return answer(held, HEAD_SECONDS + AFTER)

    async def body() -> None:
        client = Client.from_kubeconfig(service.admin)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            ports = []
            node = await client.create(Node(metadata=ObjectMeta(name="beating")))
            stack.push_async_callback(client.delete, Node, "beating", uid=node.metadata.uid)
            for _ in range(2):
                assert await client.heartbeat("beating") == heartbeats.EVERY_SECONDS
                pool = client._http._transport.beats._pool  # type: ignore[attr-defined]
                (held,) = pool.connections
                ports.append(held._connection._network_stream.get_extra_info("client_addr"))
                if len(ports) == 1:
                    code, status = await asyncio.to_thread(silent)
            assert (code, status["reason"]) == (408, "RequestTimeout")
            assert "its head did not come in 10 s" in status["message"]
            assert ports[0] == ports[1]

    asyncio.run(body())


def test_a_body_that_does_not_come_ends_the_request(service: Service) -> None:
    with connected(service.admin) as held:
        more = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        held.sendall(GET.replace(b"GET", b"POST", 1) + token(service) + more)
        code, status = answer(held, BODY_SECONDS + AFTER)
    assert (code, status["reason"]) == (408, "RequestTimeout")
    assert "its body did not come in 30 s" in status["message"]


def test_a_head_without_end_is_refused_when_it_is_too_large(service: Service) -> None:
    with connected(service.admin) as held:
        held.sendall(GET)
        with contextlib.suppress(OSError):
            for _ in range(2 * HEAD_BYTES // 1024):
                held.sendall(b"X-More: " + b"x" * 1014 + b"\r\n")
        code, status = answer(held, HEAD_SECONDS / 2)
    assert (code, status["reason"]) == (431, "RequestHeaderFieldsTooLarge")


def test_a_request_in_pieces_is_answered_and_the_connection_kept(service: Service) -> None:
    with connected(service.admin) as held:
        for _ in range(2):
            for part in (b"\r\n", GET[:7], GET[7:] + token(service)[:5], token(service)[5:]):
                held.sendall(part)
            held.sendall(b"\r\n")
            held.settimeout(10)
            reply = HTTPResponse(held)
            reply.begin()
            assert reply.status == 200
            assert json.loads(reply.read())["kind"] == "NodeList"


def over(held: ssl.SSLSocket) -> bool:
    """Whether the service has closed it; what it said before, and TLS itself, do not count."""
    try:
        return not held.recv(1 << 16)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True


def test_many_that_trickle_are_closed_while_others_are_served(service: Service) -> None:
    """Each sends a byte whenever we get round to it; none lasts longer than a head may take."""
    with selectors.DefaultSelector() as ended, service.http() as client:
        began = time.monotonic()
        for _ in range(TRICKLING):
            held = connected(service.admin)
            held.sendall(GET)
            held.setblocking(False)
            ended.register(held, selectors.EVENT_READ)
        last, served = time.monotonic(), 0
        while ended.get_map():
            assert time.monotonic() < last + HEAD_SECONDS + AFTER
            assert client.get("/nodes").status_code == 200
            served += 1
            for key in list(ended.get_map().values()):
                with contextlib.suppress(OSError):
                    cast(ssl.SSLSocket, key.fileobj).send(b"x")
            for key, _ in ended.select(0.1):
                if over(cast(ssl.SSLSocket, key.fileobj)):
                    ended.unregister(key.fileobj)
                    cast(ssl.SSLSocket, key.fileobj).close()
        assert time.monotonic() - began > HEAD_SECONDS / 2, "they were let in"
        assert served > 10


def test_one_who_floods_waits_for_himself_and_nobody_for_him(service: Service) -> None:
    viewer = service.directory / "viewer.kubeconfig"
    with service.http() as admin:
        made = admin.post("/users/reader/credentials", json={"role": "viewer"})
    viewer.write_text(made.text)
    more = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    half = GET.replace(b"GET", b"POST", 1) + token(service) + more
    with service.http() as admin, service.http(viewer) as reader, ExitStack() as flood:
        for _ in range(IN_FLIGHT):
            flood.enter_context(connected(service.admin)).sendall(half)
        deadline = time.monotonic() + 10
        while (refused := admin.get("/nodes")).status_code == 200:
            assert time.monotonic() < deadline
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["reason"] == "TooManyRequests"
        assert "256 of admin are under way" in refused.json()["message"]
        assert reader.get("/nodes").status_code == 200

        async def patient() -> list[Node]:
            client = Client.from_kubeconfig(service.admin)
            try:
                asking = asyncio.create_task(client.list(Node))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(asking), 0.5)
                flood.close()
                return await asking
            finally:
                await client.close()

        assert asyncio.run(patient()) == []
        assert admin.get("/nodes").status_code == 200
