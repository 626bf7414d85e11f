"""The speaker against real BIRD: what is announced, kept, withdrawn and learned."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from support.netns import run
from support.rack import PEER, Agent, Rack, advertisements, until

from bgp.seam import Advertisement, Peer, Session
from bgp.wire import End, LinkDown

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    "rack",
    ["", 'password "s3cret";', "ttl security on;", 'password "s3cret"; ttl security on;'],
    indirect=True,
)
def test_a_session_with_md5_and_ttl_security(rack: Rack, request: pytest.FixtureRequest) -> None:
    extra = request.node.callspec.params["rack"]
    secret = rack.directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("s3cret\n")
    peer = Peer(
        "tor",
        PEER.address,
        65001,
        65002,
        "192.0.2.2",
        hold_time=3,
        ttl_security=1 if "ttl" in extra else None,
        password_file=str(secret) if "password" in extra else None,
    )

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": peer}, advertisements("10.65.0.1/32"))
            await until(lambda: rack.routes() == {"10.65.0.1/32"})
            assert "Hold timer" in rack.birdc("show", "protocols", "all", "host")
            assert "/3" in rack.birdc("show", "protocols", "all", "host").partition("Hold timer")[2]
        configuration = rack.directory / "run" / "exabgp" / "exabgp.conf"
        assert configuration.stat().st_mode & 0o777 == 0o600

    asyncio.run(body())


@pytest.mark.parametrize("rack", ['password "s3cret"; ttl security on;'], indirect=True)
def test_no_capability_is_needed(rack: Rack) -> None:
    """So it can run as anybody: it dials out, and neither MD5 nor TTL security need rights."""
    secret = rack.directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("s3cret\n")
    peer = Peer(
        "tor", PEER.address, 65001, 65002, "192.0.2.2", ttl_security=1, password_file=str(secret)
    )
    assert rack.speaker is not None
    rack.speaker.kill()
    rack.speaker.wait()
    rack.start_speaker("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")

    async def body() -> None:
        async with Agent(rack) as agent:
            assert rack.speaker is not None
            status = Path(f"/proc/{rack.speaker.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status
            agent.client.set({"tor": peer}, advertisements("10.65.0.1/32"))
            await until(lambda: rack.routes() == {"10.65.0.1/32"})

    asyncio.run(body())


@pytest.mark.parametrize("rack", [""], indirect=True)
def test_peers_that_cannot_be_used_keep_no_other_from_its_session(rack: Rack) -> None:
    secret = rack.directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("two words\n")
    bad = {
        "interface": dataclasses.replace(PEER, name="interface", interface="up~0",
                                         address=ip_address("fe80::7")),
        "password": dataclasses.replace(PEER, name="password", password_file=str(secret),
                                        address=ip_address("192.0.2.7")),
    }  # fmt: skip

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER, **bad}, advertisements("10.65.0.1/32"))
            await until(lambda: rack.routes() == {"10.65.0.1/32"})
            said = {one.peer: one.error for one in agent.heard if isinstance(one, Session)}
            assert "no link's name" in said["interface"]
            assert "printable ASCII" in said["password"]

    asyncio.run(body())


@pytest.mark.parametrize("rack", ['password "other";'], indirect=True)
def test_a_wrong_password_brings_no_session(rack: Rack) -> None:
    async def body() -> None:
        secret = rack.directory / "secret"
        secret.touch(mode=0o644)
        secret.write_text("s3cret")
        peer = Peer("tor", PEER.address, 65001, 65002, "192.0.2.2", password_file=str(secret))
        async with Agent(rack) as agent:
            agent.client.set({"tor": peer}, advertisements("10.65.0.1/32"))
            await until(lambda: any(
                isinstance(e, Session) and "0600" in e.error for e in agent.heard
            ))  # fmt: skip
        assert rack.routes() == set()

    asyncio.run(body())


def test_what_is_announced_outlives_the_agent_and_follows_it(rack: Rack) -> None:
    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements("10.65.0.1/32", "10.65.0.2/32"))
            await until(lambda: len(rack.routes()) == 2)
            agent.client.withdraw(ip_network("10.65.0.2/32"))
            agent.client.advertise(Advertisement(ip_network("10.65.0.3/32")))
            await agent.client.sync()
            await until(lambda: rack.routes() == {"10.65.0.1/32", "10.65.0.3/32"})
        before = rack.birdc("show", "route", "10.65.0.1/32")
        async with Agent(rack) as agent:
            await until(lambda: set(agent.paths()) == {"10.66.0.1/32", "10.66.0.2/32"})
            assert any(isinstance(event, End) for event in agent.heard)
            assert agent.paths()["10.66.0.1/32"].next_hops == (IPv4Address("192.0.2.1"),)
            assert agent.paths()["10.66.0.1/32"].as_path == (65001,)
            assert rack.birdc("show", "route", "10.65.0.1/32") == before
            agent.client.set({"tor": PEER}, advertisements("10.65.0.1/32"))
            await until(lambda: rack.routes() == {"10.65.0.1/32"})
            assert rack.birdc("show", "route", "10.65.0.1/32") == before

    asyncio.run(body())


def test_a_killed_exabgp_loses_no_route_and_sends_end_of_rib(rack: Rack) -> None:
    async def body() -> None:
        many = [f"10.65.{n // 250}.{n % 250}/32" for n in range(1000)]
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements(*many))
            await until(lambda: len(rack.routes()) == 1000)
            old = rack.exabgp()
            os.kill(old, signal.SIGKILL)
            # what goes meanwhile is gone after End-of-RIB, everything else never is
            agent.client.withdraw(ip_network(many[-1]))
            kept = set(many[:-1])

            def back() -> bool:
                assert rack.routes() >= kept, "a route was missing"
                return rack.exabgp() not in (0, old) and many[-1] not in rack.routes()

            await until(back, 30)
            await until(lambda: len(agent.paths()) == 2)

    asyncio.run(body())


def test_no_session_is_up_while_exabgp_is_dead(rack: Rack) -> None:
    """Else what is withdrawn meanwhile counts as withdrawn everywhere, and goes to others."""

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements("10.65.0.1/32"))
            await until(lambda: len(rack.routes()) == 1 and agent.state() == "Established")
            heard = len(agent.heard)
            os.kill(rack.exabgp(), signal.SIGKILL)
            agent.client.withdraw(ip_network("10.65.0.1/32"))
            await until(lambda: agent.state() == "Established" and bool(agent.states(heard)), 30)
            first, *_ = agent.states(heard)
            assert (first.state, first.error) == ("Idle", "ExaBGP has ended")
            await until(lambda: rack.routes() == set())

    asyncio.run(body())


def test_a_link_that_is_gone_is_withdrawn_without_an_agent(rack: Rack) -> None:
    async def body() -> None:
        run("ip", "-n", rack.host, "link", "add", "rt0", "type", "veth", "peer", "name", "x0")
        async with Agent(rack) as agent:
            wanted = advertisements("10.65.0.1/32")
            wanted |= advertisements("10.65.0.2/32", link="rt0")
            agent.client.set({"tor": PEER}, wanted)
            await until(lambda: len(rack.routes()) == 2)
        run("ip", "-n", rack.host, "link", "del", "rt0")
        assert await until(lambda: rack.routes() == {"10.65.0.1/32"}) < 5
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, wanted)
            await until(lambda: any(isinstance(event, LinkDown) for event in agent.heard))
            assert rack.routes() == {"10.65.0.1/32"}

    asyncio.run(body())


def test_a_namespace_that_goes_is_withdrawn_without_an_agent(
    rack: Rack, namespaces: Callable[[str], str]
) -> None:
    """Where no link on the host goes with it (ipvlan), by the id that the host has for it."""
    going, staying = namespaces("going"), namespaces("staying")

    async def body() -> None:
        for number, name in ((7, going), (8, staying)):
            run("ip", "-n", rack.host, "netns", "set", name, str(number))
        async with Agent(rack) as agent:
            wanted = {
                one.prefix: one
                for one in (
                    Advertisement(ip_network("10.65.0.1/32")),
                    Advertisement(ip_network("10.65.0.2/32"), link="lo", space=7),
                    Advertisement(ip_network("fd00:65::2/128"), link="lo", space=7),
                    Advertisement(ip_network("10.65.0.3/32"), link="lo", space=8),
                )
            }
            agent.client.set({"tor": PEER}, wanted)
            left = {"10.65.0.1/32", "10.65.0.3/32"}
            await until(lambda: rack.routes() == left | {"10.65.0.2/32"})
        run("ip", "netns", "del", going)
        assert await until(lambda: rack.routes() == left) < 5
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, wanted)
            await until(lambda: sum(isinstance(one, LinkDown) for one in agent.heard) == 2)
            assert rack.routes() == left

    asyncio.run(body())


def test_sigterm_withdraws_and_sigkill_does_not(rack: Rack) -> None:
    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements("10.65.0.1/32"))
            await until(lambda: len(rack.routes()) == 1)
        assert rack.speaker is not None
        rack.speaker.kill()
        rack.speaker.wait()
        later = time.monotonic() + 5
        while time.monotonic() < later:
            assert rack.routes() == {"10.65.0.1/32"}
            await asyncio.sleep(0.1)
        rack.start_speaker()
        async with Agent(rack) as agent:
            await until(lambda: agent.state() == "Established", 30)
            assert rack.routes() == {"10.65.0.1/32"}, "no End-of-RIB without an agent's word"
            agent.client.set({"tor": PEER}, advertisements("10.65.0.2/32"))
            await until(lambda: rack.routes() == {"10.65.0.2/32"})
        rack.speaker.terminate()
        assert await until(lambda: rack.routes() == set()) < 5
        assert rack.speaker.wait(10) == 0

    asyncio.run(body())


def test_a_peer_that_comes_or_goes_leaves_the_others_alone(rack: Rack) -> None:
    async def body() -> None:
        nobody = Peer("nobody", ip_address("192.0.2.77"), 65009, 65002, "192.0.2.2")
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements("10.65.0.1/32"))
            await until(lambda: len(rack.routes()) == 1)
            since = rack.birdc("show", "protocols", "host")
            agent.client.set({"tor": PEER, "nobody": nobody}, advertisements("10.65.0.1/32"))
            await until(
                lambda: any(isinstance(e, Session) and e.peer == "nobody" for e in agent.heard)
            )
            agent.client.set({"tor": PEER}, advertisements("10.65.0.2/32"))
            await until(lambda: rack.routes() == {"10.65.0.2/32"})
            assert rack.birdc("show", "protocols", "host") == since

    asyncio.run(body())
