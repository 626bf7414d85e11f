"""What a running agent takes: attach and detach over its socket, restart and memory with 1 000.

A lab of one host and one switch runs the real programs. The host is filled to 10, 1 000 and 4 000
workloads; at each size, in turn in every round: an attach over the local API and its detach, the
same attach by the C floor (`floor/attach.c`) in the same host, the agent stopped meanwhile, and the
DEL of the CNI plug-in ptp with host-local.
Then attaches while links are being reaped beside attaches while none are. With 1 000 workloads the
agent is killed and started again: the time until it is ready, and what it changed.

    sudo -E python benchmarks/agent.py [--rounds 5] [--endpoints 10,1000,4000]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from attach_floor import Floor
from figures import figure, say
from programs import command
from unix_http import Api

from routed.kernel import netns
from routed.lab.lab import Lab
from routed.lab.processes import resident, wait_for
from routed.lab.topology import Host
from routed.state import Endpoint, host_interface_name

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PLUGINS = Path("/usr/lib/cni")
SPACES = 20  # namespaces to attach into
RESYNC_AT = 1000
QUIET_TICKS = 2  # of the agent's CPU time in QUIET_SECONDS: it has nothing to do
QUIET_SECONDS = 0.5


class RamLab(Lab):
    """A lab whose hosts have /run in memory, as hosts have."""

    def _prepare(self, host: Host) -> None:
        super()._prepare(host)
        memory = Path(f"/dev/shm/{self.top.name}-{host.name}")  # noqa: S108
        memory.mkdir(mode=0o700)
        (self.directory / host.name / "run").symlink_to(memory)

    def down(self) -> list[str]:
        found = super().down()
        for host in self.top.hosts:
            shutil.rmtree(f"/dev/shm/{self.top.name}-{host.name}", ignore_errors=True)  # noqa: S108
        return found


@dataclass
class Times:
    """Seconds."""

    attach: list[float] = field(default_factory=list)
    detach: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    ptp: list[float] = field(default_factory=list)  # its DEL


class Bench:
    """The host's namespace is ours from `enter` on."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.spaces = [f"{lab.top.name}-bench{n}" for n in range(SPACES)]
        self.filled = 0

    def enter(self) -> None:
        with Path(f"/run/netns/{self.lab.top.name}-host1").open("rb") as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), netns.CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        command("ip", "-batch", "-", given="".join(
            f"netns add {name}\n" for name in self.spaces
        ))  # fmt: skip

    @property
    def pid(self) -> int:
        found = self.lab.agents["host1"].pid
        assert found is not None
        return found

    def api(self) -> Api:
        return Api(self.lab.socket("host1"))

    def fill(self, count: int) -> None:
        """Have `count` workloads, reported and all."""
        names = [f"{self.lab.top.name}-fill{n}" for n in range(self.filled, count)]
        command("ip", "-batch", "-", given="".join(f"netns add {name}\n" for name in names))
        with self.api() as api:
            for number in range(self.filled, count):
                body = {"name": f"fill{number}", "netns": f"{self.lab.top.name}-fill{number}"}
                api.call("POST", "/v1/attachments", body)
        self.filled = count
        self.quiet()

    def quiet(self) -> None:
        """Wait until the agent has nothing to do."""

        def idle() -> bool:
            before = ticks(self.pid)
            time.sleep(QUIET_SECONDS)
            return ticks(self.pid) - before <= QUIET_TICKS

        wait_for("the agent being idle", idle, 300)

    def measure(self, floor: Floor, rounds: int) -> Times:
        times = Times()
        for turn in range(rounds + 1):
            taken = self.turn(floor)
            if turn:  # the first is to warm up
                times.attach += taken.attach
                times.detach += taken.detach
                times.floor += taken.floor
                times.ptp += taken.ptp
        return times

    def turn(self, floor: Floor) -> Times:
        """All namespaces in turn, by each of those that are compared: each begins after the agent
        had nothing to do, so that none finds the caches warmer than another."""
        found = Times()
        self.quiet()
        with self.api() as api:
            for verb, expected, times in (
                ("POST", 201, found.attach),
                ("DELETE", 200, found.detach),
            ):
                requests = [self.request(api, verb, number) for number in range(SPACES)]
                for request in requests:
                    began = time.perf_counter()
                    code, answer = api.raw(request)
                    times.append(time.perf_counter() - began)
                    assert code == expected, answer
        for number in range(SPACES):
            self.reaped(f"bench{number}.host1")
        self.quiet()
        ends = [
            Endpoint(f"w{n}.bench", "eth0", (ip_address(f"10.64.0.{n + 1}"),), f"/run/netns/{s}")
            for n, s in enumerate(self.spaces)
        ]
        os.kill(self.pid, signal.SIGSTOP)  # what the floor does is not to wake it
        try:
            found.floor += [floor.attach(end) for end in ends]
            floor.detach_all()
        finally:
            os.kill(self.pid, signal.SIGCONT)
        self.quiet()
        for space in self.spaces if PLUGINS.joinpath("ptp").exists() else ():
            self.ptp("ADD", space)
            found.ptp.append(self.ptp("DEL", space))
        return found

    def request(self, api: Api, verb: str, number: int) -> bytes:
        if verb == "POST":
            body = {"name": f"bench{number}", "netns": self.spaces[number]}
            return api.request(verb, "/v1/attachments", body)
        return api.request(verb, f"/v1/attachments/bench{number}")

    def ptp(self, verb: str, space: str) -> float:
        ranges = [[{"subnet": "10.99.0.0/16"}]]
        data = str(self.directory / "cni")
        network = {
            "cniVersion": "0.4.0", "name": "bench", "type": "ptp",
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": data},
        }  # fmt: skip
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": space, "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/run/netns/{space}", "CNI_PATH": str(PLUGINS),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(
            [str(PLUGINS / "ptp")], input=json.dumps(network), env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        took = time.perf_counter() - began
        assert done.returncode == 0, done.stdout
        return took

    def reaped(self, workload: str) -> None:
        wait_for("the link's end", lambda: not link_exists(host_interface_name(workload)), 10)

    def beside_reaping(self, count: int) -> tuple[list[float], list[float]]:
        """Attaches while no link is on its way out, and while the reaper always has some."""
        idle, busy = [], []
        with self.api() as api:
            for reaping, found in ((False, idle), (True, busy)) * 2:
                for number in range(count):
                    place = number % SPACES
                    body = {"name": f"bench{place}", "netns": self.spaces[place]}
                    request = api.request("POST", "/v1/attachments", body)
                    self.reaped(f"bench{place}.host1")
                    began = time.perf_counter()
                    code, answer = api.raw(request)
                    found.append(time.perf_counter() - began)
                    assert code == 201, answer
                    api.call("DELETE", f"/v1/attachments/bench{place}")
                    if not reaping:
                        self.reaped(f"bench{place}.host1")
        return idle, busy

    def restart(self) -> tuple[float, float, int]:
        """Kill the agent and start it: seconds until it is ready, of its first sync, and what
        that changed."""
        agent = self.lab.agents["host1"]
        agent.kill()
        began = time.perf_counter()
        agent.start()
        wait_for("the agent being ready", lambda: self.lab.ready("host1"), 30)
        took = time.perf_counter() - began
        with self.api() as api:
            _, text = api.raw(api.request("GET", "/metrics"))
        return (
            took,
            metric(text, 'routed_operation_seconds_sum{operation="sync"}'),
            int(metric(text, "routed_kernel_changes_total")),
        )


