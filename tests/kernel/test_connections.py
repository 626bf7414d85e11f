"""What the kernel remembers of connections with a released address is gone before the address is
used again: real flows through a host between workloads and a host outside."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from support.conntrack import entries
from support.flows import Outside, connected, entered, listen
from support.kernels import FakeWorld, RealWorld, endpoint
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.kernel import conntrack
from routed.kernel.linux import LinuxKernel
from routed.state import HostState

Make = Callable[[str], str]
FOUR, SIX = "10.65.0.1", "fd00::1"


@pytest.mark.root
@pytest.mark.parametrize("address", [FOUR, SIX])
def test_an_address_used_again_has_no_connection_of_before(namespaces: Make, address: str) -> None:
    one, again, far = namespaces("a"), namespaces("b"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync()
        Outside(far)
        first, second = endpoint("a.h", one, address), endpoint("b.h", again, address)
        await kernel.sync(HostState(endpoints={"a.h": first}))
        old_server = listen(one, address)
        old = connected(far, address)
        assert entries(address), "the flow goes through this host's conntrack"
        await kernel.detach(["a.h"])
        kernel.forget(first.addresses)
        await kernel.attach(second)  # waits
        assert not entries(address)
        new_server = listen(again, address)
        new = connected(far, address)
        assert len(entries(address)) == 1
        # the old peer goes on sending: it is answered by a reset, and nothing comes to the new one
        old.settimeout(5)
        old.sendall(b"stale")
        with pytest.raises(ConnectionResetError):
            old.recv(1)
        new.sendall(b"fresh")
        for each in (old_server, new_server):
            each.kill()
        assert new_server.communicate()[0].split()[1:] == ["ready"], "only what the new peer said"
        old.close()
        new.close()

    in_fresh_namespace(body)


@pytest.mark.root
@pytest.mark.parametrize("many", [0, 1 << 20], ids=["selected", "all"])
def test_many_addresses_and_nobody_elses_connections(
    namespaces: Make, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(conntrack, "MANY", many)
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync()
        nine = [f"10.65.0.{number}" for number in range(1, 10)]
        a, b = endpoint("a.h", one, *nine, SIX), endpoint("b.h", other, "10.65.1.1", "fd00::2")
        await kernel.sync(HostState(endpoints={"a.h": a, "b.h": b}))
        for of, some in (
            (socket.AF_INET, (*nine, "10.65.1.1")),
            (socket.AF_INET6, (SIX, "fd00::2")),
        ):
            with socket.socket(of, socket.SOCK_DGRAM) as sending:
                for address in some:
                    sending.sendto(b"x", (address, 9))
        assert len(entries(*nine, SIX)) == 10
        for some in (a.addresses[:2], a.addresses):
            kernel.forget(some)
            assert entries(*map(str, some)), "off the way of who says so"
            await kernel.reaped()
            assert not entries(*map(str, some))
        assert len(entries("10.65.1.1", "fd00::2")) == 2

    in_fresh_namespace(body)


@pytest.mark.root
def test_what_a_port_mapping_or_source_nat_made_is_found(namespaces: Make) -> None:
    one, far = namespaces("a"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync()
        Outside(far)
        run("nft", "add table ip t")
        run("nft", "add chain ip t d { type nat hook prerouting priority -100; }")
        run("nft", "add chain ip t s { type nat hook postrouting priority 100; }")
        run("nft", "add rule ip t d iifname up0 tcp dport 8080 dnat to 10.65.0.1:7000")
        run("nft", "add rule ip t s ip daddr 10.65.0.1 snat to 10.65.9.9")
        a = endpoint("a.h", one, FOUR)
        await kernel.sync(HostState(endpoints={"a.h": a}))
        run("ip", "addr", "add", "10.65.9.9/32", "dev", "up0")
        server = listen(one, FOUR)
        flow = connected(far, "192.0.2.1", 8080)
        assert len(entries(FOUR)) == 1
        kernel.forget(a.addresses)
        await kernel.reaped()
        assert not entries("192.0.2.2")
        server.kill()
        flow.close()

    in_fresh_namespace(body)


@pytest.mark.root
def test_who_sends_to_a_port_before_it_is_mapped_is_heard_afterwards(namespaces: Make) -> None:
    one, far = namespaces("a"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync()
        Outside(far)
        await kernel.sync(HostState(endpoints={"a.h": endpoint("a.h", one, FOUR)}))
        with entered(one):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((FOUR, 53))
        with entered(far):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.bind(("192.0.2.2", 5000))
        server.settimeout(0.5)
        client.sendto(b"early", ("192.0.2.1", 5353))
        mapping = PortMapping("udp", 5353, ip_address(FOUR), 53)
        table.sync(Nat(ports=frozenset([mapping])))
        client.sendto(b"still early", ("192.0.2.1", 5353))
        with pytest.raises(TimeoutError):
            server.recv(100)
        kernel.forget_ports([5354])
        await kernel.reaped()
        assert len(entries("192.0.2.2")) == 1, "another port"
        kernel.forget_ports([5353])
        await kernel.reaped()
        client.sendto(b"now", ("192.0.2.1", 5353))
        server.settimeout(5)
        assert server.recv(100) == b"now"
        kernel.forget_ports([5353])
        await kernel.reaped()
        assert len(entries(FOUR)) == 1, "what is translated stays"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"x", ("192.0.2.2", 5353))
            own.sendto(b"x", ("127.0.0.1", 5353))
        with entered(one), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passing:
            passing.sendto(b"x", ("192.0.2.2", 5353))
        others = entries("192.0.2.2", "127.0.0.1")
        kernel.forget_ports([5353])
        await kernel.reaped()
        assert len(entries("192.0.2.2", "127.0.0.1")) == len(others) == 4, "what others say"
        server.close()
        client.close()

    in_fresh_namespace(body)


@pytest.mark.root
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EINVAL, errno.ENOENT])
def test_a_kernel_that_cannot_forget_refuses_the_address_and_tries_again(
    namespaces: Make, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        a = endpoint("a.h", one, FOUR)

        def fails(_: object) -> int:
            raise OSError(number, "refused")

        with monkeypatch.context() as broken:
            broken.setattr(conntrack, "forget", fails)
            kernel.forget(a.addresses)
            with pytest.raises(ApplyError, match="old connections"):
                await kernel.attach(a)
        await kernel.attach(a)

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    "world", [FakeWorld, pytest.param(RealWorld, marks=pytest.mark.root)], ids=["fake", "real"]
)
def test_both_kernels_forget(world: Any) -> None:
    async def body(here: Any) -> None:
        a = endpoint("a.h", here.netns("a"), FOUR)
        await here.kernel.sync(HostState(endpoints={"a.h": a}))
        here.flow("192.0.2.1", FOUR)
        assert here.has_flow(FOUR)
        await here.kernel.detach(["a.h"])
        assert here.has_flow(FOUR), "a detach alone does not say who had which address"
        here.kernel.forget(a.addresses)
        again = endpoint("b.h", here.netns("b"), FOUR)
        await here.kernel.attach(again)
        assert not here.has_flow(FOUR)

    world.play(body)
