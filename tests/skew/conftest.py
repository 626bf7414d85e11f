"""A control plane and what stands between it and an agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import NODE, client_file
from support.between import Between, between
from support.service import Service, running_service

POOL = {
    "metadata": {"name": "main"},
    "spec": {"cidr": "10.65.0.0/16", "blockSize": 28, "cooldownSeconds": 0},
}
PEER = {"metadata": {"name": "tor1"}, "spec": {"peerIP": "192.0.2.1", "asNumber": 65001}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    directory = tmp_path / "server"
    directory.mkdir()
    with running_service(directory) as found:
        with found.http() as admin:
            for kind, document in (("ippools", POOL), ("bgppeers", PEER)):
                assert admin.post(f"/{kind}", json=document).status_code == 201
        yield found


@pytest.fixture
def passing(service: Service) -> Iterator[Between]:
    with between(service) as found:
        yield found


@pytest.fixture
def home(service: Service, tmp_path: Path) -> Path:
    """The agent's directory, with its credentials."""
    directory = tmp_path / "agent"
    directory.mkdir()
    with service.http() as admin:
        made = admin.post(f"/nodes/{NODE}/credentials", json={})
        assert made.status_code < 300, made.text
    client_file(directory).write_text(made.text)
    client_file(directory).chmod(0o600)
    return directory
