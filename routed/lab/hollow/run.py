"""A control plane with hollow agents at it: the storm of their joining, the quiet after it, and the
storm after the control plane has died and is back.

Everything is on loopback, in a directory that is removed in the end. What is counted is the
service's own (`/metrics`), so a 5xx that an agent got over counts all the same.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.auth import kubeconfig
from api.client import context_of
from routed.lab.fabric import LabError
from routed.lab.processes import Process, cpu_seconds, free_port, resident, wait_for

POOL = "10.0.0.0/8"
BIND_SECONDS = 30.0
PATIENCE_SECONDS = 300.0  # without one of the agents getting any further
INVITERS = 8  # requests under way
ANSWERED = r'^routed_api_requests_total\{code="(\d+)".* (\S+)$'
MEMORY = Path("/dev/shm")  # noqa: S108 - where hosts have their /run


@dataclass
class Phase:
    """What was seen from one event to the end of its storm."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the service
    requests: int = 0
    server_errors: int = 0  # 5xx
    refused: int = 0  # 429
    watches: int = 0  # open in the end
    arrivals: list[float] = field(default_factory=list)  # when each agent was there

    def part(self, cut: float) -> float:
        """When this part of the agents was there."""
        return sorted(self.arrivals)[min(len(self.arrivals) - 1, int(len(self.arrivals) * cut))]


