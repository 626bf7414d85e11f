"""Packets of every size around a limit, with DF set: delivered, or the sender is told the limit,
wherever on the way the small link is. And what workloads get for an MTU."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.labs import Workloads, ctl, draining_pool
from support.sizes import PORT, answering, outcome

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

POOL = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: sized}
spec: {cidr: "fd00:66::/112", blockSize: 122, cooldownSeconds: 1}
"""
WHOLE = 1500


@pytest.fixture
def both(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """Workloads can have an address of each family, and the client answers both."""
    with draining_pool(lab, POOL, tmp_path / "sized.yaml"):
        wait_for("the pool being known", lambda: "sized" in ctl(lab, "get", "pools"), 5)
        with answering(lab.top.client):
            yield


@contextmanager
def small(*links: tuple[str, str], mtu: int) -> Iterator[None]:
    """The links, each of a namespace, have that MTU inside the block."""
    try:
        for namespace, name in links:
            command("ip", "-n", namespace, "link", "set", name, "mtu", str(mtu))
        yield
    finally:
        for namespace, name in links:
            command("ip", "-n", namespace, "link", "set", name, "mtu", str(WHOLE))


def judged(source: str, address: str, mtu: int, senders: Iterable[str]) -> None:
    """What is as large as `mtu` arrives, and of what is larger one of the `senders` says so; which
    of the switches, goes by ports."""
    may = {f"{mtu} from {sender}" for sender in senders}
    found = {size: outcome(source, address, size) for size in (mtu - 1, mtu, mtu + 1, WHOLE)}
    for size, became in found.items():
        assert became == "delivered" if size <= mtu else became in may, (found, may)


def attach(lab: Lab, workloads: Workloads, name: str, **more: object) -> tuple[str, dict[int, str]]:
    """A workload with an address of each family: its namespace, the addresses."""
    namespace, _ = workloads.attach("host1", name, ipFamilies=["IPv4", "IPv6"], **more)
    held = lab.local("host1").get(f"/v1/attachments/{name}").json()["addresses"]
    return namespace, {ip_address(one).version: one for one in held}


def link_mtu(namespace: str) -> int:
    shown = json.loads(command("ip", "-n", namespace, "-j", "link", "show", "eth0"))
    return int(shown[0]["mtu"])


def test_a_small_hop_behind_the_switches(lab: Lab, both: None, workloads: Workloads) -> None:
    namespace, _ = attach(lab, workloads, "behind")
    tors, client = lab.top.tors, lab.top.client_own
    links = [(tor.namespace, "client") for tor in tors]
    links += [(lab.top.client, f"tor{tor.number}") for tor in tors]
    for version in (4, 6):
        wait_for("the way there", lambda v=version: lab.ping(namespace, client[v]), 10)
    with small(*links, mtu=1400):
        judged(namespace, client[4], 1400, [tor.address for tor in tors])
        judged(namespace, client[6], 1400, [tor.address6 for tor in tors])
        assert outcome(namespace, client[4], WHOLE + 1) == "too long for its own link"
        assert "mtu 1400" in inside(namespace, "ip", "route", "get", client[4]), "it is remembered"
        assert "mtu 1400" in inside(namespace, "ip", "route", "get", client[6])


def test_uplinks_that_became_smaller_tell_old_workloads_and_make_new_ones_so(
    lab: Lab, both: None, workloads: Workloads
) -> None:
    host, client = f"{lab.top.name}-host1", lab.top.client_own
    old, _ = attach(lab, workloads, "old")
    assert link_mtu(old) == WHOLE
    for version in (4, 6):
        wait_for("the way there", lambda v=version: lab.ping(old, client[v]), 10)
    with small(*[(host, f"tor{tor.number}") for tor in lab.top.tors], mtu=1300):
        judged(old, client[4], 1300, ["169.254.1.1"])
        own = lab.top.hosts[0]
        six = [own.address6(tor) for tor in lab.top.tors]
        judged(old, client[6], 1300, [*six, own.management6, "fe80::1"])

        names = iter(range(100))

        def is_so() -> bool:
            new, _ = attach(lab, workloads, f"new{next(names)}")
            return link_mtu(new) == 1300

        wait_for("new workloads having the smaller MTU", is_so, 10)
        name = f"new{next(names) - 1}"
        assert lab.local("host1").get(f"/v1/attachments/{name}").json()["mtu"] == 1300
        wait_for(
            "the service showing it",
            lambda: "mtu: 1300\n" in ctl(lab, "describe", "workload", f"{name}.host1"),
            10,
        )
        header, row = ctl(lab, "get", "workload", f"{name}.host1", "-o", "wide").splitlines()
        assert row[header.index("MTU") :].split()[0] == "1300"
        assert link_mtu(old) == WHOLE, "a link that is in use stays as it is"


def test_a_workload_whose_own_link_is_smaller(lab: Lab, both: None, workloads: Workloads) -> None:
    namespace, addresses = attach(lab, workloads, "narrow", mtu=1300)
    assert link_mtu(namespace) == 1300
    for version in (4, 6):
        wait_for("the way there", lambda v=version: lab.ping(lab.top.client, addresses[v]), 10)
    host = lab.top.hosts[0]
    with answering(namespace):
        judged(lab.top.client, addresses[4], 1300, [host.address(tor) for tor in lab.top.tors])
        judged(lab.top.client, addresses[6], 1300, [host.address6(tor) for tor in lab.top.tors])


def test_a_mapped_port_of_a_workload_whose_link_is_smaller(
    lab: Lab, both: None, ways: None, workloads: Workloads
) -> None:
    """Who says so has seen the workload's address; who is told knows its host's alone."""
    port = {"port": int(PORT), "protocol": "UDP", "hostPort": int(PORT)}
    namespace, _ = attach(lab, workloads, "mapped", mtu=1300, ports=[port])
    host, tor = lab.top.hosts[0], lab.top.tors[0]
    with answering(namespace):
        for node in (host.address(tor), host.address6(tor)):
            wait_for("the way there", lambda n=node: lab.ping(lab.top.client, n), 10)
            judged(lab.top.client, node, 1300, [node])
