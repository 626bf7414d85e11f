"""`routed up`: one host with everything, in a network namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.auth import kubeconfig
from routed.lab.processes import wait_for

pytestmark = pytest.mark.root


def ready(socket: Path) -> bool:
    if not socket.exists():
        return False
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=5) as client:
            return client.get("http://agent/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_it_joins_by_itself_and_again_if_what_it_had_is_no_good(
    tmp_path: Path, namespaces: Callable[[str], str]
) -> None:
    name = namespaces("up")
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    words = ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-m", "routed.main", "up"]
    words += ["--node", "alone", "--listen", "127.0.0.1:6780"]
    for option in ("data", "run", "state"):
        words += [f"--{option}-dir", str(tmp_path / option)]
    config = tmp_path / "state" / "node.kubeconfig"
    seen = []
    for _ in range(2):
        with (tmp_path / "log").open("ab") as log:
            child = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            wait_for("the agent being ready", lambda: ready(tmp_path / "run" / "agent.sock"), 40)
            assert config.stat().st_mode & 0o777 == 0o600
            seen.append(kubeconfig.read(config))
        except Exception as error:
            raise AssertionError((tmp_path / "log").read_text()) from error
        finally:
            child.terminate()
            child.wait(30)
        config.write_text("not what it was")
    assert seen[0].certificate != seen[1].certificate
    assert seen[1].user == "system:node:alone"
