"""A forward proxy for builds inside a namespace that leads nowhere.

It listens inside the namespace and connects from outside, so that package managers in a container
reach what those of this machine reach, and nothing of a container's traffic leaves the namespace.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from routed.kernel import netns

PATIENCE = 60.0


def listening(namespace: str) -> socket.socket:
    """A socket that listens on loopback inside `namespace`."""
    home = netns.open_own()
    try:
        with (
            Path(f"/run/netns/{namespace}").open("rb") as target,
            netns.entered(home, target.fileno()),
        ):
            return socket.create_server(("127.0.0.1", 0))
    finally:
        os.close(home)


class Handler(http.server.BaseHTTPRequestHandler):
    """CONNECT for https; GET of a whole URL for http, one request a connection."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as onward:
            self.send_response(200)
            self.end_headers()
            relay(self.connection, onward)
        self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        assert url.hostname
        with socket.create_connection((url.hostname, url.port or 80), PATIENCE) as onward:
            dropped = ("connection", "proxy-connection")
            kept = [f"{k}: {v}" for k, v in self.headers.items() if k.lower() not in dropped]
            path = url._replace(scheme="", netloc="").geturl() or "/"
            lines = [f"GET {path} HTTP/1.1", *kept, "Connection: close", "", ""]
            onward.sendall("\r\n".join(lines).encode())
            while data := onward.recv(1 << 16):
                self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until either ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select(PATIENCE) or [(None, 0)]:
                if key is None or not isinstance(key.fileobj, socket.socket):
                    return
                data = key.fileobj.recv(1 << 16)
                if not data:
                    return
                key.data.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away; its package manager says what it lacks."""


@contextlib.contextmanager
def proxy(namespace: str) -> Iterator[str]:
    """Its URL, inside the namespace, while the block runs."""
    listener = listening(namespace)
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    thread = threading.Thread(target=server.serve_forever, name="proxy")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
