"""A tap as a virtual machine sees it: frames in and out of the descriptor that it opens."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.netns import in_fresh_namespace, run
from support.taps import check_taps

from api.resources.workload import Mode
from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.kernel import tap
from routed.kernel.linux import LinuxKernel
from routed.lab.processes import wait_for
from routed.state import HOST_MAC, Endpoint, HostState, Limits

pytestmark = pytest.mark.root
Make = Callable[[str], str]
VM = Endpoint("vm.h", "eth0", (ip_address("10.65.0.9"),), None, mode=Mode.TAP)
ECHO, ECHO_REPLY = 8, 0


class Machine:
    """As much of one as answers and asks echoes."""

    def __init__(self, name: str, mac: bytes, address: str) -> None:
        self.mac, self.address = mac, ip_address(address).packed
        self.open(name)

    def open(self, name: str) -> None:
        """Take the tap, as a hypervisor does; the kernel sends on it once it has seen that."""
        self.descriptor = os.open(tap.DEVICE, os.O_RDWR | os.O_NONBLOCK)
        flags = tap.IFF_TAP | tap.IFF_NO_PI
        fcntl.ioctl(self.descriptor, tap.TUNSETIFF, struct.pack("=16sH22x", name.encode(), flags))
        wait_for("the tap being up", lambda: " state UP " in run("ip", "link", "show", name), 10)

    def send(self, target: str, kind: int = ECHO, source: str = "", data: bytes = b"ping") -> None:
        body = struct.pack("!BBHHH", kind, 0, 0, 7, 1) + data
        self.put(target, socket.IPPROTO_ICMP, body[:2] + _checksum(body) + body[4:], source)

    def put(self, target: str, protocol: int, body: bytes, source: str = "") -> None:
        origin = ip_address(source).packed if source else self.address
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
        head += origin + ip_address(target).packed
        head = head[:10] + _checksum(head) + head[12:]
        os.write(self.descriptor, HOST_MAC + self.mac + b"\x08\0" + head + body)

    async def heard(self, source: str, kind: int, seconds: float = 5.0) -> bool:
        """Whether an ICMP message of that kind comes from `source` in time."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        frame = os.read(self.descriptor, 2048)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
                        continue
                    if frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == kind:
                        assert frame[:6] == self.mac
                        if frame[26:30] == ip_address(source).packed:
                            return True
        except TimeoutError:
            return False

    async def datagram(self, seconds: float = 5.0) -> bytes:
        """The next frame that has one."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    frame = os.read(self.descriptor, 2048)
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                    continue
                if frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_UDP:
                    return frame

    def close(self) -> None:
        os.close(self.descriptor)


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def play(namespaces: Make, body: Callable[[Machine, str], Any], machines: Endpoint = VM) -> None:
    check_taps()
    other = namespaces("w")

    async def whole() -> None:
        Nft().sync()
        kernel = LinuxKernel()
        web = Endpoint("web.h", "eth0", (ip_address("10.65.0.1"),), f"/run/netns/{other}")
        report = await kernel.sync(HostState(endpoints={"vm.h": machines, "web.h": web}))
        assert set(report.ready) == {"vm.h", "web.h"}, report.failed
        machine = Machine(VM.host_interface, VM.mac, "10.65.0.9")
        try:
            await body(machine, other)
        finally:
            machine.close()
            await kernel.close()

    in_fresh_namespace(whole)


def test_a_machine_reaches_its_gateway_and_other_workloads(namespaces: Make) -> None:
    async def body(machine: Machine, _: str) -> None:
        for target in ("169.254.1.1", "10.65.0.1"):
            machine.send(target)
            assert await machine.heard(target, ECHO_REPLY), target

    play(namespaces, body)


@pytest.mark.parametrize("source", ["the host", "a workload"])
def test_a_machine_is_reached(namespaces: Make, source: str) -> None:
    async def body(machine: Machine, other: str) -> None:
        inside = [] if source == "the host" else ["ip", "netns", "exec", other]
        words = [*inside, "ping", "-n", "-c", "1", "-W", "5", "10.65.0.9"]
        asking = await asyncio.create_subprocess_exec(*words, stdout=-3)
        if source == "a workload":
            assert await machine.heard("10.65.0.1", ECHO)
        else:
            assert await machine.heard("169.254.1.1", ECHO)
        asking.kill()
        await asking.wait()

    play(namespaces, body)


def test_a_machine_that_uses_anothers_address_is_heard_by_nobody(namespaces: Make) -> None:
    async def body(machine: Machine, other: str) -> None:
        # the filter alone, as for IPv6, has to see it
        Path(f"/proc/sys/net/ipv4/conf/{VM.host_interface}/rp_filter").write_text("0")
        before = _echoes(other)
        machine.send("10.65.0.1", source="10.65.0.7")
        machine.send("10.65.0.1")
        assert await machine.heard("10.65.0.1", ECHO_REPLY)
        assert _echoes(other) == before + 1, "the second one only"

    play(namespaces, body)


def test_a_machine_that_is_gone_leaves_its_tap_to_the_next(namespaces: Make) -> None:
    async def body(machine: Machine, _: str) -> None:
        machine.close()
        machine.open(VM.host_interface)
        machine.send("10.65.0.1")
        assert await machine.heard("10.65.0.1", ECHO_REPLY)

    play(namespaces, body)


def test_a_mapped_port_reaches_a_machine(namespaces: Make) -> None:
    async def body(machine: Machine, _: str) -> None:
        run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
        mapping = PortMapping("udp", 5353, ip_address("10.65.0.9"), 53)
        Nft().sync(Nat(ports=frozenset([mapping])))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("192.0.2.1", 0))
            client.sendto(b"question", ("192.0.2.1", 5353))
            frame = await machine.datagram()
            assert frame[26:34] == ip_address("192.0.2.1").packed + machine.address
            source, target = struct.unpack_from("!HH", frame, 34)
            assert (source, target, frame[42:50]) == (client.getsockname()[1], 53, b"question")
            answer = struct.pack("!HHHH", 53, source, 8 + 6, 0) + b"answer"
            machine.put("192.0.2.1", socket.IPPROTO_UDP, answer)
            client.settimeout(5)
            assert client.recvfrom(100) == (b"answer", ("192.0.2.1", 5353))

    play(namespaces, body)


def test_limits_of_a_machine(namespaces: Make) -> None:
    limits = Limits(10_000_000, 1_000_000, 10_000_000, 1_000_000)
    limited = replace(VM, limits=limits)

    async def body(machine: Machine, _: str) -> None:
        machine.send("10.65.0.1")
        assert await machine.heard("10.65.0.1", ECHO_REPLY)
        for name in (limited.host_interface, limited.shaper):
            said = run("tc", "-s", "qdisc", "show", "dev", name, "root")
            assert "rate 10Mbit" in said
            assert "Sent 0 bytes" not in said, name

    play(namespaces, body, limited)


def _echoes(netns: str) -> int:
    """How many echo requests a namespace has had."""
    text = run("ip", "netns", "exec", netns, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in text if line.startswith("Icmp:"))
    return int(values[names.index("InEchos")])
