"""This release and what earlier ones wrote, said and left behind (support.recording)."""

from __future__ import annotations

import asyncio
import copy
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents import NODE
from support.between import Passed
from support.recording import POOLS, TOR, declare
from support.service import Service, running_service

from api.client import Unread, WatchEvent
from api.client.answers import shown, typed
from api.ipam.allocator import Cooling
from api.resources.registry import KINDS
from api.resources.versions import VERSION, minor_of
from api.store.sqlite import statements
from api.store.sqlite.store import SqliteStore
from bgp import wire
from bgp.agents import Agents
from routed.agent.attachment import Step
from routed.agent.cooling import CoolingLog
from routed.agent.intent import LATER, WATCHED, apart, parse
from routed.agent.known import Known
from routed.agent.records import Records

BASE = "/apis/routed.dev/v1"
FIXTURES = Path(__file__).with_name("fixtures")
RELEASES = sorted(path.name for path in FIXTURES.iterdir())
SCHEMAS = sorted(Path(__file__).parents[1].joinpath("store").glob("schema*.sql"))


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Path:
    return FIXTURES / str(request.param)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def conversation(release: Path) -> list[Passed]:
    return [Passed(**one) for one in lines_of(release / "conversation.jsonl")]


def plural_of(passed: Passed) -> str:
    return passed.path.removeprefix(f"{BASE}/").partition("?")[0].partition("/")[0]


def test_there_is_a_recording_of_this_minor_release() -> None:
    found = minor_of(VERSION)
    assert found
    assert f"{found[0]}.{found[1]}" in RELEASES


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path) as found:
        with found.http() as admin:
            declare(admin)
        yield found


def test_the_requests_of_an_earlier_agent_are_answered_as_they_were(
    release: Path, service: Service
) -> None:
    writes = [one for one in conversation(release) if one.method not in ("GET",)]
    assert {one.method for one in writes} >= {"POST", "DELETE"}
    with service.http() as admin:
        made = admin.post(f"/nodes/{NODE}/credentials", json={})
        assert made.status_code < 300
        with service.http(token=_token(made.text)) as node:
            for passed in writes:
                _declared(admin, passed)
                body = _as_it_is_now(admin, passed)
                answer = node.request(
                    passed.method,
                    passed.path.removeprefix(BASE),
                    content=json.dumps(body) if body is not None else b"",
                    headers={"content-type": passed.kind} if passed.kind else {},
                )
                said = (passed.method, passed.path, answer.text)
                assert answer.status_code == passed.status, said
                assert _fields(passed.answer) <= _fields(answer.json()), said
        node_now = admin.get(f"/nodes/{NODE}").json()
    assert {"Ready", "BGPEstablished"} <= {c["type"] for c in node_now["status"]["conditions"]}


def _token(text: str) -> str:
    return text.partition("token:")[2].split()[0].strip("\"'")


def _declared(admin: httpx.Client, passed: Passed) -> None:
    if passed.path.startswith(f"{BASE}/workloads/declared/status"):
        spec = {"node": NODE, "netns": "declared"}
        admin.post("/workloads", json={"metadata": {"name": "declared"}, "spec": spec})


