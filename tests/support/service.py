"""A real service process on loopback, over TLS."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import yaml

from api.auth import kubeconfig
from api.auth.kubeconfig import Access
from api.client import context_of
from routed.lab.processes import free_port


@dataclass(frozen=True)
class Service:
    directory: Path
    admin: Path
    pid: int

    def http(
        self, config: Path | Access | None = None, *, token: str | None = None
    ) -> httpx.Client:
        """A plain client with the credentials of `config`, or with `token`."""
        access = config if isinstance(config, Access) else kubeconfig.read(config or self.admin)
        if token is not None:
            access = replace(access, token=token, certificate=b"", key=b"")
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        return httpx.Client(
            base_url=f"{access.server}/apis/routed.dev/v1",
            verify=context_of(access),
            headers=headers,
            timeout=10,
        )


def tls_socket(access: Access) -> ssl.SSLSocket:
    """A connection to the service, to be written to by hand."""
    host, _, port = access.server.removeprefix("https://").rpartition(":")
    plain = socket.create_connection((host, int(port)), 30)
    return context_of(access).wrap_socket(plain, server_hostname=host)


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


@contextlib.contextmanager
def running_service(directory: Path, **settings: object) -> Iterator[Service]:
    """`routed server` on a port of its own, with its data in `directory`."""
    port = free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(directory)]
    words += ["--listen", f"127.0.0.1:{port}"]
    if settings:
        config = directory / "server.yaml"
        config.write_text(yaml.safe_dump(settings))
        words += ["--config", str(config)]
    admin = directory / "admin.kubeconfig"
    with process(words, admin, port, directory / "log") as pid:
        yield Service(directory, admin, pid)


@contextlib.contextmanager
def replica(directory: Path, store: str, ca_of: Path | None = None) -> Iterator[Service]:
    """A service on `store`, with the CA of another one."""
    directory.mkdir(exist_ok=True)
    for name in ("ca.crt", "ca.key") if ca_of else ():
        shutil.copy(ca_of / name, directory / name)  # type: ignore[operator]
    port = free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(directory)]
    words += ["--listen", f"127.0.0.1:{port}", "--store", store]
    admin = directory / "admin.kubeconfig"
    with process(words, admin, port, directory / "log") as pid:
        yield Service(directory, admin, pid)
