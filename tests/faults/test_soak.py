"""Half an hour of churn with agent, speaker and ExaBGP killed now and then: at the end the switches
have what is desired, no more and no less, and nobody has grown."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest
from support.labs import Workloads, exabgp_of
from support.rig import IGNORED, Churn, Figures, wait_agreed

from routed.lab.lab import Lab
from routed.lab.processes import Process, resident, wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(2400)]

BETWEEN = {True: (2.0, 20.0), False: (0.5, 3.0)}  # seconds between two deaths, full or short
GROWTH_KIB = 64 * 1024  # that a process may have grown in the whole of it


def killed(lab: Lab, victim: str) -> None:
    """`kill -9`, and what a supervisor does then. ExaBGP's is the speaker."""
    host, _, program = victim.partition(" ")
    if program == "exabgp":
        child = exabgp_of(lab.speakers[host].pid)
        if child:
            os.kill(child, signal.SIGKILL)
        return
    process: Process = (lab.agents if program == "agent" else lab.speakers)[host]
    process.kill()
    process.start()


def test_soak(lab: Lab, workloads: Workloads, figures: Figures, full: bool) -> None:
    seconds = 1800.0 if full else 15.0
    for number in range(8):
        workloads.attach("host2", f"steady{number}")
    churn = Churn(lab, "host1", rate=20.0, count=30)
    dice = random.Random(7)  # noqa: S311 - a seed, so that a failure can be repeated
    victims = [f"{host} {what}" for host in lab.agents for what in ("agent", "exabgp", "speaker")]
    deaths: Counter[str] = Counter()
    began = time.monotonic()
    try:
        churn.start()
        churn.wait_operations(60)
        sizes = {host: resident(speaker.pid or 0) for host, speaker in lab.speakers.items()}
        while (left := began + seconds - time.monotonic()) > 0:
            victim = dice.choice(victims)
            killed(lab, victim)
            deaths[victim.partition(" ")[2]] += 1
            goal = churn.operations + int(dice.uniform(*BETWEEN[full]) * 10)
            wait_for(
                "churn going on",
                lambda goal=goal: churn.operations >= goal or time.monotonic() > began + seconds,  # type: ignore[misc]
                60 + left,
            )
        with churn.paused():
            wait_for("every session being up", lab.established, 40)
            took = wait_agreed(lab, "host1", 20)
            wait_agreed(lab, "host2", 20)
        grown = max(resident(lab.speakers[host].pid or 0) - sizes[host] for host in sizes)
    finally:
        churn.finish()
    wait_agreed(lab, "host1", 20)
    figures.add(
        f"{seconds:.0f} s of churn with {deaths.total()} deaths ({dict(deaths)})",
        "the switches' tables end as desired",
        f"{churn.operations} operations, agree {took:.1f} s after, speakers grown {grown} KiB",
    )
    assert not churn.refused, churn.refused[:3]
    assert grown <= GROWTH_KIB