class HollowLab:
    """`agents` agents with `workloads` workloads each, in `processes` processes."""

    def __init__(self, directory: Path, agents: int, workloads: int, processes: int = 1) -> None:
        self.directory = directory
        self.agents = agents
        self.workloads = workloads
        self.labels: dict[str, list[dict[str, str]]] = {}  # of the workloads of each node
        self.port = free_port()
        data = directory / "server"
        data.mkdir(parents=True)
        words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(data)]
        self.server = Process("server", [*words, "--listen", f"127.0.0.1:{self.port}"], directory)
        self.admin = data / "admin.kubeconfig"
        self.hosts = Hosts(directory, processes)

    def up(self) -> None:
        """Start the control plane, with a pool."""
        self._start_server()
        pool = {"metadata": {"name": "fleet"}, "spec": {"cidr": POOL, "announce": "Blocks"}}
        with self.http() as http:
            answer = http.post("/ippools", json=pool)
        if answer.status_code != 201:
            raise LabError(f"cannot make the pool: {answer.text}")

    def down(self) -> None:
        self.hosts.stop()
        self.server.stop()

    def invite(self) -> dict[str, str]:
        """A bootstrap token for each node, by its name."""
        with self.http() as http, ThreadPoolExecutor(INVITERS) as threads:

            def invited(node: str) -> tuple[str, str]:
                answer = http.post(f"/nodes/{node}/bootstrap", json={})
                answer.raise_for_status()
                return node, answer.json()["token"]

            return dict(threads.map(invited, [f"h{number}" for number in range(self.agents)]))

    def join(self, invitations: dict[str, str]) -> Phase:
        """All of them at once, until the service has every workload."""
        with self._phase() as phase:
            self.hosts.start(invitations, self.workloads, self.labels)
            phase.arrivals = self.hosts.until("reported", self.agents)
        return phase

    def rest(self, seconds: float) -> Phase:
        """Nothing happens."""
        with self._phase() as phase:
            time.sleep(seconds)
        return phase

    def crash(self) -> Phase:
        """The control plane is killed and started again; until all agents are in sync."""
        self.server.kill()
        self.hosts.until("in_sync", 0, at_most=True)
        self._start_server()
        with self._phase() as phase:
            phase.arrivals = self.hosts.until("in_sync", self.agents)
        return phase

    @property
    def pid(self) -> int:
        """Of the control plane."""
        found = self.server.pid
        assert found is not None
        return found

    def _start_server(self) -> None:
        self.server.start()

        def answers() -> bool:
            if self.server.pid is None:
                raise SystemExit(f"the control plane ended: {self.server.log.read_text()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return False
            return self.admin.exists()

        wait_for("the control plane answering", answers, BIND_SECONDS)

    def http(self) -> httpx.Client:
        access = kubeconfig.read(self.admin)
        return httpx.Client(
            base_url=f"{access.server}/apis/routed.dev/v1",
            verify=context_of(access),
            headers={"Authorization": f"Bearer {access.token}"},
            timeout=60,
            trust_env=False,
        )

    def _measured(self) -> tuple[dict[str, int], int]:
        """Requests answered so far by their code, and how many watches are open."""
        with self.http() as http:
            text = http.get(f"https://127.0.0.1:{self.port}/metrics").text
        codes: dict[str, int] = {}
        for code, count in re.findall(ANSWERED, text, re.M):
            codes[code] = codes.get(code, 0) + int(float(count))
        open_now = re.findall(r"^routed_api_watches\{.*\} (\S+)$", text, re.M)
        return codes, int(sum(map(float, open_now)))

    @contextmanager
    def _phase(self) -> Iterator[Phase]:
        phase = Phase()
        before, _ = self._measured()
        used, began = cpu_seconds(self.pid), time.monotonic()
        yield phase
        phase.seconds = time.monotonic() - began
        phase.cpu_seconds = cpu_seconds(self.pid) - used
        after, phase.watches = self._measured()
        phase.arrivals = [at - began for at in phase.arrivals]
        grown = {code: count - before.get(code, 0) for code, count in after.items()}
        phase.requests = sum(grown.values()) - 1  # not ours
        phase.server_errors = sum(count for code, count in grown.items() if code >= "500")
        phase.refused = grown.get("429", 0)


class Hosts:
    """The processes of the agents, and what they say. `told` and `altered` as in `agents.py`."""

    def __init__(self, directory: Path, processes: int) -> None:
        self._directory = directory
        self._count = processes
        self._memory: tempfile.TemporaryDirectory[str] | None = None
        self._children: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._said: list[list[dict[str, Any]]] = []
        self.told: dict[str, int] = {}
        self.altered: list[tuple[float, str, str, list[str], list[str]]] = []

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def start(
        self,
        invitations: dict[str, str],
        workloads: int,
        labels: Mapping[str, list[dict[str, str]]],
    ) -> None:
        self._memory = tempfile.TemporaryDirectory(
            prefix="routed-hollow-", dir=MEMORY if MEMORY.is_dir() else self._directory
        )
        nodes = sorted(invitations)
        for number in range(self._count):
            mine = {node: invitations[node] for node in nodes[number :: self._count]}
            with (self._directory / f"agents{number}.log").open("ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", "routed.lab.hollow.agents"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
            assert child.stdin is not None
            said = {
                "directory": self._memory.name,
                "workloads": workloads,
                "invitations": mine,
                "labels": {node: labels[node] for node in mine if node in labels},
            }
            child.stdin.write(json.dumps(said))
            child.stdin.close()
            lines: list[dict[str, Any]] = [{"at": time.monotonic()}]
            reader = threading.Thread(target=self._read, args=(child, lines), daemon=True)
            reader.start()
            self._said.append(lines)
            self._children.append(child)
            self._readers.append(reader)

    def until(self, what: str, count: int, *, at_most: bool = False) -> list[float]:
        """Wait until `count` agents are `what`, or no more than that; when each of them was."""
        with self._changed:
            seen = [len(lines) - 1 for lines in self._said]
            while True:
                now = sum(lines[-1].get(what, 0) for lines in self._said)
                if now == count or (at_most and now <= count):
                    break
                if any(child.poll() is not None for child in self._children):
                    raise LabError(f"cannot go on: the agents ended, see {self._directory}")
                if not self._changed.wait(PATIENCE_SECONDS):
                    why = [lines[-1].get("why") for lines in self._said]
                    raise LabError(f"cannot go on: {now} of {count} agents are {what}: {why}")
            return _arrivals([lines[at:] for lines, at in zip(self._said, seen, strict=True)], what)

    def seen(self, true: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until it is `true` of what they said. LabError."""
        with self._changed:
            if not self._changed.wait_for(true, seconds):
                raise LabError(f"cannot go on: {what} did not happen in {seconds:g} s")

    def calm(self, seconds: float, most: float) -> None:
        """Wait until nothing has become other for so long. LabError: in `most` seconds it has not
        been."""
        deadline = time.monotonic() + most
        with self._changed:
            while self._changed.wait(seconds):
                if time.monotonic() > deadline:
                    raise LabError(f"cannot go on: no calm for {seconds:g} s in {most:g} s")

    def stop(self) -> None:
        for child in self._children:
            child.send_signal(signal.SIGKILL)  # there is nothing to be tidied up
            child.wait()
        for reader in self._readers:
            reader.join()
        if self._memory is not None:
            self._memory.cleanup()

    def _read(self, child: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                said = json.loads(line)
                with self._changed:
                    self.told |= said.pop("told")
                    self.altered += map(tuple, said.pop("altered"))
                    lines.append(said)
                    self._changed.notify_all()
        child.wait()  # who is woken looks at that
        with self._changed:
            self._changed.notify_all()


def _arrivals(said: list[list[dict[str, Any]]], what: str) -> list[float]:
    """When each agent was `what` for good, from the counts over time."""
    found: list[float] = []
    for lines in said:
        reached = 0
        for line in lines:
            count = line.get(what, 0)
            if count < reached:
                del found[len(found) - (reached - count) :]
            found += [line["at"]] * (count - reached)
            reached = count
    return sorted(found)


def shown(lab: HollowLab, quiet: float, say: Callable[[str], None]) -> dict[str, Phase]:
    """Everything in its order; what is seen is said."""
    found: dict[str, Phase] = {}
    lab.up()
    invitations = lab.invite()
    say(f"{lab.agents} agents join at once, with {lab.workloads} workloads each")
    found["join"] = one = lab.join(invitations)
    say(
        f"  all {lab.agents * lab.workloads} workloads are in the store after {one.seconds:.1f} s: "
        f"{one.requests} requests, {one.server_errors} answered 5xx, {one.refused} answered 429, "
        f"{one.cpu_seconds:.1f} s of CPU"
    )
    say(f"  {one.watches} watches are open, the service holds {resident(lab.pid) / 1024:.0f} MiB")
    found["quiet"] = one = lab.rest(quiet)
    say(
        f"nothing happens for {one.seconds:.0f} s: {one.requests} requests, the service uses "
        f"{one.cpu_seconds / one.seconds * 100:.1f} % of a CPU"
    )
    found["crash"] = one = lab.crash()
    say(
        f"the control plane is killed and started again: all agents are in sync after "
        f"{one.seconds:.1f} s (half of them after {one.part(0.5):.1f} s), {one.requests} requests, "
        f"{one.server_errors} answered 5xx, {one.cpu_seconds:.1f} s of CPU"
    )
    return found
