"""A client of the agent's socket that costs next to nothing: one connection, one request at a time.

What it measures is the agent: httpx alone would take longer than the attach.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


class Api:
    """HTTP/1.1 with keep-alive over a unix socket."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(30)
        self._link.connect(str(path))

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def request(method: str, path: str, body: object = None) -> bytes:
        """The bytes of a request, made before the clock runs."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(data)}\r\n\r\n"
        return head.encode() + data

    def raw(self, request: bytes) -> tuple[int, bytes]:
        """(status, body) of the answer."""
        self._link.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next(
            int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += self._more()
        return int(lines[0].split()[1]), body

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The document that was answered; RuntimeError for a refusal."""
        code, data = self.raw(self.request(method, path, body))
        if code >= 400:
            raise RuntimeError(f"{method} {path}: {code} {data.decode(errors='replace')[:300]}")
        return json.loads(data)

    def _more(self) -> bytes:
        data = self._link.recv(1 << 16)
        if not data:
            raise RuntimeError("the agent closed the connection")
        return data
