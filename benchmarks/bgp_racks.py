"""Racks of namespaces for the BGP benchmarks, and three announcers: our speaker, gobgpd, BIRD."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from api.resources.errors import SpeakerError
from bgp.client import SpeakerClient
from bgp.seam import Advertisement, Peer

SWITCH_AS, OURS, GOBGP, BIRD = 65001, 65002, 65003, 65004


class Rack:
    """One host with `switches` switches; every announcer on the host has its own address."""

    def __init__(self, switches: int, routes: int, directory: Path) -> None:
        self.tag = f"ba{os.getpid() % 100_000}x{switches}"
        self.switches = range(1, switches + 1)
        self.prefixes = [
            f"10.{65 + n // 62500}.{n // 250 % 250}.{n % 250}/32" for n in range(routes)
        ]
        self.directory = directory / str(switches)
        self.directory.mkdir()
        self.turn = ""  # who announces
        self.children: list[subprocess.Popen[bytes]] = []
        self.host = f"{self.tag}-host"
        self.names = [self.host, *(self.switch(n) for n in self.switches)]

    def switch(self, number: int) -> str:
        return f"{self.tag}-s{number}"

    def up(self) -> None:
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for n in self.switches:
            run("ip", "-n", self.host, "link", "add", f"s{n}", "type", "veth",
                "peer", "name", "up0", "netns", self.switch(n))  # fmt: skip
            for last in (2, 3, 4):
                run("ip", "-n", self.host, "addr", "add", f"192.0.{n}.{last}/24", "dev", f"s{n}")
            run("ip", "-n", self.switch(n), "addr", "add", f"192.0.{n}.1/24", "dev", "up0")
            run("ip", "-n", self.host, "link", "set", f"s{n}", "up")
            run("ip", "-n", self.switch(n), "link", "set", "up0", "up")
            self._bird(
                self.switch(n),
                f"""log stderr {{ error, fatal, bug }};
router id 192.0.{n}.1;
protocol device {{ }}
protocol bgp hosts {{
  local 192.0.{n}.1 as {SWITCH_AS};
  neighbor range 192.0.{n}.0/24 external;
  dynamic name "host";
  graceful restart aware;
  ipv4 {{ import all; export none; }};
}}
""",
            )

    def _bird(self, namespace: str, text: str) -> None:
        path = self.directory / f"{namespace}.conf"
        path.write_text(text, encoding="ascii")
        self.start(namespace, "bird", "-f", "-c", str(path), "-s", self.control(namespace))

    def control(self, namespace: str) -> str:
        return str(self.directory / f"{namespace}.ctl")

    def start(self, namespace: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            child = subprocess.Popen([*inside(namespace), *words], stdout=log, stderr=log)
        self.children.append(child)
        return child

    def counts(self) -> list[int]:
        """How many routes each switch has."""
        found = []
        for n in self.switches:
            said = ask(self.control(self.switch(n)), "show", "route", "count")
            match = re.search(r"(\d+) of \d+ routes", said)
            found.append(int(match[1]) if match else -1)
        return found

    async def until(self, count: int, began: float) -> float:
        """Seconds from `began` until every switch has exactly `count` routes."""
        while self.counts() != [count] * len(self.switches):
            if time.monotonic() - began > 60:
                raise SystemExit(
                    f"cannot go on: {self.counts()} routes, not {count}, in {self.turn}"
                )
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def down(self) -> None:
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Ours:
    """`routed speaker`, told by the agent's own client."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        places = ["--run-dir", f"{rack.directory}/run", "--state-dir", f"{rack.directory}/state"]
        self.child = rack.start(rack.host, sys.executable, "-m", "routed.main", "speaker", *places)
        self.client = SpeakerClient(rack.directory / "run" / "speaker.sock")
        self.peers = {
            f"s{n}": Peer(f"s{n}", ipaddress.ip_address(f"192.0.{n}.1"), SWITCH_AS, OURS,
                          "192.0.1.2", local_address=ipaddress.ip_address(f"192.0.{n}.2"))
            for n in rack.switches
        }  # fmt: skip
        self.wanted = {
            ipaddress.ip_network(p): Advertisement(ipaddress.ip_network(p)) for p in rack.prefixes
        }

    async def ready(self) -> None:
        async def connected() -> bool:
            with contextlib.suppress(SpeakerError):
                await self.client.connect()
                return True
            return False

        await poll(connected)
        self.reading = asyncio.create_task(self._read())
        self.client.set(self.peers, {})

    async def _read(self) -> None:
        async for _ in self.client.events():
            pass

    async def announce(self) -> None:
        self.client.set(self.peers, self.wanted)

    async def withdraw(self) -> None:
        self.client.set(self.peers, {})

    def cpu_seconds(self) -> float:
        """User and system time of the speaker, ExaBGP and its bridge."""
        waiting, total = [self.child.pid], 0
        while waiting:
            pid = waiting.pop()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return total / os.sysconf("SC_CLK_TCK")


