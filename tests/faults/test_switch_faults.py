"""ToRs that withdraw, restart, die, lose their cables; an agent that sleeps meanwhile."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from support.labs import Workloads
from support.rig import IGNORED, Figures, disagreement, wait_agreed
from support.switches import learned, reconfigured, streams_through, through_fault

from routed.lab import bird, fabric
from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]

HOLD_SECONDS = 9.0
WITHDRAWAL_SECONDS = 0.5  # of BIRD as a ToR: 0.58 to 1.03 s were seen
LATE_SECONDS = 0.5  # until the FIB has it, on a busy machine


def ends_of_rib(log: Path) -> int:
    return log.read_text(encoding="utf-8", errors="replace").count("Got END-OF-RIB")


def test_a_stopped_agent(lab: Lab, workloads: Workloads, figures: Figures, full: bool) -> None:
    dying, dead = workloads.attach("host1", "dying")
    _, alive = workloads.attach("host1", "alive")
    first, second = lab.tor_namespaces[:2]
    agent = lab.agents["host1"]
    with reconfigured(lab, first, routes=100, restarting=True):
        wait_for("every session being up", lab.established, 30)
        wait_for("the routes", lambda: learned(lab, "host1") == 100)
        agent.signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            path = lab.directory / f"{first}.conf"
            text = path.read_text(encoding="ascii")
            path.write_text(text.partition("protocol static many")[0], encoding="ascii")
            bird.ask(lab.directory, first, "configure")
            command("ip", "netns", "del", dying)
            gone = wait_for(
                "the withdrawal of the dead",
                lambda: f"{dead}/32" not in lab.tor_prefixes(second),
                5,
            )
            daemon = lab.daemon(first)
            daemon.kill()
            daemon.words.append("-R")
            heard = ends_of_rib(daemon.log)
            daemon.start()
            wait_for("the ToR's routes", lambda: f"{alive}/32" in lab.tor_prefixes(first), 40)
            wait_for("End-of-RIB from both", lambda: ends_of_rib(daemon.log) >= heard + 2)
            assert f"{dead}/32" not in lab.tor_prefixes(first)
            assert learned(lab, "host1") == 100, "nobody was there to take them away"
            stopped = max(60.0 if full else 5.0, time.monotonic() - began)
            time.sleep(began + stopped - time.monotonic())  # the fault's length
        finally:
            agent.signal(signal.SIGCONT)
            lab.daemon(first).words[:] = [w for w in lab.daemon(first).words if w != "-R"]
        took = wait_agreed(lab, "host1")
        took += wait_for("the routes' end", lambda: learned(lab, "host1") == 0, 5 - took)
    figures.add(
        f"agent stopped {stopped:.0f} s; ToR withdraws 100 routes, restarts; a netns dies",
        "dead /32 withdrawn and EOR sent meanwhile; agree <= 5 s after",
        f"withdrawn in {gone:.2f} s, agree {took:.1f} s",
    )


def both_ways_out(lab: Lab, host: str) -> bool:
    routes = fabric.routes(f"{lab.top.name}-{host}")
    defaults = [route for route in routes if route["dst"] == "default"]
    return any(len(route.get("nexthops", [])) == 2 for route in defaults)  # type: ignore[arg-type]


def wait_whole(lab: Lab, host: str) -> None:
    """Until a host has its sessions, its announcements and both ways out again: the next fault is
    one alone."""
    wait_for("every session being up", lab.established, 40)
    wait_agreed(lab, host, 10)
    wait_for("both ways out", lambda: both_ways_out(lab, host), 5)


def host_ports(lab: Lab, tor: str) -> list[str]:
    return [f"h{host.number}" for host in lab.top.hosts]


def test_a_tor_falls_silent(lab: Lab, workloads: Workloads, figures: Figures) -> None:
    """Its links stay up: only the hold timer can tell."""
    target = streams_through(lab, workloads)
    gaps = []
    for tor in lab.tor_namespaces:  # the flow goes through one of them

        def silence(tor: str = tor) -> None:
            inside(tor, "nft", "add", "table", "inet", "dead")
            for hook in ("input", "forward", "output"):
                chain = f"{{ type filter hook {hook} priority -400; policy drop; }}"
                inside(tor, "nft", "add", "chain", "inet", "dead", hook, chain)
            try:
                wait_for("the hold timer", lambda: not lab.established(), HOLD_SECONDS + 3)
                wait_for("the other way", lambda: lab.ping(lab.top.client, target[1]), 5)
            finally:
                inside(tor, "nft", "delete", "table", "inet", "dead")
            wait_whole(lab, "host1")

        gaps += [stream.gap for stream in through_fault(lab, target, silence)]
    figures.add("a ToR falls silent, links up", "gap <= hold time (9 s)", f"{max(gaps):.1f} s")
    assert max(gaps) <= HOLD_SECONDS + LATE_SECONDS


def test_the_links_of_a_tor_go_down(lab: Lab, workloads: Workloads, figures: Figures) -> None:
    """What the host sends takes the other way at once: the kernel sees the carrier go. What is sent
    to it goes on through the ToR that has lost it, until that one's BIRD has ended the session and
    taken the route back from its neighbour: between half a second and a little more than one."""
    target = streams_through(lab, workloads)
    theirs, ours = [], []
    for tor in lab.tor_namespaces:

        def cut(tor: str = tor) -> None:
            for port in host_ports(lab, tor):
                command("ip", "-n", tor, "link", "set", port, "down")
            wait_for("the session's end", lambda: not lab.established(), HOLD_SECONDS + 3)
            wait_for("the other way", lambda: lab.ping(lab.top.client, target[1]), 5)
            for port in host_ports(lab, tor):
                command("ip", "-n", tor, "link", "set", port, "up")
            wait_whole(lab, "host1")

        to_host, from_host = through_fault(lab, target, cut)
        theirs.append(to_host.gap)
        ours.append(from_host.gap)
    said = f"from the host {max(ours):.2f} s, to it {max(theirs):.2f} s"
    figures.add("the links of a ToR go down", "gap from the host <= 0.2 s, to it 1 s", said)
    assert max(ours) <= 0.2
    assert max(theirs) <= 1.0 + WITHDRAWAL_SECONDS


def sessions_since(lab: Lab, host: str) -> float:
    """When the youngest of a host's sessions came up (seconds since the epoch)."""
    sessions = lab.local(host).get("/v1/status").json()["bgp"]["sessions"]
    return max(float(one["since"]) for one in sessions)