def _as_it_is_now(admin: httpx.Client, passed: Passed) -> Any:
    """The body with the revision, the uid and the epoch that the object has here."""
    body = copy.deepcopy(passed.body)
    at = passed.path.removeprefix(BASE).partition("?")[0].removesuffix("/status")
    if at.count("/") < 2 or not isinstance(body, dict):
        return body
    held = admin.get(at).json()
    metadata = held["metadata"]
    if "epoch" in (body.get("spec") or {}):
        body["spec"]["epoch"] = held["spec"]["epoch"]
    if "preconditions" in body:
        body["preconditions"]["uid"] = metadata["uid"]
    elif "metadata" in body:
        body["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    return body


def _fields(document: Any, path: str = "") -> set[str]:
    """Where a reader finds something in a document."""
    if isinstance(document, dict):
        return {at for name, one in document.items() for at in _fields(one, f"{path}.{name}")} | {
            path
        }
    return {path}


def test_the_answers_of_an_earlier_control_plane_are_understood(release: Path) -> None:
    known = Known(NODE)
    for passed in conversation(release):
        plural = plural_of(passed)
        if passed.lines:
            model = KINDS[plural].model
            known.take(plural, WatchEvent("BEGIN"))
            whole = False
            for line in passed.lines:
                if line["type"] == "BOOKMARK":
                    if not whole:
                        known.take(plural, WatchEvent("END"))
                    whole = True
                    continue
                held = shown(model, line["object"])
                assert not isinstance(held, Unread), held
                known.take(plural, WatchEvent(line["type"], held))
        elif passed.method in ("POST", "PUT", "PATCH"):
            typed(KINDS[plural].model, passed.answer)
    assert known.whole | LATER == set(WATCHED)
    assert not known.unread
    stored, reports = parse((release / "intent.json").read_bytes())
    assert set(known.intent().pools) == set(stored.pools) == set(POOLS)
    assert set(known.reports) == set(reports) == {"web.h1"}
    assert set(known.declared) == set(stored.declared) == {"declared"}
    assert known.blocks.keys() == stored.blocks.keys()
    assert stored.reservations["gateways"].spec.reserved_cidrs
    assert stored.peers["tor1"].spec.peer_ip == TOR
    assert apart({**known.declared, **known.reports}) == (known.declared, known.reports)


def test_the_files_of_an_earlier_agent_are_read(release: Path, tmp_path: Path) -> None:
    directory = tmp_path / "attachments"
    directory.mkdir()
    (directory / "web.h1.json").write_bytes((release / "attachment.json").read_bytes())
    records = Records(directory)
    records.load()
    held = records.get("web.h1")
    assert held is not None
    assert not records.unreadable
    assert (held.netns, held.if_name, held.step) == ("/run/netns/web", "eth0", Step.ATTACHED)
    assert len(held.addresses) == 2
    boot = (release / "cooling.log").read_bytes().splitlines()[0]
    cooling, same_boot = CoolingLog(release / "cooling.log", boot).load()
    assert same_boot
    assert len(cooling) == 2
    assert all(isinstance(one, Cooling) for one in cooling.values())


class Speaker:
    """What `Agents` tells the speaker of what an agent says."""

    def __init__(self) -> None:
        self.complete = self.received_whole = False
        self.peers: dict[str, Any] = {}
        self.wanted: dict[Any, Any] = {}
        self.synced: list[int] = []
        self.sessions: dict[str, Any] = {}
        self.inbound: dict[Any, Any] = {}

    def set_peers(self, peers: dict[str, Any]) -> None:
        self.peers = dict(peers)

    def change(self, changes: dict[Any, Any], *, whole: bool = False) -> None:
        self.wanted = {} if whole else self.wanted
        for prefix, one in changes.items():
            self.wanted.pop(prefix, None) if one is None else self.wanted.update({prefix: one})

    def sync(self, writer: asyncio.StreamWriter, token: int) -> None:
        self.synced.append(token)
        writer.write(wire.event(wire.Synced(token)))


def test_an_earlier_agent_is_understood_by_the_speaker(release: Path, tmp_path: Path) -> None:
    speaker = Speaker()
    told(speaker, tmp_path, [one for one in lines_of(release / "speaker.jsonl") if "op" in one])
    assert speaker.complete
    assert set(speaker.peers) == {"tor1"}
    assert speaker.synced
    assert len(speaker.wanted) == 3  # two addresses of web, one of the declared one
    assert all(one.link.startswith("rt") for one in speaker.wanted.values())


def told(speaker: Any, directory: Path, operations: list[Any]) -> list[Any]:
    """Say all that to the speaker's socket, and a sync; what it answered."""

    async def body() -> list[Any]:
        agents = Agents(speaker)
        serving = asyncio.create_task(agents.serve(directory / "speaker.sock"))
        while not (directory / "speaker.sock").exists():
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(directory / "speaker.sock")
        for one in [*operations, {"op": "sync", "token": 99}]:
            writer.write(json.dumps(one).encode() + b"\n")
        answers: list[Any] = []
        async with asyncio.timeout(10):
            while not answers or answers[-1].get("token") != 99:
                line = await reader.readline()
                assert line, f"the connection was ended after {answers}"
                answers.append(json.loads(line))
        serving.cancel()
        writer.close()
        await asyncio.gather(serving, return_exceptions=True)
        return answers

    return asyncio.run(body())


def test_an_earlier_speaker_is_understood_by_the_agent(release: Path) -> None:
    events = [one for one in lines_of(release / "speaker.jsonl") if "event" in one]
    read = [wire.parse_event(json.dumps(one).encode()) for one in events]
    assert not any(isinstance(one, wire.Unknown) for one in read)
    names = [type(one).__name__ for one in read]
    assert names == ["Begin", "Session", "Path", "End", "Unpath", "LinkDown"]


def test_nothing_is_said_to_a_speaker_that_an_earlier_one_ends_a_connection_over() -> None:
    """Those before 0.1 took no field that they did not know."""
    said = {
        one["op"]: set(one)
        for one in lines_of(FIXTURES / "unsaid" / "speaker.jsonl")
        if "op" in one
    }
    now = {
        one["op"]: set(one) for one in lines_of(FIXTURES / "0.1" / "speaker.jsonl") if "op" in one
    }
    assert now == said


@pytest.mark.parametrize("fixture", SCHEMAS, ids=lambda path: path.stem)
def test_a_file_of_every_schema_is_opened_and_upgraded(fixture: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.executescript(fixture.read_text(encoding="utf-8"))
    connection.close()

    async def body() -> None:
        store = SqliteStore(tmp_path / "s.db")
        _, items = await store.scan("")
        held = {item.key: item.value for item in items}
        assert held == {"/ippools/p": b'{"b":2}', "/nodes/n": b"{}"}
        at = {item.key: item.revision for item in items}["/nodes/n"]
        await store.commit({"/nodes/n": at}, {"/nodes/n": b"x"})
        await store.close()

    asyncio.run(body())
    connection = sqlite3.connect(tmp_path / "s.db")
    found = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    connection.close()
    assert (found["schema"], found["program"]) == (statements.VERSION, VERSION)


def test_there_is_a_file_of_every_schema() -> None:
    wanted = {f"schema{number}" for number in range(1, statements.VERSION + 1)}
    assert {path.stem for path in SCHEMAS} == wanted
