"""The process of the agents: it is told on its standard input who they are, and says on its
standard output, a JSON line at a time, how many of them are how far.

    in   {"directory": D, "workloads": M, "invitations": {node: bootstrap token},
          "labels": {node: [labels of each of its workloads]}}
    out  {"at": seconds, "joined": n, "attached": n, "in_sync": n, "reports": n, "reported": n,
          "policies": n, "policed": n, "failed": n, "why": "...",
          "told": {node: n}, "altered": [[at, node, name, [elements], [elements]]]}

`at` is CLOCK_MONOTONIC, which is the same for all processes of a machine. `attached` and `reports`
count workloads, `policies` those that agents know of, the others agents. `in_sync` are agents all
of whose watches are whole, `reported` those all of whose workloads the service has shown them,
`policed` those whose policies are in effect with all members. `told` says of which agents the
service has told something since the line before, and how often so far; `altered` what sets and
chains of theirs have become others (`routed/lab/hollow/table.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from api import memory
from api.auth import kubeconfig
from api.auth.bootstrap import Invitation, parse
from api.client import Client, join
from api.resources.errors import RoutedError
from routed.agent.agent import Agent
from routed.agent.control import Backoff, Control
from routed.agent.records import write_atomic
from routed.agent.request import AttachRequest
from routed.lab.hollow.host import HollowKernel, HollowSpeech
from routed.lab.hollow.table import HollowTable
from routed.settings import AgentSettings

SAY_SECONDS = 0.25
RETRY_SECONDS = 0.2
# what a host compares of its own costs no control plane anything, and a thousand hosts have more
# than two CPUs for it
OWN_SECONDS = 3600.0
# of the garbage collector: what a thousand agents hold is gone through for seconds
THRESHOLDS = (200_000, 100, 1_000)


@dataclass
class Hollow:
    """One agent; `failed` says why it is none."""

    node: str
    invitation: Invitation
    directory: Path
    workloads: int
    labels: Sequence[Mapping[str, str]] = ()
    table: HollowTable = field(default_factory=HollowTable)
    agent: Agent | None = None
    client: Client | None = None
    failed: str = ""
    attached: int = 0

    async def run(self) -> None:
        try:
            await self._join()
            agent = self.agent
            assert agent is not None
            agent.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.serve())
                tasks.create_task(self._attach(agent))
        except* (RoutedError, OSError, ValueError) as group:
            self.failed = "; ".join(map(str, group.exceptions))

    async def _join(self) -> None:
        backoff = Backoff()
        path = self.directory / "node.kubeconfig"
        self.directory.mkdir(parents=True, mode=0o700)
        while True:
            try:
                access = await join(self.invitation, self.node)
                break
            except (RoutedError, OSError) as error:
                self.failed = f"cannot join: {error}"
            await backoff.wait()
        self.failed = ""
        write_atomic(path, kubeconfig.render(access).encode(), durable=False)
        settings = AgentSettings(
            node=self.node, kubeconfig=path, run_dir=self.directory, state_dir=self.directory,
            resync_seconds=OWN_SECONDS,
        )  # fmt: skip
        self.client = Client(access)
        self.agent = Agent(
            settings, HollowKernel(), self.table, Control(settings, self.client), HollowSpeech()
        )
        self.agent.agreement.look_seconds = OWN_SECONDS

    async def _attach(self, agent: Agent) -> None:
        """What a runtime does: one workload after the other, and again what was refused."""
        while agent.intent is None:
            await asyncio.sleep(RETRY_SECONDS)
        while self.attached < self.workloads:
            name = f"w{self.attached}"
            labels = dict(self.labels[self.attached]) if self.labels else {}
            wanted = AttachRequest(name=name, netns=f"{self.node}-{name}", labels=labels)
            try:
                await agent.attach(wanted)
            except RoutedError as error:
                self.failed = str(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.failed = ""
                self.attached += 1

    @property
    def in_sync(self) -> bool:
        return self.agent is not None and self.agent.control.in_sync

    @property
    def reports(self) -> int:
        """How many of its workloads the service shows."""
        return 0 if self.agent is None else len(self.agent.control.known.reports)

    @property
    def reported(self) -> bool:
        return self.in_sync and self.reports == self.workloads

    @property
    def policies(self) -> int:
        """How many it knows of."""
        intent = None if self.agent is None else self.agent.intent
        return 0 if intent is None else len(intent.policies)

    @property
    def policed(self) -> bool:
        """Whether policies are in effect as they are declared."""
        if self.agent is None or self.agent.intent is None:
            return False
        filtering, missing = self.agent.filtering, self.agent.guard.enforcement.missing
        in_effect = filtering.ready and filtering.refused is None
        settled = self.agent.guard.settled
        return in_effect and settled and not (missing.selectors or missing.ports)

    @property
    def told(self) -> int:
        """How often the service has told it of something."""
        if self.agent is None:
            return 0
        return sum(self.agent.control.known.told.values()) + self.agent.guard.members.told


@dataclass
class Fleet:
    agents: list[Hollow]
    told: dict[str, int] = field(default_factory=dict)  # as it was said

    def counts(self) -> dict[str, Any]:
        failed = [one for one in self.agents if one.failed]
        return {
            "joined": sum(one.agent is not None for one in self.agents),
            "attached": sum(one.attached for one in self.agents),
            "in_sync": sum(one.in_sync for one in self.agents),
            "reports": sum(one.reports for one in self.agents),
            "reported": sum(one.reported for one in self.agents),
            "policies": sum(one.policies for one in self.agents),
            "policed": sum(one.policed for one in self.agents),
            "failed": len(failed),
            "why": failed[0].failed if failed else "",
        }

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for one in self.agents:
                tasks.create_task(one.run())
            tasks.create_task(self._say())

    async def _say(self) -> None:
        before: dict[str, Any] = {}
        while True:
            now, altered = self.counts(), list(self._altered())
            told = {
                one.node: one.told for one in self.agents if one.told != self.told.get(one.node)
            }
            if now != before or altered or told:
                said = {"at": time.monotonic(), **now, "told": told, "altered": altered}
                print(json.dumps(said), flush=True)
                before = now
                self.told.update(told)
            await asyncio.sleep(SAY_SECONDS)

    def _altered(self) -> Iterator[list[Any]]:
        for one in self.agents:
            while one.table.news:
                news = one.table.news.popleft()
                yield [news.at, one.node, news.name, sorted(news.add), sorted(news.gone)]


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    said = json.loads(sys.stdin.read())
    directory = Path(said["directory"])
    fleet = Fleet(
        [
            Hollow(
                node, parse(text), directory / node, said["workloads"], said["labels"].get(node, ())
            )
            for node, text in said["invitations"].items()
        ]
    )
    memory.collect_seldom(THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fleet.run())


if __name__ == "__main__":
    main()
