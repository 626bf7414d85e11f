"""The control plane down, slow or silent while workloads come and go on held blocks."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.labs import EXAMPLES, Workloads, ctl
from support.rig import IGNORED, Churn, Figures, cpu_seconds, wait_agreed

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.prober import Probe
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]

RATE = 4.0  # attach or detach operations a second


@contextmanager
def down(lab: Lab) -> Iterator[None]:
    lab.server.stop()
    try:
        yield
    finally:
        lab.server.start()
        lab.wait_server()


@contextmanager
def slow(lab: Lab) -> Iterator[None]:
    """It runs for a moment in every five seconds."""
    leaving = threading.Event()

    def stutter() -> None:
        while not leaving.is_set():
            lab.server.signal(signal.SIGSTOP)
            leaving.wait(5.0)
            lab.server.signal(signal.SIGCONT)
            leaving.wait(0.1)

    thread = threading.Thread(target=stutter, name="stutter")
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


@contextmanager
def blackholed(lab: Lab) -> Iterator[None]:
    """Its packets go nowhere: no refusal, no answer."""
    name = lab.top.management
    inside(name, "nft", "add", "table", "inet", "dead")
    for hook in ("input", "output"):
        chain = f"{{ type filter hook {hook} priority 0; policy drop; }}"
        inside(name, "nft", "add", "chain", "inet", "dead", hook, chain)
    try:
        yield
    finally:
        inside(name, "nft", "delete", "table", "inet", "dead")


@contextmanager
def cooling_for(lab: Lab, seconds: int) -> Iterator[None]:
    """Within, freed addresses cool down for that long. A node holds some sixteen free addresses for
    an outage; what comes and goes more often than these cool down must not need more."""
    pool = EXAMPLES / "ippool.yaml"
    text = pool.read_text(encoding="utf-8").rstrip()
    path = lab.directory / "pool.yaml"
    path.write_text(f"{text}\n  cooldownSeconds: {seconds}\n", encoding="utf-8")
    ctl(lab, "apply", "-f", str(path))
    try:
        wait_for("free addresses", lambda: free_addresses(lab) >= 16, 2 * seconds + 10)
        yield
    finally:
        ctl(lab, "apply", "-f", str(pool))


def free_addresses(lab: Lab) -> int:
    """Of host1's blocks, as its agent counts."""
    text = lab.local("host1").get("/metrics").text
    found = re.findall(r'^routed_addresses\{block="[^"]+",state="(\w+)"\} (\S+)', text, re.M)
    blocks = sum(state == "assigned" for state, _ in found)
    return int(blocks * 64 - sum(float(count) for _, count in found))


@pytest.mark.parametrize("fault", [down, slow, blackholed], ids=lambda fault: fault.__name__)
def test_churn_while_the_service_is(
    lab: Lab, workloads: Workloads, figures: Figures, full: bool, fault: object
) -> None:
    assert callable(fault)
    namespace, address = workloads.attach("host1", "steady")
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
    wait_agreed(lab, "host1")
    seconds = 60.0 if full else 6.0
    pid = lab.agents["host1"].pid
    assert pid is not None
    churn = Churn(lab, "host1", rate=RATE)
    probe = Probe((lab.top.client, "172.28.0.1"), (namespace, address))
    try:
        with cooling_for(lab, 5), fault(lab):
            used, began = cpu_seconds(pid), time.monotonic()
            churn.start()
            wanted = int(seconds * RATE)
            churn.wait_operations(wanted, seconds * 3)
            share = (cpu_seconds(pid) - used) / (time.monotonic() - began)
            with churn.paused():
                wait_agreed(lab, "host1", store=False)
        streams = probe.finish()
    except BaseException:
        probe.abort()
        raise
    finally:
        churn.finish()
    took = wait_agreed(lab, "host1", 30)
    lost, sent = sum(s.lost for s in streams), sum(s.sent for s in streams)
    figures.add(
        f"service {fault.__name__} for {seconds:.0f} s of churn, {RATE:.0f} a second",
        "attach and detach 100 %, lost 0, agent CPU < 5 %",
        f"{churn.operations} of {churn.operations + len(churn.refused)} done, lost {lost}/{sent}, "
        f"CPU {share:.1%}, reconciled in {took:.1f} s",
    )
    assert not churn.refused
    assert not churn.unanswered
    assert lost == 0
    assert share < 0.05
    assert "churn" not in ctl(lab, "get", "workloads", "-o", "name"), "nothing is resurrected"