def test_both_uplinks_flap_for_a_second(lab: Lab, workloads: Workloads, figures: Figures) -> None:
    """A session may outlive the flap, or the host may be told of its end only after the links are
    back: so the time counts from when the youngest session that lives in the end came up, or from
    when the links are back. What the streams miss is told beside it: a second of it is the flap."""
    target = streams_through(lab, workloads)
    number = next(h.number for h in lab.top.hosts if h.name == "host1")
    times: list[float] = []

    def flap() -> None:
        for word in ("down", "up"):
            for tor in lab.tor_namespaces:
                command("ip", "-n", tor, "link", "set", f"h{number}", word)
            if word == "down":
                time.sleep(1.0)  # the fault's length
        times.append(time.time())
        wait_for(
            "everything being as before",
            lambda: (
                lab.established() and not disagreement(lab, "host1") and both_ways_out(lab, "host1")
            ),
            40,
        )
        times.append(time.time())
        wait_for("the way in", lambda: lab.ping(lab.top.client, target[1]), 5)

    to_host, from_host = through_fault(lab, target, flap)
    back, complete = times
    up = max(back, sessions_since(lab, "host1"))
    figures.add(
        "both uplinks flap for 1 s",
        "complete <= 2 s after the sessions are up",
        f"sessions up after {up - back:.1f} s, complete {complete - up:.2f} s later; "
        f"gaps {to_host.gap:.2f} and {from_host.gap:.2f} s",
    )
    assert complete - up <= 2.0
    assert max(to_host.gap, from_host.gap) <= 1.0 + (up - back) + 2.0
