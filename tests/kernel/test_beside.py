"""A second interface in one namespace: both addresses are answered, each out of its own interface,
whoever has the default route; what is taken away is put back; one goes and the other stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.flows import connected, heard, listen
from support.kernels import FakeWorld, RealWorld, endpoint
from support.netns import in_fresh_namespace, run

from api.resources.errors import Conflict
from policies.nft import Nft
from routed.kernel import beside
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint, HostState

Make = Callable[[str], str]
BESIDE = (ip_network("10.80.0.0/16"), ip_network("fd00:80::/64"))


def second(netns: str, *addresses: str) -> Endpoint:
    return Endpoint(
        "a-two.h", "eth1", tuple(map(ip_address, addresses)), f"/run/netns/{netns}",
        default_route=False, routes=BESIDE,
    )  # fmt: skip


def state(*endpoints: Endpoint) -> HostState:
    return HostState(endpoints={each.workload: each for each in endpoints})


@pytest.mark.root
@pytest.mark.parametrize(
    ("first", "other", "peer", "beyond"),
    [
        ("10.65.0.1", "10.70.0.1", "10.65.0.9", "10.80.0.9"),
        ("fd00:65::1", "fd00:70::1", "fd00:65::9", "fd00:80::9"),
    ],
)
def test_both_are_answered_and_each_goes_alone(
    namespaces: Make, first: str, other: str, peer: str, beyond: str
) -> None:
    one, near, far = namespaces("a"), namespaces("b"), namespaces("c")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync()
        a, two = endpoint("a.h", one, first), second(one, other)
        b, c = endpoint("b.h", near, peer), endpoint("c.h", far, beyond)
        await kernel.sync(state(a, b, c))
        await kernel.attach(two)
        assert (await kernel.sync(state(a, two, b, c))).changed == 0
        servers = {(n, at): listen(n, at) for n, at in ((one, first), (one, other), (near, peer))}
        servers[far, beyond] = listen(far, beyond)

        def reaches(source: str, target: tuple[str, str], seen: str) -> None:
            connected(source, target[1]).close()
            assert heard(servers[target]) == seen

        def whole() -> None:
            reaches(near, (one, first), peer)
            reaches(near, (one, other), peer)
            reaches(far, (one, other), beyond)
            reaches(one, (near, peer), first)
            reaches(one, (far, beyond), other)

        whole()
        six = ("-6",) if ":" in first else ()
        for damage in (
            ("rule", "del", "from", other),
            ("route", "del", str(BESIDE[bool(six)])),
            ("route", "flush", "table", str(beside.table(two.workload))),
            ("link", "set", "eth1", "down"),
        ):
            woken = aiter(kernel.watch())
            run("ip", *six, "-n", one, *damage)
            async with asyncio.timeout(10):  # sooner than it would look there by itself
                while not (report := await kernel.sync(state(a, two, b, c))).changed:
                    await anext(woken)
            assert not report.failed, damage
            whole()
            assert (await kernel.sync(state(a, two, b, c))).changed == 0
        await kernel.detach([a.workload], {a.workload: a})
        reaches(near, (one, other), peer)
        await kernel.reaped()
        await kernel.attach(a)
        whole()
        await kernel.detach([two.workload], {two.workload: two})
        reaches(near, (one, first), peer)
        rules = run("ip", *six, "-n", one, "rule")
        assert "8282" not in rules, "nothing is left of it"
        await kernel.reaped()
        await kernel.attach(two)
        whole()
        for server in servers.values():
            server.kill()

    in_fresh_namespace(body)


@pytest.mark.root
def test_its_rules_go_though_its_link_has_gone_before(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        two = second(one, "10.70.0.1")
        await kernel.attach(two)
        assert "from 10.70.0.1" in run("ip", "-n", one, "rule")
        run("ip", "link", "del", two.host_interface)
        await kernel.detach([two.workload], {two.workload: two})
        assert "from 10.70.0.1" not in run("ip", "-n", one, "rule")
        await kernel.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    "world", [FakeWorld, pytest.param(RealWorld, marks=pytest.mark.root)], ids=["fake", "real"]
)
def test_what_both_kernels_do_with_a_second_one(world: Any) -> None:
    async def body(here: Any) -> None:
        name = here.netns("a")
        a, two = endpoint("a.h", name, "10.65.0.1"), second(name, "10.70.0.1", "fd00:70::1")
        await here.kernel.sync(state(a, two))
        assert (await here.kernel.sync(state(a, two))).changed == 0
        third = replace(endpoint("third.h", name, "10.65.0.3"), if_name="eth3")
        with pytest.raises(Conflict, match="has a default route"):
            await here.kernel.attach(third)
        assert here.inner_links(name) >= {"eth0", "eth1"}
        assert "eth3" not in here.inner_links(name)
        same = replace(third, default_route=False)
        await here.kernel.attach(same)
        await here.kernel.detach(["a.h"], {"a.h": a})
        report = await here.kernel.sync(state(two, same))
        assert set(report.ready) == {"a-two.h", "third.h"}
        clash = replace(same, workload="more.h", if_name="eth4", routes=BESIDE[:1],
                        addresses=(ip_address("10.70.0.4"),))  # fmt: skip
        with pytest.raises(Conflict, match=r"10\.80\.0\.0/16"):
            await here.kernel.attach(clash)
        assert "eth4" not in here.inner_links(name)

    world.play(body)