def metric(text: bytes, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", text.decode(), re.M)
    assert match, name
    return float(match[1])


def link_exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def run(bench: Bench, rounds: int, counts: list[int]) -> Iterator[dict[str, object]]:
    floor = Floor(bench.directory, ("-DGROUP=1", "-DPROTOCOL=83"))  # not the agent's to sweep
    found: dict[int, Times] = {}
    try:
        for count in counts:
            bench.fill(count)
            print(f"{count} workloads attached", file=sys.stderr)
            found[count] = bench.measure(floor, rounds)
            yield from at_size(count, min(counts), found[count])
            if count == RESYNC_AT:
                yield from at_resync(bench)
    finally:
        floor.close()
    if len(found) > 1:
        most, least = max(found), min(found)
        ours = statistics.median(found[most].attach)
        to = (f"the same with {least}", ours / statistics.median(found[least].attach))
        yield figure(f"attach.e2e.p50.{most}", ours * 1e6, "us", len(found[most].attach), to)


def at_size(count: int, least: int, times: Times) -> Iterator[dict[str, object]]:
    suffix = "" if count == least else f".at{count}"
    floor = statistics.median(times.floor)
    ours = statistics.median(times.attach)
    to = ("tuned C floor", ours / floor)
    yield figure(f"attach.e2e.p50{suffix}", ours * 1e6, "us", len(times.attach), to)
    yield figure(f"attach.e2e.floor.p50{suffix}", floor * 1e6, "us", len(times.floor))
    gone = statistics.median(times.detach)
    faster = None
    if times.ptp:
        faster = ("times faster than ptp+host-local's DEL", statistics.median(times.ptp) / gone)
    yield figure(f"detach.e2e.p50{suffix}", gone * 1e6, "us", len(times.detach), faster)


def at_resync(bench: Bench) -> Iterator[dict[str, object]]:
    idle, busy = (p99(values) for values in bench.beside_reaping(SPACES * 5))
    yield figure("attach.reaping.p99", busy * 1e6, "us", SPACES * 10, ("while idle", busy / idle))
    bench.quiet()
    yield figure(f"agent.rss.{RESYNC_AT}", resident(bench.pid) / 1024, "MiB", 1)
    restarts = [bench.restart() for _ in range(5)]
    changed = sum(restart[2] for restart in restarts)
    assert changed == 0, f"{changed} things changed by restarts"
    took = statistics.median(restart[0] for restart in restarts)
    yield figure(f"agent.resync.{RESYNC_AT}", took, "s", len(restarts))
    sync = statistics.median(restart[1] for restart in restarts)
    yield figure(f"agent.resync.{RESYNC_AT}.sync", sync, "s", len(restarts))


def p99(values: list[float]) -> float:
    return sorted(values)[max(0, int(len(values) * 0.99) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--endpoints", default="10,1000,4000")
    given = parser.parse_args()
    lab = RamLab(f"ab{os.getpid() % 100_000}", hosts=1, tors=1)
    directory = Path(tempfile.mkdtemp(prefix="agent-bench-"))
    try:
        lab.up()
        ctl = lab.ctl("--kubeconfig", str(lab.admin), "apply", "-f", str(EXAMPLES))
        command("nsenter", f"--net=/run/netns/{lab.top.management}", "--", *ctl)
        bench = Bench(lab, directory)
        bench.enter()
        counts = [int(count) for count in given.endpoints.split(",")]
        say("agent.jsonl", run(bench, given.rounds, counts))
    finally:
        lab.down()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
