"""A small rack without a control plane: hosts that work from the intent on their disks, with the
real kernel driver, the real speaker, and switches that run BIRD. For kernels without nftables, so
the filter is one that is always in place, unless a host has policies.

    tor (BIRD) --- h1:up0 host1     workloads
          \\------- h2:up0 host2
    side ------ up1 of host1, and tor: traffic that comes in by another uplink
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx

from api.resources import BGPPeer, IPBlock, IPPool, NetworkPolicy, Node, ObjectMeta
from api.resources.bgppeer import BGPPeerSpec
from api.resources.ippool import IPBlockSpec, IPPoolSpec
from api.resources.net import parse_cidr
from api.resources.node import NodeSpec
from routed.agent.intent import Encoder, Intent
from routed.lab.processes import Process, wait_for
from support.netns import run

AGENT = """
import sys
from routed.agent import run
from routed.lab.hollow.host import HollowFilter
from routed.main import main
if "hollow" in sys.argv:
    run.Nft = HollowFilter
run._client = lambda settings: None
sys.argv = ["routed", "agent", "--config", sys.argv[1]]
main()
"""
BIRD = """
log stderr { warning, error, fatal, bug };
router id 10.1.0.ID;
protocol device { scan time 1; }
protocol direct { ipv4; }
protocol kernel { merge paths on; ipv4 { import none; export where source = RTS_BGP; }; }
protocol static { ipv4; route 0.0.0.0/0 unreachable; }
template bgp host {
  local as 65000;
  graceful restart aware;
  hold time 9;
  ipv4 { import all; export where net = 0.0.0.0/0 || source = RTS_BGP; next hop self; };
}
PEERS
"""


class HeadlessHost:
    """A namespace with agent and speaker. `peers`: addresses of its switches, by name. With
    `policies` its filter is the kernel's."""

    def __init__(
        self,
        number: int,
        namespace: str,
        peers: dict[str, str],
        home: Path,
        policies: Iterable[NetworkPolicy] = (),
    ) -> None:
        self.name, self.namespace, self.home = f"host{number}", namespace, home
        self.number = number
        home.mkdir()
        (home / "state").mkdir()
        (home / "agent.yaml").write_text(
            f"node: {self.name}\nrunDir: {home}/run\nstateDir: {home}/state\nresyncSeconds: 5\n"
        )
        named = {one.metadata.name: one for one in policies}
        intent = replace(self._intent(peers), policies=named)
        (home / "state" / "intent.json").write_bytes(Encoder().encode(intent, {}))
        inside = ["nsenter", f"--net=/run/netns/{namespace}", "--", sys.executable]
        config = f"{home}/agent.yaml"
        more = [] if named else ["hollow"]
        self.agent = Process("agent", [*inside, "-c", AGENT, config, *more], home)
        speaker = [*inside, "-m", "routed.main", "speaker", "--config", config]
        self.speaker = Process("speaker", speaker, home)
        transport = httpx.HTTPTransport(
            uds=f"{home}/run/agent.sock", limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.api = httpx.Client(transport=transport, base_url="http://agent", timeout=30)

    def _intent(self, peers: dict[str, str]) -> Intent:
        def named(name: str) -> ObjectMeta:
            return ObjectMeta(name=name)

        pool = IPPool(metadata=named("main"), spec=IPPoolSpec(cidr=parse_cidr("10.65.0.0/16")))
        block = ip_network(f"10.65.{self.number}.0/26")
        spec = IPBlockSpec(node=self.name, pool="main", cidr=block)
        own = IPBlock(metadata=named(f"10-65-{self.number}-0-26"), spec=spec)
        node = Node(metadata=named(self.name), spec=NodeSpec(as_number=65_100 + self.number))
        sessions = {
            name: BGPPeer(
                metadata=named(name),
                spec=BGPPeerSpec(
                    peer_ip=ip_address(address), as_number=65_000, hold_time=9, import_default=True
                ),
            )
            for name, address in peers.items()
        }
        return Intent(
            node_name=self.name, node=node, pools={"main": pool},
            blocks={own.metadata.name: own}, peers=sessions,
        )  # fmt: skip

    def start(self) -> None:
        self.speaker.start()
        self.agent.start()

    def status(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(f"{self.home}/run/agent.sock")
            except OSError:
                return {}  # httpx would leave its socket unclosed here
        found: dict[str, Any] = self.api.get("/v1/status").json()
        return found

    def established(self, count: int = 1) -> bool:
        sessions = self.status().get("bgp", {}).get("sessions", [])
        return sum(one["state"] == "Established" for one in sessions) == count

    def stop(self) -> None:
        self.agent.kill()
        self.speaker.kill()
        self.api.close()

    def log(self) -> str:
        return self.agent.log.read_text()[-3000:] + self.speaker.log.read_text()[-2000:]


class HeadlessRack:
    """Namespaces, switches and hosts; `attached` are the addresses of workloads by name."""

    def __init__(self, mark: str, directory: Path) -> None:
        self.mark, self.directory = f"{mark}{os.getpid()}", directory
        self.spaces: list[str] = []
        self.hosts: dict[str, HeadlessHost] = {}
        self.daemons: list[Process] = []
        self.attached: dict[str, str] = {}
        self.mode = ""

    def space(self, label: str) -> str:
        name = f"{self.mark}-{label}"
        run("ip", "netns", "add", name)
        self.spaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def inside(self, label: str, *words: str) -> str:
        return run("ip", "netns", "exec", f"{self.mark}-{label}", *words)

    def link(self, one: str, name: str, other: str, other_name: str) -> None:
        """A cable between two namespaces."""
        run("ip", "-n", f"{self.mark}-{one}", "link", "add", name, "type", "veth",
            "peer", "name", other_name, "netns", f"{self.mark}-{other}")  # fmt: skip
        for label, end in ((one, name), (other, other_name)):
            run("ip", "-n", f"{self.mark}-{label}", "link", "set", end, "up")

    def address(self, label: str, link: str, address: str) -> None:
        run("ip", "-n", f"{self.mark}-{label}", "addr", "add", address, "dev", link)

    def router(self, label: str, number: int, neighbours: dict[str, int]) -> None:
        """BIRD in a namespace, with a session to each of `neighbours` (address to ASN)."""
        self.inside(label, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        peers = "".join(
            f"protocol bgp from host {{ neighbor {address} as {number}; }}\n"
            for address, number in neighbours.items()
        )
        path = self.directory / f"{label}.conf"
        path.write_text(BIRD.replace("ID", str(number)).replace("PEERS", peers))
        words = ["bird", "-f", "-c", str(path), "-s", str(self.directory / f"{label}.ctl")]
        inside = ["nsenter", f"--net=/run/netns/{self.mark}-{label}", "--"]
        self.daemons.append(Process(label, [*inside, *words], self.directory))
        self.daemons[-1].start()

    def host(self, number: int, peers: dict[str, str]) -> HeadlessHost:
        name = f"host{number}"
        held = HeadlessHost(number, f"{self.mark}-{name}", peers, self.directory / name)
        self.hosts[name] = held
        held.start()
        return held

    def ready(self, sessions: int = 1) -> None:
        for host in self.hosts.values():
            try:
                wait_for(f"{host.name}'s sessions", partial(host.established, sessions), 60)
            except Exception:
                print(host.log())
                raise

    def attach(self, host: str, name: str, **more: Any) -> str:
        """The address of a new workload; announced."""
        body = {"name": name, "netns": self.space(name), **more}
        answer = self.hosts[host].api.post(
            "/v1/attachments", json=body, params={"wait": "announced"}
        )
        assert answer.status_code == 201, answer.text
        self.attached[name] = answer.json()["addresses"][0]
        return self.attached[name]

    def knows(self, tor: str, name: str) -> bool:
        """Whether a switch has the workload's route in its kernel."""
        return f"{self.attached[name]} " in self.inside(tor, "ip", "route")

    def pings(self, label: str, address: str) -> bool:
        words = ["ping", "-n", "-c", "1", "-W", "1", address]
        whole = ["ip", "netns", "exec", f"{self.mark}-{label}", *words]
        return subprocess.run(whole, check=False, capture_output=True).returncode == 0

    def reaches(self, label: str, address: str, seconds: float = 10.0) -> bool:
        """The same, soon: a switch may still be taking in the route."""
        try:
            wait_for(f"{label} reaching {address}", lambda: self.pings(label, address), seconds)
        except Exception:  # noqa: BLE001 - it says no more than this
            return False
        return True

    def stop(self) -> None:
        for host in self.hosts.values():
            host.stop()
        for daemon in self.daemons:
            daemon.kill()
        for name in self.spaces:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def small_rack(mark: str, directory: Path) -> HeadlessRack:
    """The one of the picture above."""
    rack = HeadlessRack(mark, directory)
    try:
        for label in ("tor", "side", "host1", "host2"):
            rack.space(label)
        for number in (1, 2):
            rack.link("tor", f"h{number}", f"host{number}", "up0")
            rack.address("tor", f"h{number}", f"10.1.{number}.1/24")
            rack.address(f"host{number}", "up0", f"10.1.{number}.2/24")
        rack.link("tor", "side", "side", "tor")
        rack.address("tor", "side", "10.1.3.1/24")
        rack.address("side", "tor", "10.1.3.2/24")
        rack.link("side", "h1", "host1", "up1")
        rack.address("side", "h1", "10.1.4.1/24")
        rack.address("host1", "up1", "10.1.4.2/24")
        rack.inside("side", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rack.inside("side", "ip", "route", "add", "10.65.1.0/26", "via", "10.1.4.2")
        rack.inside("tor", "ip", "route", "add", "10.1.4.0/24", "via", "10.1.3.2")
        rack.router("tor", 1, {"10.1.1.2": 65_101, "10.1.2.2": 65_102})
        for number in (1, 2):
            rack.host(number, {"tor": f"10.1.{number}.1"})
        rack.ready()
    except BaseException:
        rack.stop()
        raise
    return rack


def bonded_rack(mark: str, directory: Path) -> HeadlessRack:
    """One host, whose two cables are a bond, and two switches that share it (MLAG): each is a
    bridge with an address, and a cable joins the two."""
    rack = HeadlessRack(mark, directory)
    try:
        for label in ("tor1", "tor2", "host1"):
            rack.space(label)
        rack.inside("host1", "ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup",
                    "miimon", "50")  # fmt: skip
        for number in (1, 2):
            tor, up = f"tor{number}", f"up{number - 1}"
            rack.link(tor, "h1", "host1", up)
            rack.inside("host1", "ip", "link", "set", up, "down")
            rack.inside("host1", "ip", "link", "set", up, "master", "bond0")
            rack.inside(tor, "ip", "link", "add", "rack", "type", "bridge")
            rack.inside(tor, "ip", "link", "set", "h1", "master", "rack")
        rack.link("tor1", "peer", "tor2", "peer")
        for number in (1, 2):
            rack.inside(f"tor{number}", "ip", "link", "set", "peer", "master", "rack")
            rack.inside(f"tor{number}", "ip", "link", "set", "rack", "up")
            rack.address(f"tor{number}", "rack", f"10.2.0.{number}/24")
        rack.inside("host1", "ip", "link", "set", "bond0", "up")
        rack.address("host1", "bond0", "10.2.0.11/24")
        for number in (1, 2):
            rack.router(f"tor{number}", number, {"10.2.0.11": 65_101})
        rack.host(1, {"tor1": "10.2.0.1", "tor2": "10.2.0.2"})
        rack.ready(2)
    except BaseException:
        rack.stop()
        raise
    return rack
