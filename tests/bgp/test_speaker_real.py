"""The speaker against real BIRD: what is announced, kept, withdrawn and learned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path as FilePath

import pytest
from support.netns import run

from api.resources.net import IPNetwork
from bgp.client import SpeakerClient
from bgp.seam import Advertisement, Path, Peer, Session
from bgp.wire import End, LinkDown, Message, Unpath

pytestmark = pytest.mark.root
Make = Callable[[str], str]

BIRD = """
log stderr { warning, error, fatal, bug };
router id 192.0.2.1;
protocol device { }
protocol static { ipv4; route 10.66.0.1/32 blackhole; route 10.66.0.2/32 blackhole; }
protocol bgp host {
  local 192.0.2.1 as 65001;
  neighbor 192.0.2.2 as 65002;
  graceful restart aware;
  EXTRA
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
"""
PEER = Peer("tor", ip_address("192.0.2.1"), 65001, 65002, "192.0.2.2", hold_time=3)


class Rack:
    """One host namespace with a speaker, one switch namespace with BIRD."""

    def __init__(self, make: Make, directory: FilePath, extra: str) -> None:
        self.host, self.tor = make("host"), make("tor")
        self.directory = directory
        run("ip", "-n", self.host, "link", "add", "up0", "type", "veth", "peer", "name", "h0",
            "netns", self.tor)  # fmt: skip
        for namespace, link, address in (
            (self.host, "up0", "192.0.2.2/24"),
            (self.tor, "h0", "192.0.2.1/24"),
        ):
            run("ip", "-n", namespace, "addr", "add", address, "dev", link)
            run("ip", "-n", namespace, "link", "set", link, "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        (directory / "bird.conf").write_text(BIRD.replace("EXTRA", extra))
        self.children: list[subprocess.Popen[bytes]] = []
        self.speaker: subprocess.Popen[bytes] | None = None
        self.start(self.tor, "bird", "-f", "-c", f"{directory}/bird.conf", "-s", self.control)
        self.start_speaker()

    @property
    def control(self) -> str:
        return str(self.directory / "bird.ctl")

    @property
    def socket(self) -> FilePath:
        return self.directory / "run" / "speaker.sock"

    def start(self, namespace: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            child = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{namespace}", "--", *words], stdout=log, stderr=log
            )
        self.children.append(child)
        return child

    def start_speaker(self) -> None:
        places = ["--run-dir", f"{self.directory}/run", "--state-dir", f"{self.directory}/state"]
        self.speaker = self.start(
            self.host, sys.executable, "-m", "routed.main", "speaker", *places
        )

    def exabgp(self) -> int:
        assert self.speaker is not None
        children = FilePath(f"/proc/{self.speaker.pid}/task/{self.speaker.pid}/children")
        for pid in children.read_text().split():
            if b"exabgp" in FilePath(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        return 0

    def birdc(self, *words: str) -> str:
        done = subprocess.run(
            ["birdc", "-s", self.control, *words], capture_output=True, text=True, check=False
        )
        return done.stdout

    def routes(self) -> set[str]:
        lines = self.birdc("show", "route", "protocol", "host").splitlines()
        return {line.split()[0] for line in lines if "/" in line.split(" ")[0]}

    def stop(self) -> None:
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.wait(15)


@pytest.fixture
def rack(namespaces: Make, tmp_path: FilePath, request: pytest.FixtureRequest) -> Iterator[Rack]:
    found = Rack(namespaces, tmp_path, getattr(request, "param", ""))
    yield found
    found.stop()


class Agent:
    """The other end of the seam, as an agent would use it."""

    def __init__(self, rack: Rack) -> None:
        self.client = SpeakerClient(rack.socket)
        self.heard: list[Message] = []
        self.reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Agent:
        await until(self._connected, 10)
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.reading is not None
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)

    async def _connected(self) -> bool:
        from api.resources.errors import SpeakerError

        with contextlib.suppress(SpeakerError):
            await self.client.connect()
            return True
        return False

    async def _read(self) -> None:
        async for event in self.client.events():
            self.heard.append(event)

    def paths(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for event in self.heard:
            if isinstance(event, Path):
                found[str(event.prefix)] = event
            elif isinstance(event, Unpath):
                found.pop(str(event.prefix), None)
        return found

    def state(self) -> str:
        states = [event.state for event in self.heard if isinstance(event, Session)]
        return states[-1] if states else ""


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = 15) -> float:
    began = time.monotonic()
    while True:
        found = condition()
        if not isinstance(found, bool):
            found = await found
        if found:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, "it did not happen in time"
        await asyncio.sleep(0.02)


def advertisements(*prefixes: str, **more: str) -> dict[IPNetwork, Advertisement]:
    return {ip_network(p): Advertisement(ip_network(p), **more) for p in prefixes}  # type: ignore[arg-type]


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


def test_a_link_that_is_gone_is_withdrawn_without_an_agent(rack: Rack) -> None:
    async def body() -> None:
        run("ip", "-n", rack.host, "link", "add", "rt0", "type", "veth", "peer", "name", "x0")
        async with Agent(rack) as agent:
            wanted = advertisements("10.65.0.1/32")
            wanted |= advertisements("10.65.0.2/32", link="rt0")
            agent.client.set({"tor": PEER}, wanted)
            await until(lambda: len(rack.routes()) == 2)
        run("ip", "-n", rack.host, "link", "del", "rt0")
        assert await until(lambda: rack.routes() == {"10.65.0.1/32"}) < 1
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, wanted)
            await until(lambda: any(isinstance(event, LinkDown) for event in agent.heard))
            assert rack.routes() == {"10.65.0.1/32"}

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
        assert await until(lambda: rack.routes() == set()) < 2
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
