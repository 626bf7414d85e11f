"""What selectors stand for, as it is told, kept, and put right by what is attached here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.agents import until

from api.client.selections import Entries, Selections
from api.resources.net import parse_address, parse_cidr
from api.resources.workload import Mode, Origin, WorkloadPort
from policies.model import Members as Model
from policies.model import Needs
from routed.agent import told as module
from routed.agent.attachment import Attachment, Step
from routed.agent.members import Own, enforced, unknown
from routed.agent.told import Known, Members

WEB, DB = "app == 'web'", "app == 'db'"
NEEDS = Needs(frozenset([WEB, DB]), frozenset([("http", WEB)]))


class Service:
    """Tells what it is made to tell; `asked` is what it was asked for."""

    server = "https://service"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    @asynccontextmanager
    async def stream(self, method: str, path: str, *, json: dict[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(json)
        yield self

    async def aiter_lines(self) -> AsyncIterator[str]:
        while (line := await self.lines.get()) is not None:
            yield json.dumps(line)

    async def leave(self, server: str) -> bool:
        return False

    def say(self, kind: str, selector: str, version: str, *add: str, **more: Any) -> None:
        line = {"type": kind, "selector": selector, "version": version, "add": add, "revision": 9}
        self.lines.put_nowait({**line, **more})


def addresses(held: Members, of: Any) -> set[str]:
    return set(map(str, held.known[of].entries.addresses))


def test_what_is_told_is_kept_for_the_next_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.0)
    path = tmp_path / "members.json"

    async def body() -> None:
        service, changes = Service(), 0

        def changed() -> None:
            nonlocal changes
            changes += 1

        held = Members(path, "h1", service)  # type: ignore[arg-type]
        held.load()
        held.need(NEEDS)
        assert unknown(NEEDS, held.known) == NEEDS
        serving = asyncio.create_task(held.serve(changed))
        service.say("WHOLE", WEB, "1", "10.0.0.1", "10.0.0.2", "fd00::1")
        service.say("WHOLE", DB, "5", "192.0.2.0/24")
        service.say("WHOLE", WEB, "7", "10.0.0.1,tcp:80", port="http")
        await until("all being told", lambda: len(held.known) == 3)
        assert changes == 3
        service.say("DELTA", WEB, "2", "10.0.0.3", remove=["10.0.0.1"])
        service.lines.put_nowait({"type": "BOOKMARK", "revision": "9"})
        await until("the change", lambda: held.known[WEB].version == "2")
        assert addresses(held, WEB) == {"10.0.0.2", "10.0.0.3", "fd00::1"}
        await until("the copy", lambda: b'"version": "2"' in path.read_bytes())
        service.lines.put_nowait(None)
        await until("why", lambda: held.problem)
        await until("it being asked again", lambda: len(service.asked) == 2)
        assert {one["version"] for one in service.asked[1]["selectors"]} == {"2", "5"}
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

        following = Members(path, "h1", None)
        following.load()
        assert following.known == held.known
        assert path.stat().st_mode & 0o777 == 0o600
        another = Members(path, "h2", None)
        another.load()
        assert another.known == {}

    asyncio.run(body())


def test_what_has_not_changed_is_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    wire = module._wire

    def counted(subject: module.Subject, one: Known) -> dict[str, Any]:
        asked.append(subject)
        return wire(subject, one)

    monkeypatch.setattr(module, "_wire", counted)
    encoder, some = module.Encoder(), {WEB: known("10.0.0.1"), DB: known("10.0.0.2")}
    encoder.encode("h1", some, 9)
    asked.clear()
    after = {**some, DB: known("10.0.0.3"), ("http", WEB): Known(Entries(), "1")}
    path = tmp_path / "members.json"
    path.write_bytes(encoder.encode("h1", after, 10))
    assert asked == [DB, ("http", WEB)]
    held = Members(path, "h1", None)
    held.load()
    assert (held.known, held.revision) == (after, 10)


@pytest.mark.parametrize("text", ["", "[]", '{"members": 7}', '{"members": [{"selector": 1}]}'])
def test_an_unreadable_copy_is_moved_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(text)
    held = Members(path, "h1", None)
    held.load()
    assert (held.known, path.exists()) == ({}, False)
    assert (tmp_path / "members.json.bad").read_text() == text


def test_what_is_not_needed_for_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        held = Members(tmp_path / "members.json", "h1", None)
        held.need(NEEDS)
        held.known = dict.fromkeys((WEB, DB), Known(Entries(), "1"))
        held.need(Needs(frozenset([DB])))
        assert WEB in held.known, "for a while it is followed"
        monkeypatch.setattr(module, "LINGER_SECONDS", -1.0)
        held.need(Needs())
        assert held.known == {}

    asyncio.run(body())


def test_what_only_lingers_makes_room_before_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SUBJECTS_MOST", 2)

    async def body() -> None:
        held = Members(tmp_path / "members.json", "h1", None)
        for text in (WEB, DB):
            held.need(Needs(frozenset([text])))
            held.known[text] = Known(Entries(), "1")
        assert held.known.keys() == {WEB, DB}
        held.need(Needs(frozenset(["has(a)"])))
        assert held.known.keys() == {DB}, "what was needed last stays longest"
        held.need(Needs(frozenset(["has(a)", "has(b)", "has(c)"])))
        assert not held.known
        assert held._needed.keys() == {"has(a)", "has(b)", "has(c)"}, "what is needed is asked for"

    asyncio.run(body())


def test_what_an_earlier_agent_knew_is_followed_or_given_up_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "members.json"
    some = {WEB: known("10.0.0.1"), DB: known("10.0.0.2")}
    path.write_bytes(module.Encoder().encode("h1", some, 9))

    async def body() -> None:
        held = Members(path, "h1", None)
        held.load()
        monkeypatch.setattr(module, "LINGER_SECONDS", -1.0)
        held.need(Needs(frozenset([DB])))
        assert set(held.known) <= {DB}, "nobody tells of the other any more"

    asyncio.run(body())


def test_what_is_told_of_what_is_not_needed_any_more_is_told_again_later() -> None:
    async def body() -> None:
        service = Service()
        held = Selections(service)  # type: ignore[arg-type]
        held.need([WEB, DB])
        told = held.follow()
        line = asyncio.ensure_future(anext(told))
        await until("it being asked", lambda: len(service.asked) == 1)
        await asyncio.sleep(0)
        service.say("WHOLE", WEB, "1", "10.0.0.1")
        held.need([DB])  # while the line is on its way
        assert (await line).of == WEB
        held.need([WEB, DB])
        line = asyncio.ensure_future(anext(told))
        await until("it being asked again", lambda: len(service.asked) == 2)
        assert {"selector": WEB} in service.asked[1]["selectors"]
        line.cancel()
        await asyncio.gather(line, return_exceptions=True)

    asyncio.run(body())


def record(name: str, address: str, app: str, **more: Any) -> Attachment:
    return Attachment(
        id=name,
        name=name,
        node="h1",
        origin=Origin.NODE,
        addresses=[parse_address(address)] if address else [],
        labels={"app": app},
        **more,
    )


def known(*texts: str, ports: str = "") -> Known:
    entries = Entries(
        frozenset(parse_address(text) for text in texts if "/" not in text),
        frozenset(parse_cidr(text) for text in texts if "/" in text),
        frozenset({(parse_address(ports), 6, 80)} if ports else ()),
    )
    return Known(entries, "1")


def test_of_its_own_workloads_the_node_is_the_truth() -> None:
    http = WorkloadPort(name="http", port=8080)
    own = Own(
        [
            record("new", "10.0.0.9", "web", ports=[http]),
            record("reused", "10.0.0.1", "db"),
            record("hosts", "10.0.0.3", "db", mode=Mode.HOST),
            record("beside", "10.0.0.4", "web", mode=Mode.IPVLAN_L3),
            record("going", "10.0.0.5", "web", step=Step.DETACHING),
            record("shares", "", "web", mode=Mode.SHARED),
        ]
    )
    told = {
        WEB: known("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.0/24"),
        ("http", WEB): known(ports="10.0.0.1"),
    }
    found = own.membership(NEEDS, told)
    assert set(found.selectors) == {WEB}, "of what was never told, nothing is known"
    assert found.selectors[WEB] == Model(
        frozenset(map(parse_address, ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9"))),
        frozenset([parse_cidr("192.0.2.0/24")]),
    )
    assert found.ports == {("http", WEB): frozenset([(parse_address("10.0.0.9"), 6, 8080)])}
    assert unknown(NEEDS, told).selectors == {DB}


def test_endpoints_are_those_with_a_link_here_and_those_told_by_addresses() -> None:
    records = [
        record("web", "10.0.0.9", "web"),
        record("vm", "10.0.0.1", "db", mode=Mode.TAP),
        record("hosts", "10.0.0.3", "db", mode=Mode.HOST),
        record("beside", "10.0.0.4", "web", mode=Mode.IPVLAN_L3S, parent="eth0"),
        record("going", "10.0.0.5", "web", step=Step.DETACHING),
        record("shares", "", "web", mode=Mode.SHARED, shared_with="web"),
    ]
    found = {one.name: one for one in enforced(records)}
    assert set(found) == {"web", "vm", "beside", "going"}, "one that goes, until its link is gone"
    assert (found["beside"].link, found["beside"].addresses) == ("", {parse_address("10.0.0.4")})
    assert found["web"].link == records[0].host_interface
    assert found["web"].labels == {"app": "web"}
