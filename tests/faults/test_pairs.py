"""Every pair of {agent, service, speaker, ToR, host} fails and recovers in both orders, on the
lab (ADR 1; the pure model has the same matrix): afterwards all agree, the living is announced by
one host, the dead by none."""

from __future__ import annotations

import itertools
import shutil

import pytest
from support.labs import Workloads, forget_routes
from support.rig import IGNORED, Figures, wait_agreed

from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]

PARTS = ("agent", "service", "speaker", "tor", "host")
CASES = [
    (first, second, recovers)
    for first, second in itertools.permutations(PARTS, 2)
    for recovers in ("first", "second")
]
SHORT = [
    ("agent", "service", "first"),
    ("speaker", "agent", "second"),
    ("service", "host", "second"),
    ("tor", "speaker", "first"),
]


def fail(lab: Lab, part: str) -> None:
    if part == "agent":
        lab.agents["host1"].kill()
    elif part == "service":
        lab.server.kill()
    elif part == "speaker":
        lab.speakers["host1"].kill()
    elif part == "tor":
        lab.daemon(lab.tor_namespaces[0]).kill()
    else:  # the host: processes, /run, namespaces and what the kernel held of ours
        lab.agents["host1"].kill()
        lab.speakers["host1"].kill()
        for name in ("alive", "dying"):
            command("ip", "netns", "del", f"{lab.top.name}-host1-{name}", check=False)
        host = f"{lab.top.name}-host1"
        forget_routes(host)
        shutil.rmtree(lab.directory / "host1" / "run", ignore_errors=True)


def recover(lab: Lab, part: str) -> None:
    if part in ("speaker", "host"):
        lab.speakers["host1"].start()
    if part in ("agent", "host"):
        lab.agents["host1"].start()
        wait_for("the agent", lambda: lab.ready("host1"))
    elif part == "service":
        lab.server.start()
        lab.wait_server()
    elif part == "tor":
        lab.daemon(lab.tor_namespaces[0]).start()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = CASES if metafunc.config.getoption("--faults") == "full" else SHORT
    metafunc.parametrize(("first", "second", "recovers"), cases)


def test_pair(
    lab: Lab, workloads: Workloads, figures: Figures, first: str, second: str, recovers: str
) -> None:
    _, alive = workloads.attach("host1", "alive")
    dying, dead = workloads.attach("host1", "dying")
    wait_agreed(lab, "host1", 15)
    order = [first, second] if recovers == "first" else [second, first]
    try:
        fail(lab, first)
        command("ip", "netns", "del", dying, check=False)  # ends meanwhile
        fail(lab, second)
    finally:
        for part in order:
            recover(lab, part)
    wait_for("every session being up", lab.established, 40)
    took = wait_agreed(lab, "host1", 20)
    wait_agreed(lab, "host2", 20)
    gone = "host" in (first, second)
    for tor in lab.tor_namespaces:
        known = lab.tor_prefixes(tor)
        assert f"{dead}/32" not in known, "the dead is not announced"
        assert (f"{alive}/32" in known) is not gone, "what lives is announced, by one host"
    figures.add(f"{first}, {second} fail; {recovers} recovers first", "all agree", f"{took:.1f} s")
