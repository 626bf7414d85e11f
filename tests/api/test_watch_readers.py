"""Readers of watches that go away, and a service that stops under them."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import httpx
from support.service import running_service, tls_socket

from api.auth import kubeconfig
from api.service.run import GRACE_SECONDS
from routed.lab.processes import resident

SECONDS = 10.0  # for what must come


def _watches(http: httpx.Client) -> float:
    """How many of nodes are open, by the service's own count."""
    text = http.get(f"{str(http.base_url).partition('/apis')[0]}/metrics").text
    found = re.search(r'^routed_api_watches\{resource="nodes"\} (\S+)$', text, flags=re.M)
    return float(found[1]) if found else 0.0


def test_a_reader_that_goes_away_is_noticed_and_a_stop_ends_watches_at_once(
    tmp_path: Path,
) -> None:
    with running_service(tmp_path) as service, service.http() as http:

        def until_there_are(count: int) -> None:
            deadline = time.monotonic() + SECONDS
            while _watches(http) != count:
                assert time.monotonic() < deadline, _watches(http)
                time.sleep(0.01)

        access = kubeconfig.read(service.admin)
        sockets = [tls_socket(access) for _ in range(20)]
        ask = (
            "GET /apis/routed.dev/v1/nodes?watch=1 HTTP/1.1\r\nhost: a\r\n"
            f"authorization: Bearer {access.token}\r\n\r\n"
        )
        for one in sockets:
            one.sendall(ask.encode())
        until_there_are(20)
        for one in sockets[:15]:  # in the middle of a watch where nothing happens
            one.close()
        until_there_are(5)
        before = time.monotonic()
        os.kill(service.pid, signal.SIGTERM)
        for one in sockets[15:]:
            while one.recv(65_536):
                pass
            one.close()
        assert time.monotonic() - before < GRACE_SECONDS
    assert "Traceback" not in (service.directory / "log").read_text()


def test_readers_that_are_gone_take_no_memory(tmp_path: Path) -> None:
    """Nothing of a connection waits for the garbage collector, which comes seldom."""
    count, held = 300, list[int]()
    with running_service(tmp_path) as service:
        access = kubeconfig.read(service.admin)
        ask = (
            "GET /apis/routed.dev/v1/nodes?watch=1 HTTP/1.1\r\nhost: a\r\n"
            f"authorization: Bearer {access.token}\r\n\r\n"
        )
        for _ in range(4):
            sockets = [tls_socket(access) for _ in range(count)]
            for one in sockets:
                one.sendall(ask.encode())
            for one in sockets:
                assert one.recv(100).startswith(b"HTTP/1.1 200")
            held.append(resident(service.pid))
            for one in sockets:
                one.close()
    assert (held[3] - held[1]) / (2 * count) < 10, "KiB for each that is gone"
