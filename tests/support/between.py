"""Between an agent and a real control plane: what passes is kept, and may be changed on the way.

So each can be shown another release of the other: answers and requests with more in them than this
one knows, and another version.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.auth import kubeconfig
from api.client import Client, context_of
from api.resources.versions import HEADER
from routed.agent import skew
from support.service import Service

Document = dict[str, Any]
KEPT = ("content-type", "authorization", "user-agent")
BACK = ("content-type", "warning", "retry-after", HEADER)


@dataclass
class Passed:
    """A request, as the agent made it, and its answer, as the service gave it; of a watch the
    lines."""

    method: str
    path: str
    kind: str
    body: Any
    status: int = 0
    answer: Any = None
    lines: list[Document] = field(default_factory=list)


def same(document: Document) -> Document:
    return document


class Between:
    """`shown` and `asked` change objects on their way to the agent and to the service; `version` is
    what the service says to be of (None: as it does), `extra` lines come first in every watch."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.passed: list[Passed] = []
        self.shown: Callable[[Document], Document] = same
        self.asked: Callable[[Document], Document] = same
        self.version: str | None = None
        self.extra: list[Document] = []
        self.url = ""
        self.watching: set[socket.socket] = set()

    def writes(self) -> list[Passed]:
        return [one for one in self.passed if one.method != "GET"]

    def end_watches(self) -> None:
        """As a control plane that is restarted does."""
        for connection in list(self.watching):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def back(self, document: Any) -> Any:
        """An answer on its way to the agent."""
        if isinstance(document, dict) and "items" in document:
            return {**document, "items": [self.shown(one) for one in document["items"]]}
        return self.shown(document) if _is_object(document) else document


def client_of(kubeconfig_file: Path, passing: Between) -> Client:
    """As `routed agent` makes it, through what stands between."""
    return Client.from_kubeconfig(
        kubeconfig_file, passing.url, program="routed-agent", judge=skew.of_service
    )


def _is_object(document: Any) -> bool:
    return isinstance(document, dict) and "spec" in document and "metadata" in document


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    between: Between
    http: httpx.Client
    opened: Callable[[], httpx.Client]

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        document = json.loads(body) if body else None
        kind = self.headers.get("content-type", "")
        passed = Passed(self.command, self.path, kind, document)
        if isinstance(document, dict) and {"spec", "status", "metadata"} & document.keys():
            body = json.dumps(self.between.asked(document)).encode()
        headers = {name: self.headers[name] for name in KEPT if name in self.headers}
        watching = "watch=1" in self.path  # on a connection of its own, which ends with it
        with (
            self.opened() if watching else contextlib.nullcontext(self.http) as http,
            http.stream(self.command, self.path, content=body, headers=headers) as got,
        ):
            passed.status = got.status_code
            self.between.passed.append(passed)
            self.send_response(got.status_code)
            said = {name: got.headers[name] for name in BACK if name in got.headers}
            if self.between.version is not None:
                said[HEADER] = self.between.version
            for name, value in said.items():
                self.send_header(name, value)
            if watching and got.status_code == 200:
                self._lines(got, passed)
            else:
                passed.answer = _json(got.read())
                data = self._answer(passed.answer, got.content)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    def _answer(self, answer: Any, data: bytes) -> bytes:
        if self.path == "/version" and self.between.version is not None:
            return json.dumps({"gitVersion": f"v1.30.0-routed.{self.between.version}"}).encode()
        return data if answer is None else json.dumps(self.between.back(answer)).encode()

    def _lines(self, got: httpx.Response, passed: Passed) -> None:
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.between.watching.add(self.connection)
        upstream = got.extensions["network_stream"].get_extra_info("socket")
        threading.Thread(target=follow, args=(self.connection, upstream), daemon=True).start()
        self.close_connection = True
        with contextlib.suppress(OSError, httpx.HTTPError, httpx.StreamError, RuntimeError):
            for extra in self.between.extra:
                self._chunk(extra)
            for line in got.iter_lines():
                event = json.loads(line)
                passed.lines.append(event)
                if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    event = {**event, "object": self.between.shown(event["object"])}
                self._chunk(event)
        self.between.watching.discard(self.connection)

    def _chunk(self, event: Document) -> None:
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        pass


def follow(one: socket.socket, other: socket.socket) -> None:
    """End `other` when `one` has ended: its reader may wait for the next line for long."""
    watched = select.poll()
    with contextlib.suppress(OSError, ValueError):
        watched.register(one.fileno(), select.POLLRDHUP)
        watched.poll()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(other, socket.SHUT_RDWR)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """An agent that went away."""


@contextlib.contextmanager
def between(service: Service) -> Iterator[Between]:
    """It shows the service's own certificate, on another port."""
    found = Between(service)
    access = kubeconfig.read(service.admin)
    timeout = httpx.Timeout(30.0, read=None)
    context = context_of(access)

    def opened(*_: object) -> httpx.Client:
        return httpx.Client(base_url=access.server, verify=context, timeout=timeout)

    client = opened()
    verbs = {f"do_{verb}": Handler.pass_on for verb in ("GET", "POST", "PUT", "PATCH", "DELETE")}
    handler = type(
        "Bound", (Handler,), {"between": found, "http": client, "opened": opened, **verbs}
    )
    server = Server(("127.0.0.1", 0), handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(service.directory / "server.crt", service.directory / "server.key")
    server.socket = tls.wrap_socket(  # one who connects and is gone must not hold up the next
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, name="between")
    thread.start()
    found.url = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        found.end_watches()
        client.close()
