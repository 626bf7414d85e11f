"""Blocking HTTP to whichever replica answers, with one question: was it done?"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

ROOT = "/apis/routed.dev/v1"
CONNECT_SECONDS = 0.7
ANSWER_SECONDS = 2.0
SILENCE_SECONDS = 1.0  # of a watch, which is then taken up anew


class Unsent(Exception):
    """No replica could be reached: nothing was asked."""


class Unanswered(Exception):
    """It may have been done, or still be."""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    document: dict[str, Any]
    text: str = ""

    @property
    def reason(self) -> str:
        return str(self.document.get("reason", ""))


@dataclass
class Web:
    """One identity; not for several threads. Each request goes to one replica, by chance."""

    servers: Sequence[str]  # HOST:PORT
    ca: str
    token: str
    chance: random.Random
    _open: dict[str, http.client.HTTPSConnection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._context = ssl.create_default_context(cadata=self.ca)
        self._headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
        }

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Unsent, or Unanswered."""
        connection, server = self._connected()
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"{ROOT}{path}", data, self._headers)
            response = connection.getresponse()
            said = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._drop(server)
            raise Unanswered(f"{method} {path}: {error!r}") from error
        try:
            document = json.loads(said)
        except ValueError:
            return Answer(response.status, {}, said)
        return Answer(response.status, document if isinstance(document, dict) else {}, said)

    def lines(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Those of a watch, until it ends, whyever; at once if it is refused."""
        try:
            connection, server = self._connected()
        except Unsent:
            return
        del self._open[server]
        try:
            assert connection.sock is not None
            connection.sock.settimeout(SILENCE_SECONDS)
            whole = f"{ROOT}{path}?{urllib.parse.urlencode(query)}"
            connection.request("GET", whole, headers=self._headers)
            response = connection.getresponse()
            if response.status != 200:
                yield {"type": "ERROR", "object": json.loads(response.read())}
                return
            while line := response.readline():
                if line.endswith(b"\n"):  # else it was torn
                    yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _connected(self) -> tuple[http.client.HTTPSConnection, str]:
        for server in self.chance.sample(self.servers, len(self.servers)):
            held = self._open.get(server)
            if held is not None:
                return held, server
            host, _, port = server.rpartition(":")
            made = http.client.HTTPSConnection(
                host, int(port), timeout=CONNECT_SECONDS, context=self._context
            )
            try:
                made.connect()
            except OSError:
                made.close()
                continue
            made.sock.settimeout(ANSWER_SECONDS)
            self._open[server] = made
            return made, server
        raise Unsent(", ".join(self.servers))

    def _drop(self, server: str) -> None:
        self._open.pop(server).close()

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()
