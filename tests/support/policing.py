"""A filter that is none and keeps what it is told, for agents in this process; and policies."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from api.client.selections import Subject
from api.resources import Condition, NetworkPolicy, ObjectMeta, Workload
from api.resources.errors import ApplyError
from api.resources.policy import NetworkPolicySpec
from policies.compile import names
from policies.compile.ruleset import NO_POLICIES, Ruleset
from policies.counters import Reading
from policies.nat import Nat
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.request import AttachRequest
from routed.agent.told import Known
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel
from routed.lab.hollow.host import HollowFilter
from routed.state import Endpoint
from support.agents import agent_on

T = TypeVar("T", bound="KeptFilter")


class KeptFilter(HollowFilter):
    """`rules` are what it holds of policies, `steps` how it was read or changed. What has a chain
    with `refuses` in its name is refused."""

    def __init__(self) -> None:
        self.rules = NO_POLICIES
        self.steps: list[str] = []
        self.refuses = ""
        self.reading = Reading()  # what was counted
        self.readings = 0
        self._made: Ruleset | None = None

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        made, self._made = self._made, None
        if rules is not None:
            self._check(rules)
        if trusted and made == rules:
            self._made = made
            return False
        self.steps.append("trusted" if trusted else "read")
        changed = rules is not None and rules != self.rules
        if rules is not None:
            self.rules = self._made = rules
        return changed

    def flush(self) -> None:
        """As somebody does."""
        self.rules = NO_POLICIES

    def policed(self) -> bool:
        return bool(self.rules)

    def counted(self) -> Reading:
        self.readings += 1
        return self.reading

    def check(self, rules: Ruleset) -> None:
        self._check(rules)

    def _check(self, rules: Ruleset) -> None:
        if self.refuses and any(self.refuses in name for name in rules.chains):
            raise ApplyError("table inet routed", "change", errno.EOPNOTSUPP)

    def links(self) -> set[str]:
        """Those that are not dropped by."""
        sets = self.rules.sets.items()
        return {link for name, one in sets if name.startswith("links-") for link in one.elements}

    def members(self, text: str) -> set[str]:
        """What the selector stands for here."""
        return set(self.rules.sets[names.selector(text, 4)].elements)


def policy(name: str, **spec: Any) -> NetworkPolicy:
    """`spec` as on the wire."""
    held = NetworkPolicySpec.model_validate(spec)
    return NetworkPolicy(metadata=ObjectMeta(name=name), spec=held)


def allow_from(source: str, **more: Any) -> list[dict[str, Any]]:
    """Ingress rules."""
    return [{"action": "Allow", "source": {"selector": source}, **more}]


def declare(agent: Agent, *policies: NetworkPolicy, **more: Any) -> None:
    """As the watches bring it; `more` are other fields of the intent."""
    assert agent.intent is not None
    named = {one.metadata.name: one for one in policies}
    agent.intent_changed(replace(agent.intent, policies=named, **more))


async def attach(agent: Agent, name: str, app: str = "", **more: Any) -> Attachment:
    """In the namespace of its name, with the label `app`; `more` are other fields."""
    wanted = {"name": name, "netns": name, "labels": {"app": app or name}, **more}
    return (await agent.attach(AttachRequest.model_validate(wanted)))[0]


def watched(kernel: FakeKernel, table: KeptFilter) -> list[Ruleset]:
    """What is in the filter whenever a link is made from now on."""
    seen: list[Ruleset] = []
    attached = kernel.attach

    async def attach_seen(endpoint: Endpoint) -> None:
        seen.append(table.rules)
        await attached(endpoint)

    kernel.attach = attach_seen  # type: ignore[method-assign]
    return seen


def declared(*workloads: Workload) -> dict[str, Workload]:
    return {one.metadata.name: one for one in workloads}


def played(
    directory: Path,
    body: Callable[[Agent, FakeKernel, T], Awaitable[None]],
    table: T,
    known: Mapping[Subject, Known] | None = None,
) -> None:
    """Run `body` with an agent that has the filter `table`, in turns of its writer, and was told
    what is `known`; it has the namespaces web, db and other."""

    async def whole() -> None:
        kernel = FakeKernel()
        for name in ("web", "db", "other"):
            kernel.add_namespace(name)
        agent = agent_on(kernel, directory)
        agent.filtering.table.filter = table
        agent.guard.members.known.update(known or {})
        serving = asyncio.create_task(agent.writer.serve())
        await agent.writer.synced()
        await body(agent, kernel, table)
        assert not serving.done()
        serving.cancel()

    asyncio.run(whole())


async def applied(agent: Agent) -> None:
    """What was handed to the writer before is done."""

    async def nothing() -> None:
        pass

    await asyncio.sleep(0)  # whoever was woken hands it in
    await agent.writer.run(nothing)


def enforced(agent: Agent) -> Condition:
    """What the Node says of policies."""
    return next(one for one in conditions(agent) if one.type == "PoliciesEnforced")
