"""Labs whose switches run FRR or GoBGP: learned, reachable, kept over a restart, withdrawn.

gobgpd has no FIB: with it nothing can be reached, so only its table is looked at.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from support.labs import EXAMPLES, Workloads, exabgp_of, running_lab

from routed.lab import fabric
from routed.lab.lab import Lab, lab_of
from routed.lab.processes import wait_for
from routed.lab.switch import TorDaemon

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=[TorDaemon.FRR, TorDaemon.GOBGP])
def daemon_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    daemon: TorDaemon = request.param
    six = EXAMPLES / "ipv6" / "ippool.yaml"
    with running_lab(daemon[0], daemon, 40, also=(six,)) as found:
        yield found


@pytest.fixture
def attached(daemon_lab: Lab) -> Iterator[Workloads]:
    with Workloads(daemon_lab) as found:
        yield found


def test_learned_from_two_hosts_reachable_and_withdrawn(
    daemon_lab: Lab, attached: Workloads
) -> None:
    lab = daemon_lab
    one, first = attached.attach("host1", "a")
    other, second = attached.attach("host2", "b")
    for address, host in ((first, lab.top.hosts[0]), (second, lab.top.hosts[1])):
        wait_for(f"the switches knowing {address}", lambda a=address: lab.tor_has(f"{a}/32"))  # type: ignore[misc]
        for tor in lab.top.tors:
            hops = lab.tor_prefixes(tor.namespace)[f"{address}/32"]
            assert host.address(tor) in hops
    if lab.tor_daemon is not TorDaemon.GOBGP:
        wait_for("a ping across", lambda: lab.ping(one, second))
        wait_for("a ping back", lambda: lab.ping(other, first))
        for address in (first, second):
            wait_for("a ping from outside", lambda a=address: lab.ping(lab.top.client, a))  # type: ignore[misc]
        default = [r for r in fabric.routes(f"{lab.top.name}-host1") if r["dst"] == "default"]
        assert len(default[0]["nexthops"]) == 2, "ECMP over both switches"  # type: ignore[arg-type]
    detached = lab.local("host1").delete("/v1/attachments/a")
    assert detached.status_code in (200, 204), detached.text
    took = wait_for("the withdrawal", lambda: lab.tor_lacks(f"{first}/32"), 5)
    print(f"withdrawn after {took:.1f} s")
    assert lab.tor_has(f"{second}/32")


def test_both_families_in_one_session(daemon_lab: Lab, attached: Workloads) -> None:
    lab = daemon_lab
    namespace, _ = attached.attach("host1", "six1", ipFamilies=["IPv4", "IPv6"])
    attached.attach("host2", "six2", ipFamilies=["IPv4", "IPv6"])
    for number, host in enumerate(lab.top.hosts):
        four, six = lab.local(host.name).get(f"/v1/attachments/six{number + 1}").json()["addresses"]
        wait_for("the switches knowing both", lambda f=four, s=six: (  # type: ignore[misc]
            lab.tor_has(f"{f}/32") and lab.tor_has(f"{s}/128")
        ))  # fmt: skip
        for tor in lab.top.tors:
            assert host.address6(tor) in lab.tor_prefixes(tor.namespace)[f"{six}/128"]
    if lab.tor_daemon is not TorDaemon.GOBGP:
        wait_for("a ping across", lambda: lab.ping(namespace, six))
        wait_for("a ping from outside", lambda: lab.ping(lab.top.client, six))
    lab.local("host2").delete("/v1/attachments/six2")
    took = wait_for("the withdrawal", lambda: lab.tor_lacks(f"{six}/128"), 5)
    print(f"withdrawn after {took:.1f} s")


def test_kept_while_exabgp_is_killed_and_withdrawn_after(
    daemon_lab: Lab, attached: Workloads
) -> None:
    """Every 100 ms each switch's table is read: the /32 is in it until it is detached."""
    lab = daemon_lab
    _, address = attached.attach("host1", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    child = exabgp_of(lab.speakers["host1"].pid)
    assert child, "the speaker has no ExaBGP"
    os.kill(child, signal.SIGKILL)
    deadline, samples = time.monotonic() + 40, 0
    again = 0.0
    while not again or time.monotonic() < again:
        began = time.monotonic()
        assert lab.tor_has(f"{address}/32"), f"the route was missing in sample {samples}"
        samples += 1
        if (
            not again
            and exabgp_of(lab.speakers["host1"].pid) not in (0, child)
            and lab.established()
        ):
            again = time.monotonic() + 1.5  # End-of-RIB has been sent by then: it drops nothing
        assert time.monotonic() < deadline, "no new session in 40 s"
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
    assert samples > 5
    lab.local("host1").delete("/v1/attachments/a")
    took = wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"), 5)
    print(f"withdrawn after {took:.1f} s")


def test_another_command_finds_the_daemon_of_a_lab(daemon_lab: Lab) -> None:
    assert lab_of(daemon_lab.top.name).tor_daemon is daemon_lab.tor_daemon
