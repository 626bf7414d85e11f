"""Sessions that carry IPv4, IPv6 or both, over either of them, against real BIRD."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.netns import run
from support.rack import Agent, Make, Rack, advertisements, until

from bgp.seam import Peer, Session

pytestmark = pytest.mark.root

BIRD = """
log stderr { warning, error, fatal, bug };
router id 192.0.2.1;
protocol device { }
protocol static four { ipv4; route 10.66.0.1/32 blackhole; }
protocol static six { ipv6; route fd00:66::1/128 blackhole; }
protocol bgp host {
  graceful restart aware;
  EXTRA
}
"""
OVER_V4 = "local 192.0.2.1 as 65001; neighbor 192.0.2.2 as 65002;"
OVER_V6 = "local fd00:2::1 as 65001; neighbor fd00:2::2 as 65002;"
EXPORT = "{ import all; export where source = RTS_STATIC; next hop self; MORE };"
FOUR, SIX = "ipv4 " + EXPORT.replace("MORE", ""), "ipv6 " + EXPORT.replace("MORE", "")
EXTENDED = "ipv4 " + EXPORT.replace("MORE", "extended next hop on;")
BOTH = ("10.65.0.1/32", "fd00:65::1/128")
LINK_LOCAL = "fe80::1"

Start = Callable[[str], Rack]


@pytest.fixture
def start(namespaces: Make, tmp_path: Path) -> Iterator[Start]:
    """Start a rack whose switch has the session described so."""
    racks: list[Rack] = []

    def one(extra: str) -> Rack:
        racks.append(Rack(namespaces, tmp_path, extra, BIRD))
        return racks[-1]

    yield one
    for rack in racks:
        rack.stop()


def peer(address: str, *families: int, interface: str | None = None) -> Peer:
    return Peer("tor", ip_address(address), 65001, 65002, "192.0.2.2", hold_time=3,
                families=families, interface=interface)  # fmt: skip


def next_hop(rack: Rack, prefix: str) -> str:
    found = re.search(r"BGP.next_hop:.* (\S+)$", rack.birdc("show", "route", prefix, "all"), re.M)
    return found[1] if found else ""


def told(agent: Agent) -> dict[str, tuple[str, ...]]:
    return {prefix: tuple(map(str, one.next_hops)) for prefix, one in agent.paths().items()}


def test_ipv6_over_ipv6_alone(start: Start) -> None:
    rack = start(f"{OVER_V6} {SIX}")

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": peer("fd00:2::1")}, advertisements(*BOTH))
            await until(lambda: rack.routes() == {"fd00:65::1/128"})
            assert next_hop(rack, "fd00:65::1/128") == "fd00:2::2"
            await until(lambda: told(agent) == {"fd00:66::1/128": ("fd00:2::1",)})

    asyncio.run(body())


@pytest.mark.parametrize("over", [OVER_V6, LINK_LOCAL])
def test_md5_and_ttl_security_over_ipv6_need_no_rights(start: Start, over: str) -> None:
    """Nor does binding a session to its link, which a link-local address needs."""
    protected = f'password "s3cret"; ttl security on; {SIX}'
    own = over if over is OVER_V6 else (
        f'local {over} as 65001; neighbor range fe80::/10 external; interface "h0";'
    )  # fmt: skip
    rack = start(f"{own} {protected}")
    secret = rack.directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("s3cret\n")
    assert rack.speaker is not None
    rack.speaker.kill()
    rack.speaker.wait()
    rack.start_speaker("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    link_local = over is LINK_LOCAL
    wanted = dataclasses.replace(
        peer(LINK_LOCAL if link_local else "fd00:2::1", interface="up0" if link_local else None),
        ttl_security=1,
        password_file=str(secret),
    )

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": wanted}, advertisements(*BOTH))
            await until(lambda: "fd00:65::1/128" in rack.birdc("show", "route"))

    asyncio.run(body())


def test_ipv6_over_link_local_addresses(start: Start) -> None:
    rack = start(
        f'local {LINK_LOCAL} as 65001; neighbor range fe80::/10 external; interface "h0";'
        f' dynamic name "host"; {SIX}'
    )

    async def body() -> None:
        async with Agent(rack) as agent:
            wanted = {"tor": peer(LINK_LOCAL, interface="up0")}
            agent.client.set(wanted, advertisements(*BOTH))
            await until(lambda: "fd00:65::1/128" in rack.birdc("show", "route"))
            assert next_hop(rack, "fd00:65::1/128").startswith("fe80::")
            await until(lambda: told(agent) == {"fd00:66::1/128": (LINK_LOCAL,)})

    asyncio.run(body())


@pytest.mark.parametrize(
    ("over", "address", "channels", "hops", "heard"),
    [
        (OVER_V4, "192.0.2.1", FOUR + SIX, ("192.0.2.2", "fd00:2::2"), ("192.0.2.1", "fd00:2::1")),
        (OVER_V6, "fd00:2::1", FOUR + SIX, ("192.0.2.2", "fd00:2::2"), ("192.0.2.1", "fd00:2::1")),
        (OVER_V6, "fd00:2::1", EXTENDED + SIX, ("fd00:2::2", "fd00:2::2"),
         ("fd00:2::1", "fd00:2::1")),
    ],
    ids=["over IPv4", "over IPv6", "over IPv6 with RFC 8950"],
)  # fmt: skip
def test_both_in_one_session(
    start: Start,
    over: str,
    address: str,
    channels: str,
    hops: tuple[str, str],
    heard: tuple[str, str],
) -> None:
    """Announced, learned, kept while ExaBGP is killed, and swept by each family's End-of-RIB."""
    rack = start(f"{over} {channels}")

    async def body() -> None:
        async with Agent(rack) as agent:
            more = (*BOTH, "10.65.0.2/32", "fd00:65::2/128")
            agent.client.set({"tor": peer(address, 4, 6)}, advertisements(*more))
            await until(lambda: rack.routes() == set(more))
            assert tuple(next_hop(rack, prefix) for prefix in BOTH) == hops
            expected = {"10.66.0.1/32": (heard[0],), "fd00:66::1/128": (heard[1],)}
            await until(lambda: told(agent) == expected)
            old = rack.exabgp()
            os.kill(old, signal.SIGKILL)
            for gone in more[2:]:
                agent.client.withdraw(ip_network(gone))

            def back() -> bool:
                assert rack.routes() >= set(BOTH), "a route was missing"
                return rack.exabgp() not in (0, old) and rack.routes() == set(BOTH)

            await until(back, 30)
            assert tuple(next_hop(rack, prefix) for prefix in BOTH) == hops
            await until(lambda: told(agent) == expected)

    asyncio.run(body())


