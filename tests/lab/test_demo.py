"""The demo, as `make demo` runs it, and the lab's own verbs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from routed.lab.fabric import namespaces
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab
ROUTED = [sys.executable, "-m", "routed.main", "lab"]


def routed_lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ROUTED, *words], capture_output=True, text=True, timeout=110, check=False
    )


def test_the_demo_shows_the_main_job_and_leaves_nothing() -> None:
    name = f"d{os.getpid() % 100_000}"
    done = routed_lab("demo", "--name", name)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "IPv4: 16 of 16 answered",
        "IPv6: 16 of 16 answered",
        "overlaps pool main",
        "it is in use by workload web.host1",
        "outside every pool",
        "of node host2",
        "web.host1 and web.host2 reach db.host1 and db.host2, the client does not",
        "client to workload: lost 0 of",
        "workload to client: lost 0 of",
        "client to workload, IPv6: lost 0 of",
        "workload to client, IPv6: lost 0 of",
        "attached and announced without a control plane",
        "are gone from both switches",
        "demo complete: 10 steps",
    ):
        assert line in done.stdout, line
    assert not [one for one in namespaces() if one.startswith(f"{name}-")]


def test_the_demo_cleans_up_when_it_is_interrupted() -> None:
    name = f"i{os.getpid() % 100_000}"
    demo = subprocess.Popen(
        [*ROUTED, "demo", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("its hosts", lambda: f"{name}-host2" in namespaces())
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) != 0
    assert not [one for one in namespaces() if one.startswith(f"{name}-")]


def test_up_status_down_with_other_numbers() -> None:
    name = f"u{os.getpid() % 100_000}"
    try:
        up = routed_lab("up", "--name", name, "--hosts", "1", "--tors", "1")
        assert up.returncode == 0, up.stderr
        again = routed_lab("up", "--name", name)
        assert "is up already" in again.stdout
        status = routed_lab("status", "--name", name)
        assert "1 hosts, 1 ToRs" in status.stdout
        assert "not running" not in status.stdout
    finally:
        down = routed_lab("down", "--name", name)
    assert "removed 4 namespaces" in down.stdout
    missing = routed_lab("status", "--name", name)
    assert missing.returncode == 1
    assert "cannot find lab" in missing.stderr
    wrong = routed_lab("up", "--name", "Bad_Name", "--hosts", "0", "--tors", "99")
    assert wrong.returncode == 2
    for option in ("--name", "--hosts", "--tors"):
        assert option in wrong.stderr
