"""A fleet with policies: how long it takes from a request to the tables of all agents that it
concerns, and how often those are told anything that it does not.

Workloads are of `apps` applications, each node's of two of them. A policy for each application lets
two others in; one that selects every workload lets in what is labelled ``tier: shared``, so its
members are followed by every agent. Beside what it attaches itself, each node has one workload that
is declared, whose labels are changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.resources.media import MERGE
from policies.compile import names
from policies.compile.chains import Place, Walk
from policies.model import Direction
from routed.lab.fabric import LabError
from routed.lab.hollow.run import HollowLab
from routed.lab.processes import cpu_seconds

FROM = (7, 13)  # applications that one lets in, counted from its own
SHARED, OWN = {"tier": "shared"}, {"tier": "own"}
ALL = "tier == 'shared'"
PORT, OTHER_PORT = 9000, 9001
PATIENCE_SECONDS = 60.0  # for one change
SETTLE_SECONDS = 300.0  # for all that was done at the beginning
CALM_SECONDS = 3.0  # blocks and nodes are reported once a second
DECLARERS = 8  # requests under way


@dataclass(frozen=True, slots=True)
class Mark:
    """That in the table of `node` a set has an element (None: a chain was written)."""

    node: str
    name: str
    element: str | None = None
    there: bool = True


@dataclass
class Seen:
    """Of changes: until each agent that it concerned had it, and until all had."""

    seconds: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    service_cpu: list[float] = field(default_factory=list)  # seconds
    agents_cpu: list[float] = field(default_factory=list)  # of each that it concerned


class Policed(HollowLab):
    """`apps` applications among the workloads."""

    def __init__(
        self, directory: Path, agents: int, workloads: int, apps: int, processes: int = 1
    ) -> None:
        super().__init__(directory, agents, workloads, processes)
        self.apps = apps
        self.nodes = [f"h{number}" for number in range(agents)]
        self.app = {node: 2 * number % apps for number, node in enumerate(self.nodes)}  # declared
        self.labels = {
            node: [self._labels(2 * number + n % 2, n == 2) for n in range(workloads)]
            for number, node in enumerate(self.nodes)
        }
        self._http: httpx.Client | None = None

    def _labels(self, app: int, shared: bool) -> dict[str, str]:
        return {"app": f"a{app % self.apps}", **(SHARED if shared and app % 20 == 0 else OWN)}

    def police(self) -> None:
        """The policies; once all have joined, or each that joins is told to all others."""
        for app in range(self.apps):
            self.create("networkpolicies", f"p{app}", self.policy(app))
        everybody = {"selector": "all()", "order": 5000, "ingress": allow(ALL, PORT)}
        self.create("networkpolicies", "everybody", everybody)

    def declare(self) -> None:
        """One workload more on each node, until all agents have all policies in effect, and nobody
        is told anything any more."""
        with ThreadPoolExecutor(DECLARERS) as threads:
            list(threads.map(self._declare, self.nodes))
        self.hosts.until("policies", self.agents * (self.apps + 1))
        # a fleet has as much of the CPU as one host elsewhere: first all that it was told is done
        self.hosts.until("policed", self.agents)
        for node in self.nodes:
            self.address(self.declared(node))
        self.hosts.until("policed", self.agents)
        self.settle(SETTLE_SECONDS)

    def settle(self, most: float = PATIENCE_SECONDS) -> None:
        self.hosts.calm(CALM_SECONDS, most)

    def _declare(self, node: str) -> None:
        self.come(self.declared(node), node, {"app": f"a{self.app[node]}", **OWN})

    @staticmethod
    def declared(node: str) -> str:
        return f"{node}-declared"

    def come(self, name: str, node: str, labels: dict[str, str]) -> None:
        self.create("workloads", name, {"node": node, "origin": "API", "netns": name}, labels)

    def policy(self, app: int, port: int = PORT) -> dict[str, Any]:
        rules = [one for of in FROM for one in allow(self.selector(app + of), port)]
        return {"selector": self.selector(app), "ingress": rules}

    def selector(self, app: int) -> str:
        return f"app == 'a{app % self.apps}'"

    def followers(self, app: int) -> set[str]:
        """The nodes whose workloads let this application in."""
        wanted = {(app - of) % self.apps for of in FROM}
        return {node for node in self.nodes if wanted & self.apps_of(node)}

    def tables(self) -> dict[tuple[str, str], set[str]]:
        """What sets of tables have by now, by node and name, put together from what was altered."""
        found: dict[tuple[str, str], set[str]] = {}
        for _, node, name, add, gone in list(self.hosts.altered):
            held = found.setdefault((node, name), set())
            held.difference_update(gone)
            held.update(add)
        return found

    def addresses(self, labels: str) -> set[str]:
        """What the service shows of workloads with these labels."""
        got = self._asked(lambda http: http.get("/workloads", params={"labelSelector": labels}))
        return {one for item in got.json()["items"] for one in item["status"].get("addresses", ())}

    def apps_of(self, node: str) -> set[int]:
        """Those of its workloads."""
        return {int(one["app"][1:]) for one in self.labels[node]} | {self.app[node]}

    # -- requests ----------------------------------------------------------------------------------

    def create(
        self, plural: str, name: str, spec: dict[str, Any], labels: dict[str, str] | None = None
    ) -> None:
        body = {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}
        self._asked(lambda http: http.post(f"/{plural}", json=body))

    def patch(self, plural: str, name: str, change: dict[str, Any]) -> None:
        headers, body = {"content-type": MERGE}, json.dumps(change)
        path = f"/{plural}/{name}"
        self._asked(lambda http: http.patch(path, content=body, headers=headers))

    def remove(self, plural: str, name: str) -> None:
        self._asked(lambda http: http.delete(f"/{plural}/{name}"))

    def _asked(self, ask: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
        """By one connection that stays."""
        if self._http is None:
            self._http = self.http()
        answer = ask(self._http)
        if not answer.is_success:
            raise LabError(f"cannot change the fleet: {answer.text}")
        return answer

    def address(self, name: str) -> str:
        """Of a workload, once its node has said it."""
        path = f"/workloads/{name}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = self._asked(lambda http: http.get(path)).json()["status"].get("addresses")
            if found:
                return str(found[0])
        raise LabError(f"cannot go on: {name} got no address")

    # -- what is measured --------------------------------------------------------------------------

    def timed(
        self, change: Callable[[], None], marks: Callable[[], Collection[Mark]], seen: Seen
    ) -> None:
        """Until every agent has in its table what `marks` says, once the `change` was asked for."""
        since, pids = len(self.hosts.altered), self.hosts.pids
        service, agents = cpu_seconds(self.pid), sum(map(cpu_seconds, pids))
        began = time.monotonic()
        change()
        missing, times = set(marks()), dict[str, float]()
        nodes = {mark.node for mark in missing}

        def all_there() -> bool:
            nonlocal since
            for at, node, name, add, gone in self.hosts.altered[since:]:
                for mark in _altered(node, name, add, gone):
                    if mark in missing:
                        missing.discard(mark)
                        times[node] = at - began
            since = len(self.hosts.altered)
            return not missing

        if not nodes:
            raise LabError("cannot measure a change that concerns nobody")
        self.hosts.seen(all_there, f"a change at {len(nodes)} agents", PATIENCE_SECONDS)
        seen.seconds += times.values()
        seen.last.append(max(times.values()))
        seen.service_cpu.append(cpu_seconds(self.pid) - service)
        seen.agents_cpu.append((sum(map(cpu_seconds, pids)) - agents) / len(nodes))

    def relabel_all(self, node: str, shared: bool, seen: Seen) -> None:
        """A workload begins, or stops, to be one that all follow."""
        name = self.declared(node)
        address = self.address(name)
        marks = self.members(self.nodes, ALL, address, shared)
        labels = {"metadata": {"labels": SHARED if shared else OWN}}
        self.timed(lambda: self.patch("workloads", name, labels), lambda: marks, seen)

    def relabel_some(self, node: str, app: int, seen: Seen) -> None:
        """A workload becomes another application's."""
        name, before = self.declared(node), self.app[node]
        address = self.address(name)
        marks = {
            *self.members(self.followers(before), self.selector(before), address, False),
            *self.members(self.followers(app), self.selector(app), address, True),
        }
        marks = {mark for mark in marks if mark.node != node}  # which passes other policies now
        labels = {"metadata": {"labels": {"app": f"a{app % self.apps}"}}}
        self.timed(lambda: self.patch("workloads", name, labels), lambda: marks, seen)
        self.app[node] = app % self.apps

    def edit(self, app: int, port: int, seen: Seen) -> None:
        """A policy of one application is another."""
        spec = {"spec": self.policy(app, port)}
        nodes = (node for node in self.nodes if app in self.apps_of(node))
        marks = self._chains(nodes, f"p{app}")
        self.timed(lambda: self.patch("networkpolicies", f"p{app}", spec), lambda: marks, seen)

    def edit_all(self, port: int, seen: Seen) -> None:
        """The policy of everybody is another."""
        spec = {"spec": {"ingress": allow(ALL, port)}}
        marks = self._chains(self.nodes, "everybody")
        self.timed(lambda: self.patch("networkpolicies", "everybody", spec), lambda: marks, seen)

    def come_and_go(self, node: str, number: int, come: Seen, go: Seen) -> None:
        """A workload that all follow is declared, and is deleted again."""
        name, labels = f"{node}-guest{number}", {"app": f"a{self.app[node]}", **SHARED}
        addresses: list[str] = []

        def there() -> Collection[Mark]:
            addresses.append(self.address(name))
            return self.members(self.nodes, ALL, addresses[0], True)

        self.timed(lambda: self.come(name, node, labels), there, come)
        marks = self.members(self.nodes, ALL, addresses[0], False)
        self.settle()
        self.timed(lambda: self.remove("workloads", name), lambda: marks, go)

    @staticmethod
    def members(nodes: Iterable[str], text: str, address: str, there: bool) -> set[Mark]:
        return {Mark(node, names.selector(text, 4), address, there) for node in nodes}

    @staticmethod
    def _chains(nodes: Iterable[str], policy: str) -> set[Mark]:
        chain = Place(Direction.INGRESS, Walk.REAL).name("policy", policy)
        return {Mark(node, chain) for node in nodes}

    def down(self) -> None:
        if self._http is not None:
            self._http.close()
        super().down()


def allow(selector: str, port: int) -> list[dict[str, Any]]:
    """A rule, in a list."""
    to = {"ports": [port]}
    source = {"selector": selector}
    return [{"action": "Allow", "protocol": "UDP", "source": source, "destination": to}]


def _altered(node: str, name: str, add: Iterable[str], gone: Iterable[str]) -> Iterable[Mark]:
    yield Mark(node, name)
    for there, elements in ((True, add), (False, gone)):
        for one in elements:
            yield Mark(node, name, one, there)
