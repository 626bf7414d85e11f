"""What a service does not tell an agent because it is too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.service import running_service

from api.auth import bootstrap
from api.client import Client, join
from api.resources.net import parse_address
from api.resources.selectors import SUBJECTS_MOST
from policies.model import Needs
from routed.agent import told
from routed.agent.told import Members

SECONDS = 20.0  # for what must come
WEB = "app == 'web'"


def test_an_agent_that_needs_more_than_is_told_says_so_and_goes_on_when_it_needs_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(told, "LINGER_SECONDS", 0.0)
    with running_service(tmp_path) as service, service.http() as admin:
        assert admin.post("/nodes", json={"metadata": {"name": "h"}, "spec": {}}).is_success
        named = {"name": "web.h", "labels": {"app": "web"}}
        status = {"phase": "Ready", "addresses": ["10.0.9.1"]}
        spec = {"node": "h", "origin": "Node"}
        web = {"metadata": named, "spec": spec, "status": status}
        assert admin.post("/workloads", json=web).is_success
        invitation = bootstrap.parse(admin.post("/nodes/h/bootstrap").json()["token"])
        many = frozenset(f"a == '{number}'" for number in range(SUBJECTS_MOST))

        async def body() -> None:
            client = Client(await join(invitation, "h"))
            members, changed = Members(tmp_path / "members.json", "h", client), asyncio.Event()

            async def until(true: Callable[[], bool]) -> None:
                async with asyncio.timeout(SECONDS):
                    while not true():
                        changed.clear()
                        await changed.wait()

            members.need(Needs(frozenset([WEB])))
            serving = asyncio.create_task(members.serve(changed.set))
            await until(lambda: WEB in members.known)
            assert members.refused == ""
            members.need(Needs(many | {WEB}))
            await until(lambda: members.refused != "")
            assert f"more than {SUBJECTS_MOST} selectors and ports" in members.refused
            assert f"({SUBJECTS_MOST + 1} are needed here)" in members.refused
            assert members.known[WEB].entries.addresses == {parse_address("10.0.9.1")}, "as it was"
            members.need(Needs(many))
            await until(lambda: members.refused == "" and len(members.known) == SUBJECTS_MOST)
            serving.cancel()
            await asyncio.wait([serving])
            await client.close()

        asyncio.run(body())
