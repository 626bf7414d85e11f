"""A host with policies, by real sockets: its failsafe ports stay open under a policy that denies
all, sessions go on, neighbours are found, and what somebody flushes is back."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from support.compiled import policy
from support.flows import Outside, connected, entered, listen
from support.netns import in_fresh_namespace, run

from api.resources.policy import NetworkPolicy
from policies.compile.compiler import compiled
from policies.failsafe import failsafe
from policies.model import EVERY, NOTHING_TOLD, HostInterface, Ipvlan
from policies.nft import Nft
from policies.plan import plan

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]
Make = Callable[[str], str]
SSH, BGP, WEB, ETCD = 22, 179, 80, 2379
HOST, FAR = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
REJECT = [{"action": "Deny", "reject": True}]
SHUT = policy("shut", types=["Ingress", "Egress"], ingress=REJECT, egress=REJECT)
SILENT = policy("shut", types=["Ingress", "Egress"])  # what its tier denies is dropped
ALLOW_WEB = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [WEB]}}


class Host:
    """In the namespace of the caller, with an outside."""

    def __init__(self, far: str) -> None:
        self.far, self.table = far, Nft()
        Outside(far)
        run("ip", "link", "set", "lo", "up")
        self.table.sync()

    def put(
        self, *policies: NetworkPolicy, interface: str = "up0", slaves: tuple[str, ...] = ()
    ) -> None:
        ends = [HostInterface("edge", {"role": "edge"}, interface)]
        ipvlan = Ipvlan(frozenset(map(ip_address, slaves)))
        made = plan([], policies, [], "Allow", ends, failsafe(), ipvlan)
        self.table.sync(None, compiled(made, NOTHING_TOLD))

    def reaches(self, address: str, port: int, *, inward: bool, source: str = "") -> bool:
        """Whether a connection comes about; what is refused is so at once."""
        try:
            if inward:
                connected(self.far, address, port, 5).close()
            else:
                own = (source, 0) if source else None
                made = socket.create_connection((address, port), 5, own)
                made.sendall(b"ready")
                assert made.recv(5) == b"hello"
                made.close()
        except (ConnectionRefusedError, PermissionError):
            return False
        return True


@contextmanager
def serving(netns: str, *places: tuple[str, int]) -> Iterator[None]:
    servers: list[subprocess.Popen[str]] = []
    try:
        servers.extend(listen(netns, address, port) for address, port in places)
        yield
    finally:
        for one in servers:
            one.kill()
            one.wait()


def play(namespaces: Make, body: Callable[[Host], Any]) -> None:
    far = namespaces("far")

    async def whole() -> None:
        host = Host(far)
        body(host)
        host.table.close()

    in_fresh_namespace(whole)


@pytest.mark.parametrize("interface", ["up0", EVERY])
@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_failsafe_ports_stay_open_where_all_is_denied(
    namespaces: Make, version: int, interface: str
) -> None:
    here, there = HOST[version], FAR[version]

    def body(host: Host) -> None:
        ports = (SSH, BGP, WEB)
        with (
            serving("", *((here, port) for port in ports)),
            serving(host.far, *((there, port) for port in (BGP, WEB, ETCD))),
        ):
            host.put(interface=interface)
            assert host.reaches(here, WEB, inward=True), "the endpoint alone closes nothing"
            host.put(SHUT, interface=interface)
            assert [host.reaches(here, port, inward=True) for port in ports] == [True, True, False]
            outward = [host.reaches(there, port, inward=False) for port in (BGP, WEB, ETCD)]
            assert outward == [True, False, True]
            assert host.reaches(here, WEB, inward=False), "to itself, which is loopback"

    play(namespaces, body)


def test_sessions_go_on_where_all_is_denied(namespaces: Make) -> None:
    def body(host: Host) -> None:
        for address, port in ((HOST[0], WEB), (HOST[1], WEB), (HOST[1], BGP)):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            host.put()
            with socket.create_server((address, port), family=family) as listener:
                with entered(host.far):
                    theirs = socket.create_connection((address, port), timeout=5)
                ours, _ = listener.accept()
                ours.settimeout(5)
                host.put(SHUT)
                with ours, theirs:
                    theirs.sendall(b"keep")
                    assert ours.recv(4) == b"keep"
                    ours.sendall(b"alive")
                    assert theirs.recv(5) == b"alive"

    play(namespaces, body)


def test_what_is_flushed_is_back_and_policies_open_what_they_allow(namespaces: Make) -> None:
    def body(host: Host) -> None:
        with serving("", (HOST[0], WEB), (HOST[1], BGP)):
            host.put(SHUT)
            assert not host.reaches(HOST[0], WEB, inward=True)
            run("nft", "flush", "ruleset")
            assert host.reaches(HOST[0], WEB, inward=True), "nothing is filtered"
            host.put(SHUT)
            assert not host.reaches(HOST[0], WEB, inward=True)
            assert host.reaches(HOST[1], BGP, inward=True)
            host.put(SHUT, policy("a", order=1, ingress=[ALLOW_WEB]))
            assert host.reaches(HOST[0], WEB, inward=True)

    play(namespaces, body)


def test_neighbours_are_found_where_all_is_denied(namespaces: Make) -> None:
    def body(host: Host) -> None:
        host.put(SILENT, interface=EVERY)
        with serving("", (HOST[1], SSH)), serving(host.far, (FAR[1], BGP)):
            for inward, address, port in ((True, HOST[1], SSH), (False, FAR[1], BGP)):
                run("ip", "-6", "neigh", "flush", "dev", "up0")
                run("ip", "-6", "-n", host.far, "neigh", "flush", "dev", "far0")
                assert host.reaches(address, port, inward=inward)

    play(namespaces, body)


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_what_passes_input_and_output_and_is_of_ipvlan_workloads_is_not_the_hosts(
    namespaces: Make, version: int
) -> None:
    """As of ipvlan, which not every kernel has (tests/guest has it): with addresses of theirs."""
    own, there = ("10.65.0.5", "fd00::5")[version], FAR[version]

    def body(host: Host) -> None:
        run("ip", "addr", "add", own, "dev", "lo")
        with serving("", (own, WEB), (HOST[version], WEB)), serving(host.far, (there, WEB)):

            def passes(interface: str, *slaves: str) -> list[bool]:
                host.put(SHUT, interface=interface, slaves=slaves)
                return [
                    host.reaches(own, WEB, inward=True),
                    host.reaches(there, WEB, inward=False, source=own),
                    host.reaches(HOST[version], WEB, inward=True),
                ]

            for interface in ("up0", EVERY):
                assert passes(interface) == [False, False, False]
                assert passes(interface, own) == [True, True, False]

    play(namespaces, body)
