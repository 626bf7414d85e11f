"""Both stores, as one parameter: what the contract says is asked of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.etcd import Cluster, cluster
from support.stores import Backend


@pytest.fixture(scope="session")
def single_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.Runner]:
    """One for all: gRPC's library has trouble with a second one in the same process."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sqlite", "etcd"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.Runner) -> Backend:
    etcd = request.getfixturevalue("single_etcd") if request.param == "etcd" else None
    made = Backend(request.param, tmp_path, loop, etcd)
    made.fresh()
    return made
