"""A host with our speaker and a switch with BIRD, and an agent's end of the speaker's socket."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath

from api.resources.errors import SpeakerError
from api.resources.net import IPNetwork
from bgp.client import SpeakerClient
from bgp.seam import Advertisement, Path, Peer, Session
from bgp.wire import Message, Unpath
from support.netns import run

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

    def __init__(self, make: Make, directory: FilePath, extra: str, bird: str = BIRD) -> None:
        self.host, self.tor = make("host"), make("tor")
        self.directory = directory
        run("ip", "-n", self.host, "link", "add", "up0", "type", "veth", "peer", "name", "h0",
            "netns", self.tor)  # fmt: skip
        for namespace, link, address in (
            (self.host, "up0", "192.0.2.2/24"),
            (self.tor, "h0", "192.0.2.1/24"),
        ):
            run("ip", "-n", namespace, "addr", "add", address, "dev", link)
            six = address.replace("192.0.2.", "fd00:2::").replace("/24", "/64")
            run("ip", "-n", namespace, "addr", "add", six, "dev", link, "nodad")
            run("ip", "-n", namespace, "link", "set", link, "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.tor, "addr", "add", "fe80::1/64", "dev", "h0", "nodad")
        (directory / "bird.conf").write_text(bird.replace("EXTRA", extra))
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

    def start_speaker(self, *through: str) -> None:
        """`through`: the words that run it, such as setpriv."""
        places = ["--run-dir", f"{self.directory}/run", "--state-dir", f"{self.directory}/state"]
        self.speaker = self.start(
            self.host, *through, sys.executable, "-m", "routed.main", "speaker", *places
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

    def states(self, since: int = 0) -> list[Session]:
        """What was heard of sessions, without the first `since` messages."""
        return [event for event in self.heard[since:] if isinstance(event, Session)]

    def state(self) -> str:
        states = self.states()
        return states[-1].state if states else ""


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