class GoBGP:
    """gobgpd, given the routes as a table dump (`gobgp mrt inject`)."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.dump = rack.directory / "routes.mrt"
        # gobgp ends before gobgpd has taken the last thousand: so these are in it twice
        self.dump.write_bytes(table_dump(rack.prefixes + rack.prefixes[-2000:]))
        text = f'[global.config]\nas = {GOBGP}\nrouter-id = "192.0.1.3"\nport = -1\n'
        for n in rack.switches:
            text += (
                f'[[neighbors]]\n[neighbors.config]\nneighbor-address = "192.0.{n}.1"\n'
                f"peer-as = {SWITCH_AS}\n[neighbors.transport.config]\n"
                f'local-address = "192.0.{n}.3"\n'
                "[neighbors.timers.config]\nconnect-retry = 1\n"
            )
        path = rack.directory / "gobgpd.toml"
        path.write_text(text, encoding="ascii")
        rack.start(rack.host, "gobgpd", "-f", str(path), "-t", "toml", "--api-hosts",
                   "127.0.0.1:50051", "--log-level", "error")  # fmt: skip

    async def ready(self) -> None:
        def established() -> bool:
            said = self._gobgp("neighbor", check=False)
            return said.count("Establ") == len(self.rack.switches)

        await poll(established)

    def _gobgp(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [*inside(self.rack.host), "gobgp", *words], capture_output=True, text=True, check=check
        )
        return done.stdout

    async def announce(self) -> None:
        self._gobgp("mrt", "inject", "global", str(self.dump))

    async def withdraw(self) -> None:
        self._gobgp("global", "rib", "del", "all")


class Bird:
    """BIRD, given the routes as static ones by `birdc configure`."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.path = rack.directory / "announcer.conf"
        self.control = str(rack.directory / "announcer.ctl")
        self._write([])
        rack.start(rack.host, "bird", "-f", "-c", str(self.path), "-s", self.control)

    def _write(self, prefixes: list[str]) -> None:
        text = "log stderr { error, fatal, bug };\nrouter id 192.0.1.4;\nprotocol device { }\n"
        routes = " ".join(f"route {p} blackhole;" for p in prefixes)
        text += f"protocol static {{ ipv4; {routes} }}\n"
        for n in self.rack.switches:
            text += (
                f"protocol bgp s{n} {{ local 192.0.{n}.4 as {BIRD}; neighbor 192.0.{n}.1 as "
                f"{SWITCH_AS}; connect delay time 1;\n"
                "  ipv4 { import none; export where source = RTS_STATIC; next hop self; }; }\n"
            )
        self.path.write_text(text, encoding="ascii")

    async def ready(self) -> None:
        def established() -> bool:
            return ask(self.control, "show", "protocols").count("Established") == len(
                self.rack.switches
            )

        await poll(established)

    async def announce(self) -> None:
        self._write(self.rack.prefixes)
        ask(self.control, "configure")

    async def withdraw(self) -> None:
        self._write([])
        ask(self.control, "configure")


def table_dump(prefixes: list[str]) -> bytes:
    """A TABLE_DUMP_V2 of the prefixes (RFC 6396, section 4.3), from one made-up peer."""

    def record(subtype: int, body: bytes) -> bytes:
        return struct.pack("!IHHI", 0, 13, subtype, len(body)) + body

    peer = struct.pack("!B4s4sI", 2, bytes([192, 0, 2, 9]), bytes([192, 0, 2, 9]), 64999)
    found = [record(1, bytes([192, 0, 2, 9]) + struct.pack("!HH", 0, 1) + peer)]
    # ORIGIN IGP; AS_PATH empty; NEXT_HOP 0.0.0.0, which gobgpd takes for its own address
    attributes = bytes([0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 0, 0, 0, 0])
    for number, prefix in enumerate(prefixes):
        address = ipaddress.ip_network(prefix).network_address.packed
        body = struct.pack("!IB4sH", number, 32, address, 1)
        found.append(record(2, body + struct.pack("!HIH", 0, 0, len(attributes)) + attributes))
    return b"".join(found)


def inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def ask(control: str, *words: str) -> str:
    done = subprocess.run(
        ["birdc", "-s", control, *words], capture_output=True, text=True, check=False
    )
    return done.stdout


async def poll(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 40
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > deadline:
            raise SystemExit("cannot go on: no session in 40 s")
        await asyncio.sleep(0.05)
