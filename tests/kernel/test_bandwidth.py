"""Limits of bandwidth, both ways, on the real kernel: what arrives in a bounded time, and that they
are put back, and gone with their workload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.flows import entered
from support.kernels import FakeWorld, RealWorld, endpoint, until
from support.netns import in_fresh_namespace, run

from api.resources.errors import Invalid
from routed.kernel import shaping
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint, HostState, Limits

pytestmark = pytest.mark.root
Make = Callable[[str], str]

MBIT = 1_000_000
LIMITS = Limits(to_rate=16 * MBIT, to_burst=MBIT // 4, from_rate=8 * MBIT, from_burst=MBIT // 4)
WINDOWS = (1.5,) * 8  # seconds


def limited(netns: str, *addresses: str) -> Endpoint:
    return replace(endpoint("a.h", netns, *addresses), limits=LIMITS)


@contextmanager
def stream(source: str, target: str, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection from namespace `source` to `address` in `target`: both ends."""
    with entered(target):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, 7001), family=family)
    with entered(source):
        sending = socket.create_connection((address, 7001), timeout=5)
    receiving, _ = listener.accept()
    with closing(listener), closing(sending), closing(receiving):
        yield sending, receiving


def rates(
    sending: socket.socket, receiving: socket.socket, limit: int, burst: int
) -> Iterator[float]:
    """Bits a second that arrive in each of some windows, after a start in which the burst goes. A
    busy machine may keep us from sending enough in one of them, or leave some for the next; but
    never has more arrived since the beginning than a tenth more than the limit, and the burst."""
    sending.setblocking(False)
    receiving.setblocking(False)
    piece = b"x" * 65_536
    began, total = time.monotonic(), 0
    for seconds in (0.5, *WINDOWS):
        start, count = time.monotonic(), 0
        while (now := time.monotonic()) < start + seconds:
            with contextlib.suppress(BlockingIOError):
                while sending.send(piece):
                    pass
            with contextlib.suppress(BlockingIOError):
                while data := receiving.recv(1 << 20):
                    count += 8 * len(data)
            time.sleep(0.0005)
        total += count
        most = 1.1 * limit * (time.monotonic() - began) + burst
        assert total <= most, f"{total} bits arrived, {most:.0f} may"
        if seconds in WINDOWS:
            yield count / (now - start)


@pytest.mark.parametrize(
    ("own", "other"), [("10.65.0.1", "10.65.0.2"), ("fd00:65::1", "fd00:65::2")]
)
def test_what_arrives_is_within_a_tenth_of_the_limit(
    namespaces: Make, own: str, other: str
) -> None:
    one, two = namespaces("a"), namespaces("b")

    async def body() -> None:
        kernel = LinuxKernel()
        a, b = limited(one, own), endpoint("b.h", two, other)
        await kernel.sync(HostState(endpoints={"b.h": b}))
        await kernel.attach(a)
        assert (await kernel.sync(HostState(endpoints={"a.h": a, "b.h": b}))).changed == 0
        for source, target, address, limit, burst in (
            (two, one, own, LIMITS.to_rate, LIMITS.to_burst),
            (one, two, other, LIMITS.from_rate, LIMITS.from_burst),
        ):
            with stream(source, target, address) as ends:
                reached = []
                for one_rate in rates(*ends, limit, burst):
                    reached.append(one_rate)
                    if one_rate > 0.9 * limit:
                        break
            said = ", ".join(f"{one_rate / MBIT:.2f}" for one_rate in reached)
            print(f"{limit / MBIT:.0f} Mbit/s: {said} with headers left out")
            assert reached[-1] > 0.9 * limit, said

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    "damage",
    [
        "tc qdisc del dev {link} root",
        "tc qdisc del dev {link} ingress",
        "tc filter del dev {link} ingress",
        "tc qdisc del dev {shaper} root",
        "tc qdisc replace dev {link} root handle 7264: tbf rate 1gbit burst 1mb limit 1mb",
        "ip link set {shaper} down",
        "ip link del {shaper}",
    ],
)
def test_a_limit_that_somebody_takes_away_is_put_back(namespaces: Make, damage: str) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        a = limited(one, "10.65.0.1")
        desired = HostState(endpoints={"a.h": a})
        assert (await kernel.sync(desired)).changed
        assert (await kernel.sync(desired)).changed == 0
        other = LinuxKernel()
        assert (await other.sync(desired)).changed == 0, "marks in the kernel are memory enough"
        await other.close()
        woken = aiter(kernel.watch())
        await asyncio.wait_for(anext(woken), 5)
        before = run("tc", "qdisc")
        run(*damage.format(link=a.host_interface, shaper=a.shaper).split())
        await asyncio.wait_for(anext(woken), 5)
        report = await kernel.sync(desired)
        assert report.changed
        assert not report.failed
        now = run("tc", "qdisc")
        assert sorted(now.split()) == sorted(before.split())
        assert (await kernel.sync(desired)).changed == 0

    in_fresh_namespace(body)


def test_nothing_is_left_of_a_limit(namespaces: Make) -> None:
    one, two = namespaces("a"), namespaces("b")

    async def body() -> None:
        kernel = LinuxKernel()
        a = limited(one, "10.65.0.1")
        await kernel.attach(a)
        assert a.shaper in run("ip", "-br", "link")
        await kernel.detach(["a.h"], {"a.h": a})
        await kernel.reaped()
        assert "ri" not in run("ip", "-br", "link")
        assert "tbf" not in run("tc", "qdisc")
        await kernel.attach(replace(a, netns=f"/run/netns/{two}"))
        run("ip", "netns", "del", two)
        report = await kernel.sync(HostState())
        await kernel.reaped()
        assert not report.failed
        assert "ri" not in run("ip", "-br", "link"), "the namespace is gone, and with it the link"

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    ("kind", "what"),
    [("tbf", "it is sent"), ("ifb", "it sends"), ("ingress", "it sends"), ("u32", "it sends")],
)
def test_a_kernel_that_cannot_says_what_it_lacks(
    namespaces: Make, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    """As it answers of a kind that nobody has heard of."""
    one, known = namespaces("a"), shaping.attr_text
    monkeypatch.setattr(
        shaping, "attr_text", lambda number, text: known(number, "none" if text == kind else text)
    )

    async def body() -> None:
        kernel = LinuxKernel()
        a = limited(one, "10.65.0.1")
        with pytest.raises(Invalid, match=f"a.h: this kernel cannot limit what {what}: it lacks"):
            await kernel.attach(a)
        await kernel.reaped()
        assert run("ip", "-br", "link").split()[0] == "lo"
        assert len(run("ip", "-br", "link").splitlines()) == 1
        report = await kernel.sync(HostState(endpoints={"a.h": a}))
        assert "leave bandwidth out" in str(report.failed["a.h"])
        await kernel.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize("world", [FakeWorld, RealWorld], ids=["fake", "real"])
def test_both_kernels_keep_limits(world: Any) -> None:
    async def body(here: Any) -> None:
        a = limited(here.netns("a"), "10.65.0.1")
        desired = HostState(endpoints={"a.h": a})
        await here.kernel.attach(a)
        assert here.limits() == 2
        await here.kernel.sync(desired)  # forwarding
        assert (await here.kernel.sync(desired)).changed == 0
        here.delete_limit("a.h")
        assert (await here.kernel.sync(desired)).changed
        assert here.limits() == 2
        here.link_down("a.h")
        assert here.limits() == 2
        await here.kernel.detach(["a.h"], desired.endpoints)
        await until(lambda: here.limits() == 0)

    world.play(body)
