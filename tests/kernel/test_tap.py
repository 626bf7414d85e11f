"""A tap as a virtual machine sees it, in both families."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from support.flows import Outside, entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run
from support.taps import Machine, check_taps

from api.resources.errors import Invalid
from api.resources.workload import Mode
from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.kernel import tap
from routed.kernel.linux import LinuxKernel
from routed.lab.processes import wait_for
from routed.state import HOST_MAC, Endpoint, HostState, Limits

pytestmark = pytest.mark.root
Make = Callable[[str], str]
OWN, SIX = ip_address("10.65.0.9"), ip_address("fd00:65::9")
VM = Endpoint("vm.h", "eth0", (OWN, SIX), None, mode=Mode.TAP)
WEB, WEB_SIX = "10.65.0.1", "fd00:65::1"
GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
HIDDEN = frozenset([ip_network("10.65.0.0/24"), ip_network("fd00:65::/64")])

both = pytest.mark.parametrize("web", [WEB, WEB_SIX], ids=["v4", "v6"])


def play(namespaces: Make, body: Callable[[Machine, str], Any], machines: Endpoint = VM) -> None:
    check_taps()
    other = namespaces("w")

    async def whole() -> None:
        Nft().sync()
        kernel = LinuxKernel()
        web = endpoint("web.h", other, WEB, WEB_SIX)
        report = await kernel.sync(HostState(endpoints={"vm.h": machines, "web.h": web}))
        assert set(report.ready) == {"vm.h", "web.h"}, report.failed
        machine = Machine(VM.host_interface, VM.mac, OWN, SIX)
        try:
            assert await machine.reaches(WEB)
            assert await machine.reaches(WEB_SIX)
            await body(machine, other)
        finally:
            machine.close()
            await kernel.close()

    in_fresh_namespace(whole)


@both
def test_a_machine_reaches_its_gateway_and_other_workloads(namespaces: Make, web: str) -> None:
    async def body(machine: Machine, _: str) -> None:
        for target in (GATEWAYS[ip_address(web).version], web):
            machine.ask(target)
            assert await machine.answered(target), target

    play(namespaces, body)


def test_a_machine_is_told_the_mac_of_its_gateway(namespaces: Make) -> None:
    """It has no permanent neighbour."""

    async def body(machine: Machine, _: str) -> None:
        machine.solicit("fe80::1")
        assert await machine.advertised("fe80::1") == HOST_MAC

    play(namespaces, body)


@both
@pytest.mark.parametrize("source", ["the host", "a workload"])
def test_a_machine_is_reached(namespaces: Make, source: str, web: str) -> None:
    version = ip_address(web).version

    async def body(machine: Machine, other: str) -> None:
        inside = [] if source == "the host" else ["ip", "netns", "exec", other]
        words = [*inside, "ping", "-n", "-c", "1", "-W", "5", str(machine.own[version])]
        asking = await asyncio.create_subprocess_exec(*words, stdout=-3)
        asks = web if source == "a workload" else GATEWAYS[version]
        assert await machine.asked(asks)
        asking.kill()
        await asking.wait()

    play(namespaces, body)


@both
def test_a_machine_that_uses_anothers_address_is_heard_by_nobody(
    namespaces: Make, web: str
) -> None:
    async def body(machine: Machine, other: str) -> None:
        # the filter alone, as for IPv6, has to see it
        Path(f"/proc/sys/net/ipv4/conf/{VM.host_interface}/rp_filter").write_text("0")
        before = _echoes(other, web)
        machine.ask(web, source="10.65.0.7" if web == WEB else "fd00:65::7")
        machine.ask(web)
        assert await machine.answered(web)
        assert _echoes(other, web) == before + 1, "the second one only"

    play(namespaces, body)


@both
def test_a_machine_that_is_gone_leaves_its_tap_to_the_next(namespaces: Make, web: str) -> None:
    async def body(machine: Machine, _: str) -> None:
        machine.close()
        machine.open(VM.host_interface)
        assert await machine.reaches(web)

    play(namespaces, body)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_mapped_port_reaches_a_machine(namespaces: Make, host: str) -> None:
    async def body(machine: Machine, _: str) -> None:
        run("ip", "addr", "add", host, "dev", "lo")
        at = ip_address(host)
        own = machine.own[at.version]
        Nft().sync(Nat(ports=frozenset([PortMapping("udp", 5353, own, 53)])))
        with socket.socket(_family(host), socket.SOCK_DGRAM) as client:
            client.bind((host, 0))
            client.sendto(b"question", (host, 5353))
            asked = await machine.datagram()
            port = client.getsockname()[1]
            assert (asked.source, asked.target, asked.ports) == (at, own, (port, 53))
            assert asked.data == b"question"
            machine.say(host, port, 53, b"answer")
            client.settimeout(5)
            answer, whence = client.recvfrom(100)
            assert (answer, whence[:2]) == (b"answer", (host, 5353))

    play(namespaces, body)


@pytest.mark.parametrize(
    ("host", "far"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
)
def test_a_machine_of_a_pool_with_nat_is_hidden_behind_its_host(
    namespaces: Make, host: str, far: str
) -> None:
    out = namespaces("out")

    async def body(machine: Machine, _: str) -> None:
        Nft().sync(Nat(pools=HIDDEN, outgoing=HIDDEN))
        Outside(out)
        wait_for("a way outside", lambda: _pings(far), 10)
        with entered(out):
            server = socket.socket(_family(far), socket.SOCK_DGRAM)
        with server:
            server.settimeout(5)
            server.bind((far, 53))
            machine.say(far, 53, 4000, b"question")
            question, whence = server.recvfrom(100)
            assert (question, whence[0]) == (b"question", host)
            server.sendto(b"answer", whence)
            answer = await machine.datagram()
            assert (answer.source, answer.ports, answer.data) == (
                ip_address(far),
                (53, 4000),
                b"answer",
            )
            assert answer.target == machine.own[answer.target.version]

    play(namespaces, body)


def test_limits_of_a_machine(namespaces: Make) -> None:
    limits = Limits(10_000_000, 1_000_000, 10_000_000, 1_000_000)
    limited = replace(VM, limits=limits)

    async def body(machine: Machine, _: str) -> None:
        machine.ask(WEB)
        assert await machine.answered(WEB)
        for name in (limited.host_interface, limited.shaper):
            said = run("tc", "-s", "qdisc", "show", "dev", name, "root")
            assert "rate 10Mbit" in said
            assert "Sent 0 bytes" not in said, name

    play(namespaces, body, limited)


def _pings(address: str) -> bool:
    words = ["ping", "-nqc1", "-W1", address]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _echoes(netns: str, address: str) -> int:
    """How many echo requests of the family of `address` a namespace has had."""
    if ":" in address:
        said = run("ip", "netns", "exec", netns, "cat", "/proc/net/snmp6")
        return int(dict(line.split() for line in said.splitlines())["Icmp6InEchos"])
    text = run("ip", "netns", "exec", netns, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in text if line.startswith("Icmp:"))
    return int(values[names.index("InEchos")])


def test_a_host_without_the_device_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(tap, "DEVICE", "/dev/net/none")
        kernel = LinuxKernel()
        with pytest.raises(
            Invalid, match=r"/dev/net/none cannot be opened.*modprobe tun"
        ) as caught:
            await kernel.attach(VM)
        assert [cause.field for cause in caught.value.causes] == ["mode"]
        assert len(run("ip", "-br", "link").splitlines()) == 1
        await kernel.close()

    in_fresh_namespace(body)
