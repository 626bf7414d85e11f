"""What differs on one node, how long it has to, and how that is said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on, owned

from api.ipam.check import Finding
from api.resources import Workload
from api.resources.net import host_prefix, parse_address, parse_cidr
from api.resources.workload import Origin
from routed.agent import agreement, speakers
from routed.agent.agreement import SAID_MOST, Kind, Standing, Truths, differences
from routed.agent.attachment import Attachment, Step
from routed.agent.intent import Intent
from routed.kernel.fake import FakeKernel

ONE, FAR = parse_address("10.65.0.1"), parse_address("10.65.9.1")
BLOCK = owned(parse_cidr("10.65.0.0/26"))
RECORD = Attachment(
    id="web.h1", name="web", node="h1", origin=Origin.NODE, netns="web", addresses=[ONE]
)


def report(*addresses: str, origin: str = "Node") -> Workload:
    document = {
        "metadata": {"name": "web.h1"},
        "kind": "Workload",
        "spec": {"node": "h1", "origin": origin},
        "status": {"addresses": addresses},
    }
    return Workload.model_validate(document)


SOUND = Truths(
    intent=Intent(node_name="h1", blocks={BLOCK.metadata.name: BLOCK}),
    records={"web.h1": RECORD},
    ready={"web.h1": (ONE,)},
    expected=frozenset([host_prefix(ONE)]),
    stated=frozenset([host_prefix(ONE)]),
    reports={"web.h1": report("10.65.0.1")},
)
LEAVING = RECORD.model_copy(update={"step": Step.DETACHING})


def test_what_agrees() -> None:
    assert differences(SOUND) == {}
    assert differences(replace(SOUND, reports=None)) == {}, "the service is out of reach"
    gone = replace(SOUND, records={"web.h1": LEAVING}, ready={}, expected=frozenset(), reports={})
    assert differences(gone) == {}, "on its way out"
    declared = replace(
        SOUND, records={}, ready={}, expected=frozenset(), stated=frozenset(),
        reports={"web.h1": report("10.65.0.1", origin="API")},
    )  # fmt: skip
    assert differences(declared) == {}, "to be attached yet"


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"conflicts": {host_prefix(ONE): "X is announced"}}, Kind.CONFLICT, "X is announced"),
        ({"intent": Intent(node_name="h1")}, Kind.DIFFERENCE, "10.65.0.1 is in no block of h1"),
        ({"ready": {}}, Kind.DIFFERENCE, "10.65.0.1 has no route on h1"),
        ({"stated": frozenset()}, Kind.DIFFERENCE, "does not announce 10.65.0.1/32"),
        ({"lacking": SOUND.stated}, Kind.DIFFERENCE, "its speaker does not announce 10.65.0.1/32"),
        (
            {"extra": frozenset([host_prefix(FAR)])},
            Kind.DIFFERENCE,
            "announces 10.65.9.1/32, which",
        ),
        ({"reports": {}}, Kind.REPORT, "is attached on h1, and not reported"),
        ({"reports": {"web.h1": report("10.65.9.1")}}, Kind.REPORT, "reported is another"),
        (
            {"reports": {**(SOUND.reports or {}), "old.h1": report("10.65.0.9")}},
            Kind.REPORT,
            "is reported, and not attached on h1",
        ),
    ],
)
def test_what_does_not(change: dict[str, Any], kind: Kind, says: str) -> None:
    found = differences(replace(SOUND, **change))
    assert [(one.message, of) for one, of in found.items() if says in one.message and of is kind]
    assert len(found) == 1, "and nothing else"


def finding(text: str = "x") -> Finding:
    return Finding("nodes", "h1", text)


def test_a_difference_has_to_stand_for_a_while() -> None:
    standing, one = Standing(), finding()
    found = {one: Kind.CONFLICT}
    assert standing.update(found, 10.0) == ([], [])
    assert standing.due(found) == 10.0 + Kind.CONFLICT.seconds
    assert standing.update({}, 10.5) == ([], []), "it was only for a moment"
    assert standing.update(found, 11.0) == ([], [])
    assert standing.update(found, 10.0 + Kind.CONFLICT.seconds) == ([], []), "not all the time"
    assert standing.update(found, 11.0 + Kind.CONFLICT.seconds) == ([one], [])
    assert standing.due(found) is None
    assert standing.update(found, 20.0) == ([], []), "said once"
    assert standing.update({}, 21.0) == ([], [one]), "over at once"


def test_an_alarm_that_another_switch_shows_as_well_is_the_same() -> None:
    standing, first, more = Standing(), finding("seen at a"), finding("seen at a, b")
    first, more = (replace(one, about="10.65.0.1/32") for one in (first, more))
    standing.update({first: Kind.CONFLICT}, 10.0)
    assert standing.update({more: Kind.CONFLICT}, 10.0 + Kind.CONFLICT.seconds) == ([more], [])
    assert standing.update({first: Kind.CONFLICT}, 12.0) == ([], [])
    assert list(standing.findings) == [first], "as it is now"
    assert standing.update({}, 13.0) == ([], [first])
    prefix = parse_cidr("10.65.0.1/32")
    said = [f"{prefix} is announced by AS 1 (seen at {where})" for where in ("a", "a, b")]
    found = [one for text in said for one in differences(replace(SOUND, conflicts={prefix: text}))]
    assert found[0].identity == found[1].identity


def test_an_alarm_is_in_time() -> None:
    """Within five seconds, with a second each for the next look and for the report."""
    assert Kind.CONFLICT.seconds <= 5.0 - 3.0


def test_how_it_is_said(tmp_path: Path) -> None:
    async def body() -> None:
        agent = agent_on(FakeKernel(), tmp_path)
        agreement = agent.agreement
        assert agreement.condition().status == "Unknown", "nothing was read back yet"
        agent.rounds = 1
        assert agreement.condition().reason == "NoSpeaker"
        agent.speech.connected = agent.speech.received_whole = True
        assert agreement.condition().status == "True"
        for number in range(30):
            prefix = parse_cidr(f"10.65.0.{number}/32")
            agent.conflicts.found[prefix] = f"{prefix} is announced by AS 1"
        agreement.look(0.0)
        assert agreement.condition().status == "True", "not for long enough"
        agreement.look(Kind.CONFLICT.seconds)
        said = agreement.condition()
        assert (said.status, said.reason) == ("False", "AddressConflict")
        assert said.message.endswith(f"; and {30 - SAID_MOST} more")
        assert said.message.count(" is announced by ") == SAID_MOST
        assert len(agreement.findings) == 30
        assert agreement.counts() == {"conflict": 30, "difference": 0, "report": 0}
        agent.conflicts.found.clear()
        agreement.look(Kind.CONFLICT.seconds)
        assert agreement.condition().status == "True"

    asyncio.run(body())


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("application/json", '{"items": ["10.65.0.1/32"]}', frozenset([host_prefix(ONE)])),
        ("application/json", '{"items": ["10.65.0.1/31"]}', None),
        ("application/json", "[]", None),
        ("text/plain; version=0.0.4", '{"items": []}', None),  # an older one answers so to all
    ],
)
def test_what_a_speaker_says_that_it_announces(
    kind: str, text: str, told: object, tmp_path: Path
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()

    async def body() -> None:
        settings = agent_on(FakeKernel(), tmp_path).settings
        assert await speakers.told(settings) is None, "there is none"
        async with await asyncio.start_unix_server(answer, settings.speaker_metrics_socket):
            assert await speakers.told(settings) == told

    asyncio.run(body())


def test_looks_that_take_long_are_further_apart_but_an_alarm_is_still_in_time() -> None:
    assert [agreement.pause(took) for took in (0.0, 0.001, 0.02, 1.0)] == [0.5, 0.5, 1.0, 2.0]
    assert Kind.CONFLICT.seconds + 1.0 + agreement.LOOK_MOST < 5
