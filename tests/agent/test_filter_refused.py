"""Without the filter nothing more is attached or announced; without translation it all is."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import ip_network
from pathlib import Path

import pytest
from support.agents import agent_on

from api.resources.errors import ApplyError
from policies.compile.ruleset import Ruleset
from policies.nat import Nat
from routed.agent.filtering import Filtering
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel
from routed.lab.hollow.host import HollowFilter

NAT = Nat(outgoing=frozenset([ip_network("10.65.0.0/24")]))


class Refusing(HollowFilter):
    """Refuses translation; all, if `whole`."""

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self.made: list[Nat | None] = []

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        if nat or self.whole:
            raise ApplyError("table inet routed", "change", errno.EOPNOTSUPP)
        self.made.append(nat)
        return True


def test_the_filter_is_there_where_translation_is_refused() -> None:
    table = Refusing()
    filtering = Filtering(table)
    filtering.nat = NAT
    assert asyncio.run(filtering.keep()) is not None, "it is said"
    assert (filtering.ready, table.made) == (True, [None])
    table.whole = True
    assert asyncio.run(filtering.keep()) is not None
    assert not filtering.ready
    filtering.nat = Nat()
    assert asyncio.run(filtering.keep()) is not None
    assert not filtering.ready
    table.whole = False
    assert asyncio.run(filtering.keep()) is None
    assert filtering.ready


def test_nothing_more_is_attached_or_announced_without_the_filter(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        for name in ("web", "db"):
            kernel.add_namespace(name)
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        await agent.attach(AttachRequest(name="web", netns="web"))
        serving.cancel()

        following = agent_on(kernel, tmp_path)
        told: list[object] = []
        following.speech.set = lambda *said: told.append(said)  # type: ignore[assignment]
        following.filtering.table.filter = table = Refusing(whole=True)
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert told == [], "what the agent before it said stays"
        assert not following.ready
        with pytest.raises(ApplyError):
            await following.attach(AttachRequest(name="db", netns="db"))
        table.whole = False
        await following.writer.synced()
        assert told
        assert set(following.ready) == {"web.h1"}
        table.whole = True
        following.filtering.heard(touched=True)
        await following.writer.synced()
        assert set(following.ready) == {"web.h1"}
        assert "table inet routed" in following.report.failed
        serving.cancel()

    asyncio.run(body())