def test_what_a_session_does_not_carry_is_said(start: Start) -> None:
    """The switch offers IPv4 alone; and a link without an IPv4 address has no next hop."""
    rack = start(f"{OVER_V6} {FOUR + SIX}")
    run("ip", "-n", rack.host, "addr", "del", "192.0.2.2/24", "dev", "up0")

    async def body() -> None:
        async with Agent(rack) as agent:

            def said() -> str:
                errors = [event.error for event in agent.heard if isinstance(event, Session)]
                return errors[-1] if errors else ""

            agent.client.set({"tor": peer("fd00:2::1", 4, 6)}, advertisements(*BOTH))
            await until(lambda: rack.routes() == {"fd00:65::1/128"})
            await until(lambda: "IPv4 is not announced" in said() and "RFC 8950" in said())
            run("ip", "-n", rack.host, "addr", "add", "192.0.2.3/24", "dev", "up0")
            await until(lambda: rack.routes() == set(BOTH))
            assert next_hop(rack, BOTH[0]) == "192.0.2.3"
            await until(lambda: said() == "")
            # renumbered while the session is up: over the new one, and withdrawn without one
            run("ip", "-n", rack.host, "addr", "add", "192.0.2.4/24", "dev", "up0")
            run("ip", "-n", rack.host, "addr", "del", "192.0.2.3/24", "dev", "up0")
            run("ip", "-n", rack.host, "addr", "replace", "192.0.2.4/24", "dev", "up0")
            await until(lambda: next_hop(rack, BOTH[0]) == "192.0.2.4")
            run("ip", "-n", rack.host, "addr", "del", "192.0.2.4/24", "dev", "up0")
            await until(lambda: rack.routes() == {BOTH[1]})
            await until(lambda: "IPv4 is not announced" in said())
            agent.client.withdraw(ip_network(BOTH[0]))
            await agent.client.sync()

    asyncio.run(body())


def test_a_family_that_the_switch_does_not_offer(start: Start) -> None:
    rack = start(f"{OVER_V4} {FOUR}")

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": peer("192.0.2.1", 4, 6)}, advertisements(*BOTH))
            await until(lambda: rack.routes() == {"10.65.0.1/32"})
            await until(lambda: any(
                isinstance(event, Session) and "IPv6 is not carried" in event.error
                for event in agent.heard
            ))  # fmt: skip
            await agent.client.sync()

    asyncio.run(body())
