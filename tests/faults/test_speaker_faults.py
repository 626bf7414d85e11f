"""ExaBGP killed or hung, the speaker killed, a client that does not read: with BIRD and with FRR as
switches nothing is lost and no route is missing for a moment."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from support.labs import Workloads, exabgp_of, running_lab
from support.rig import IGNORED, Figures, wait_agreed
from support.switches import announcing, learned, streams_through, through_fault

from routed.lab.lab import Lab
from routed.lab.processes import wait_for
from routed.lab.switch import TorDaemon

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=[TorDaemon.BIRD, TorDaemon.FRR], ids=str)
def switched(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab with each kind of switch."""
    daemon: TorDaemon = request.param
    with running_lab(f"s{daemon[0]}", daemon, 40) as found:
        yield found


@pytest.fixture
def here(switched: Lab) -> Iterator[Workloads]:
    with Workloads(switched) as found:
        yield found


def test_exabgp_hangs(switched: Lab, here: Workloads, figures: Figures) -> None:
    lab = switched
    target = streams_through(switched, here)
    speaker = lab.speakers["host1"]
    hung = exabgp_of(speaker.pid)
    missing, samples = 0, 0

    def hang() -> None:
        nonlocal missing, samples
        os.kill(hung, signal.SIGSTOP)
        deadline = time.monotonic() + 60
        while exabgp_of(speaker.pid) in (0, hung) or not lab.established():
            assert time.monotonic() < deadline, "no new session in 60 s"
            samples += 1
            missing += not lab.tor_has(f"{target[1]}/32")
            time.sleep(0.1)
        wait_agreed(lab, "host1")

    began = time.monotonic()
    streams = through_fault(lab, target, hang)
    lost, sent = sum(s.lost for s in streams), sum(s.sent for s in streams)
    figures.add(
        f"ExaBGP hangs ({lab.tor_daemon})",
        "replaced by the watchdog; lost 0; missing in 100 ms samples 0",
        f"sessions back after {time.monotonic() - began:.0f} s, lost {lost}/{sent}, "
        f"missing {missing}/{samples}",
    )
    assert (lost, missing) == (0, 0)


@pytest.mark.parametrize("victim", ["exabgp", "speaker"])
def test_killed(switched: Lab, here: Workloads, figures: Figures, victim: str) -> None:
    lab = switched
    target = streams_through(switched, here)
    speaker = lab.speakers["host1"]
    missing, samples = 0, 0

    def kill() -> None:
        nonlocal missing, samples
        before = exabgp_of(speaker.pid)
        if victim == "exabgp":
            os.kill(before, signal.SIGKILL)
        else:
            speaker.kill()
            speaker.start()
        deadline = time.monotonic() + 40
        settled = 0.0
        while not settled or time.monotonic() < settled + 2:
            assert time.monotonic() < deadline, "no new session in 40 s"
            new = exabgp_of(speaker.pid)
            if not settled and new not in (0, before) and lab.established():
                settled = time.monotonic()
            samples += 1
            missing += not lab.tor_has(f"{target[1]}/32")
            time.sleep(0.1)
        wait_agreed(lab, "host1")

    streams = through_fault(lab, target, kill)
    lost, sent = sum(s.lost for s in streams), sum(s.sent for s in streams)
    figures.add(
        f"{victim} kill -9 ({lab.tor_daemon})",
        "lost 0; missing in 100 ms samples 0",
        f"lost {lost}/{sent}, missing {missing}/{samples}",
    )
    assert (lost, missing) == (0, 0)


def test_a_client_that_stops_to_read(switched: Lab, here: Workloads, figures: Figures) -> None:
    lab = switched
    target = streams_through(switched, here)
    tor = lab.tor_namespaces[0]
    count = 10_000
    api = lab.local("host1")
    before = {s["peer"]: s["since"] for s in api.get("/v1/status").json()["bgp"]["sessions"]}
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(lab.directory / "host1" / "run" / "speaker.sock"))

        def flood() -> None:
            with announcing(lab, tor, count):
                wait_for("the routes", lambda: learned(lab, "host1") == count, 60)
            wait_for("the routes' end", lambda: learned(lab, "host1") == 0, 60)

        streams = through_fault(lab, target, flood)
    after = {s["peer"]: s["since"] for s in api.get("/v1/status").json()["bgp"]["sessions"]}
    lost, sent = sum(s.lost for s in streams), sum(s.sent for s in streams)
    figures.add(
        f"a client of the speaker stops to read; {2 * count} changes ({lab.tor_daemon})",
        "flaps 0, lost 0",
        f"flaps {sum(before[p] != after[p] for p in before)}, lost {lost}/{sent}",
    )
    assert after == before
    assert lost == 0
    wait_agreed(lab, "host1")
