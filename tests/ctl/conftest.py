"""A real service process, and routectl to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ctl import Ctl
from support.service import running_service


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The administrator's kubeconfig of a service that runs."""
    with running_service(tmp_path_factory.mktemp("server")) as service:
        yield service.admin


@pytest.fixture(scope="module")
def ctl(admin: Path) -> Ctl:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "routed.ctl.main", "--kubeconfig", str(admin), *words]
        return subprocess.run(
            command, capture_output=True, text=True, input=stdin, timeout=30, check=False
        )

    return run
