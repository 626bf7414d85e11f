"""A real service process on loopback, over TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from api.auth import kubeconfig


@dataclass(frozen=True)
class Service:
    directory: Path
    admin: Path
    pid: int

    def http(self, config: Path | None = None, *, token: str | None = None) -> httpx.Client:
        """A plain client with the credentials of `config`, or with `token`."""
        url, ca, known = kubeconfig.parse(config or self.admin)
        context = ssl.create_default_context(cadata=ca.decode())
        held = known if token is None else token
        headers = {"Authorization": f"Bearer {held}"} if held else {}
        return httpx.Client(
            base_url=f"{url}/apis/routed.dev/v1", verify=context, headers=headers, timeout=10
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(words: list[str], ready: Path, port: int, log: Path) -> Iterator[int]:
    """Run until the block ends; it is ready when the file is there and the port answers."""
    with log.open("wb") as output:
        child = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while True:
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                if ready.exists():
                    break
            time.sleep(0.02)
        yield child.pid
    finally:
        child.terminate()
        child.wait(15)
