"""A filter that is none and keeps what it is told, for agents in this process; and policies."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from api.resources import NetworkPolicy, ObjectMeta, Workload
from api.resources.errors import ApplyError
from api.resources.policy import NetworkPolicySpec
from policies.compile import names
from policies.compile.ruleset import NO_POLICIES, Ruleset
from policies.counters import Reading
from policies.nat import Nat
from routed.agent.agent import Agent
from routed.lab.hollow.host import HollowFilter


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


def declared(*workloads: Workload) -> dict[str, Workload]:
    return {one.metadata.name: one for one in workloads}
