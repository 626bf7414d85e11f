"""A name that is to be reached is looked up without holding up the agent."""

from __future__ import annotations

import asyncio
import threading
from ipaddress import ip_address

import pytest

from api.resources.net import IPAddress
from routed.addressing import Held, Interface
from routed.agent import own
from routed.agent.own import Own
from routed.kernel import interfaces
from routed.settings import AgentSettings

HOST = Interface("up0", True, (Held(ip_address("192.0.2.11")),))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The resolver says nothing until this is set."""
    found = threading.Event()

    def sources(_host: str, _port: int = 9) -> list[IPAddress]:
        return [ip_address("192.0.2.11")] if found.wait(20) else []

    monkeypatch.setattr(interfaces, "sources", sources)
    monkeypatch.setattr(interfaces, "read", lambda: [HOST])
    return found


def test_a_silent_resolver_holds_up_nothing_and_may_answer_later(
    answering: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "PATIENCE", 0.2)

    async def body() -> None:
        found = Own(AgentSettings(node="h", address_method="can-reach=switch.example"))
        meanwhile = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.wait_for(found.resolve(""), 10)
        assert meanwhile.done()
        found.look("", [])
        assert found.addresses() == []
        answering.set()
        await found.resolve("")
        found.look("", [])
        assert found.addresses() == [ip_address("192.0.2.11")]

    try:
        asyncio.run(body())
    finally:
        answering.set()


@pytest.mark.parametrize(
    "more",
    [
        {"address_method": "can-reach=192.0.2.1"},
        {"address_method": "first-found"},
        {"addresses": ["192.0.2.11"], "address_method": "can-reach=switch.example"},
    ],
)
def test_nothing_is_looked_up_where_there_is_no_name(
    answering: threading.Event, more: dict[str, object]
) -> None:
    found = Own(AgentSettings(node="h", **more))  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(found.resolve("https://192.0.2.1:8443"), 5))
