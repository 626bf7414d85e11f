"""What the tests of image and package start from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.debian import bootstrap
from support.netns import run


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal Debian 12. Not to be changed."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("debian")
    bootstrap(root)
    return root


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The network of a host: a namespace with an uplink of 192.0.2.1."""
    name = f"rt-pack-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        run("ip", "-n", name, "addr", "add", "192.0.2.1/24", "dev", "up0")
        for link in ("up0", "up1"):
            run("ip", "-n", name, "link", "set", link, "up")
        yield name
    finally:
        run("ip", "netns", "del", name)
