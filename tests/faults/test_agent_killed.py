"""The agent killed, again and again, while workloads come and go: nothing is lost, nothing leaks.

The control run is a build that sweeps before it has loaded intent: it must lose packets here.
"""

from __future__ import annotations

import pytest
from support.labs import Workloads
from support.rig import IGNORED, Churn, Figures, disagreement, instead, wait_agreed

from routed.lab.lab import Lab
from routed.lab.prober import Probe, Stream
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(1800)]

SWEEPS_EARLY = """
import sys
from dataclasses import replace
from routed.agent import agent
from routed.agent.control import Control
from routed.main import main
planned = agent.plan
agent.plan = lambda facts: replace(planned(facts), sweep=True, sweep_learned=True)
Control.stored_intent = lambda self: None
sys.exit(main())
"""


def kill_under_churn(
    lab: Lab, namespace: str, address: str, kills: int
) -> tuple[tuple[Stream, Stream], list[float], Churn]:
    """Kill host1's agent `kills` times; the streams, the seconds to agreement, the churn."""
    agent = lab.agents["host1"]
    probe = Probe((lab.top.client, "172.28.0.1"), (namespace, address))
    churn = Churn(lab, "host1")
    took = []
    try:
        churn.start()
        for _ in range(kills):
            churn.wait_operations(5)
            agent.kill()
            with churn.paused():
                agent.start()
                took.append(wait_agreed(lab, "host1"))
        streams = probe.finish()
    except BaseException:
        probe.abort()
        raise
    finally:
        if agent.pid is None:
            agent.start()
            wait_for("the agent", lambda: lab.ready("host1"))
        churn.finish()
    return streams, took, churn


def test_killed_under_churn(lab: Lab, workloads: Workloads, figures: Figures, full: bool) -> None:
    namespace, address = workloads.attach("host1", "steady")
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
    kills = 100 if full else 8
    streams, took, churn = kill_under_churn(lab, namespace, address, kills)
    wait_agreed(lab, "host1")
    lost = sum(stream.lost for stream in streams)
    sent = sum(stream.sent for stream in streams)
    figures.add(
        f"agent kill -9, {kills} times, {churn.rate:.0f} attach/detach a second",
        "lost 0, all agree <= 5 s",
        f"lost {lost}/{sent}, agree {max(took):.1f} s at most, {churn.operations} operations",
    )
    assert not churn.refused
    assert lost == 0, streams
    assert not disagreement(lab, "host1")


def test_a_build_that_sweeps_before_intent_is_loaded_loses_packets(
    lab: Lab, workloads: Workloads, figures: Figures
) -> None:
    namespace, address = workloads.attach("host1", "steady")
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
    probe = Probe((lab.top.client, "172.28.0.1"), (namespace, address))
    agent = lab.agents["host1"]
    try:
        with instead(agent, SWEEPS_EARLY):
            agent.kill()
            agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))
        streams = probe.finish()
    except BaseException:
        probe.abort()
        raise
    finally:
        agent.kill()
        agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))
    lost = sum(stream.lost for stream in streams)
    figures.add("control: a build that sweeps early", "must lose packets", f"lost {lost}")
    assert lost > 0
    wait_agreed(lab, "host1")
