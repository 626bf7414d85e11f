"""Tiers and policies are part of intent: watched, on disk, and kept where a control plane does not
show them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from api.client import WatchEvent
from api.resources import NetworkPolicy, ObjectMeta, Tier
from api.resources.errors import Forbidden
from api.resources.meta import Resource
from api.resources.policy import NetworkPolicySpec
from routed.agent.control import Control
from routed.agent.intent import LATER, WATCHED, Encoder, by_kind, parse
from routed.settings import AgentSettings


def policy(name: str, revision: int = 1, **spec: Any) -> NetworkPolicy:
    metadata = ObjectMeta(name=name, resource_version=str(revision))
    return NetworkPolicy(metadata=metadata, spec=NetworkPolicySpec.model_validate(spec))


SHUT = policy("shut", selector="app == 'db'", types=["Ingress"])
PLATFORM = Tier(metadata=ObjectMeta(name="platform"))


def connected(directory: Path, **shown: list[Resource]) -> Control:
    """A connection to which the service has shown these."""
    control = Control(AgentSettings(node="h1", run_dir=directory, state_dir=directory), None)
    for plural in WATCHED:
        control.known.take(plural, WatchEvent("BEGIN"))
        for held in shown.get(plural, []):
            control.known.take(plural, WatchEvent("ADDED", held))
        control._changed(control.known.take(plural, WatchEvent("END")))
    return control


def test_policies_decide_and_are_on_disk(tmp_path: Path) -> None:
    known = connected(tmp_path, tiers=[PLATFORM], networkpolicies=[SHUT]).known
    intent = known.intent()
    assert (set(intent.tiers), set(intent.policies)) == ({"platform"}, {"shut"})
    assert parse(Encoder().encode(intent, {})) == (intent, {})
    assert by_kind(intent, {})["networkpolicies"] == {"shut": SHUT}
    assert known.take("networkpolicies", WatchEvent("MODIFIED", policy("shut", 2))).decides
    again = known.take("networkpolicies", WatchEvent("MODIFIED", policy("shut", 3)))
    assert not again.decides, "only its revision is another"


class Older:
    """A control plane that shows no node policies; it was asked for `asked`."""

    server = "https://older"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def watch(self, plural: str, **_: Any) -> AsyncIterator[WatchEvent]:
        self.asked.append(plural)
        if plural in LATER:
            raise Forbidden(f"role node may not watch {plural}")
        yield WatchEvent("BEGIN")
        yield WatchEvent("END")
        await asyncio.Event().wait()


def test_what_an_older_control_plane_does_not_show_stays_as_it_was(tmp_path: Path) -> None:
    async def body() -> None:
        before = connected(tmp_path, networkpolicies=[SHUT])
        (tmp_path / "intent.json").write_bytes(Encoder().encode(before.known.intent(), {}))
        control = Control(AgentSettings(node="h1", run_dir=tmp_path, state_dir=tmp_path), None)
        control.stored_intent()
        control.client = Older()  # type: ignore[assignment]
        tasks = [asyncio.create_task(control._follow(plural)) for plural in WATCHED]
        async with asyncio.timeout(5):
            while not control.in_sync:
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert control.known.intent().policies == {"shut": SHUT}
        assert control.known.intent().tiers == {}

    asyncio.run(body())
