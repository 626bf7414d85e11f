"""A real service process on loopback, over TLS."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.service import Service, free_port, process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("server")
    port = free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(directory)]
    words += ["--listen", f"127.0.0.1:{port}"]
    admin = directory / "admin.kubeconfig"
    with process(words, admin, port, directory / "log") as pid:
        yield Service(directory, admin, pid)
