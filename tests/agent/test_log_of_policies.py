"""The policy log: lines of what real packets were denied or logged, and what is not in any line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on, play, until
from support.compiled import policy
from support.flows import entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace
from support.nflog import Log

from api.resources.policy import Tier
from policies import nflog
from policies.compile.chains import LOG_GROUP
from policies.compile.compiler import compiled
from policies.logged import Logged
from policies.model import Endpoint, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import plan
from routed.agent import policylog
from routed.agent.agent import Agent
from routed.agent.enforcing import Wanted
from routed.agent.policylog import PolicyLog
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel
from routed.kernel.linux import LinuxKernel
from routed.state import HostState, host_interface_name

pytestmark = pytest.mark.root
ADDRESSES = {"a.h": "10.65.0.1", "b.h": "10.65.0.2"}
LINKS = {name: host_interface_name(name) for name in ADDRESSES}
LONG = ".".join(["p" + "x" * 60] * 4)
Spaces = dict[str, str]


@pytest.fixture
def spaces(namespaces: Callable[[str], str]) -> Spaces:
    return {name: namespaces(name[0]) for name in ADDRESSES}


def rule(action: str, port: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "protocol": "UDP", "destination": {"ports": [port]}, **more}


POLICIES = [
    policy("in", order=1, selector="is == 'b.h'", ingress=[
        rule("Log", 1), rule("Allow", 1), rule("Deny", 2), rule("Deny", 3, reject=True),
    ]),
    policy(LONG, order=2, selector="is == 'b.h'", ingress=[rule("Deny", 4)]),
    policy("out", tier="first", selector="is == 'a.h'", egress=[rule("Deny", 6)]),
]  # fmt: skip


async def put(spaces: Spaces, directory: Path, *, on: bool = True) -> tuple[PolicyLog, Path]:
    """Policies and workloads in this namespace; a log that does not listen yet."""
    ends = [Endpoint(name, {"is": name}, link=LINKS[name]) for name in ADDRESSES]
    first = {"metadata": {"name": "first"}, "spec": {"order": 1, "defaultAction": "Pass"}}
    made = plan([Tier.model_validate(first)], POLICIES, ends)
    Nft().sync(Nat(), compiled(made, Membership()))
    wanted = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
    await LinuxKernel().sync(HostState(endpoints=wanted))
    agent = agent_on(FakeKernel(), directory)
    agent.settings = agent.settings.model_copy(update={"policy_log": on})
    agent.guard.enforcement.wanted = Wanted(made)
    path = directory / "policy.log"
    return PolicyLog(agent, path), path


@contextlib.asynccontextmanager
async def listening(log: PolicyLog) -> AsyncIterator[None]:
    serving = asyncio.create_task(log.serve())
    await until("listening", lambda: log.listening)
    yield
    assert not serving.done()
    serving.cancel()


def send(spaces: Spaces, *ports: int) -> None:
    with entered(spaces["a.h"]):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for port in ports:
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(b"x", (ADDRESSES["b.h"], port))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_line_says_who_was_denied_what_and_by_which_rule(spaces: Spaces, tmp_path: Path) -> None:
    async def body() -> None:
        log, path = await put(spaces, tmp_path)
        async with listening(log):
            for number, port in enumerate((1, 2, 3, 4, 5, 6), 1):
                send(spaces, port)
                await until(f"line {number}", lambda number=number: len(lines(path)) == number)
        said = lines(path)
        flow = {"source": "10.65.0.1", "destination": "10.65.0.2", "protocol": "UDP"}
        ways = {"in": LINKS["a.h"], "out": LINKS["b.h"]}
        for port, action, direction, tier, name, index in (
            (1, "Log", "ingress", "default", "in", "0"),
            (2, "Deny", "ingress", "default", "in", "2"),
            (3, "Deny", "ingress", "default", "in", "3"),
            (4, "Deny", "ingress", "default", LONG, "0"),
            (5, "Deny", "ingress", "default", "", "default"),
            (6, "Deny", "egress", "first", "out", "0"),
        ):
            one = said[port - 1]
            assert one.pop("time").endswith("Z")
            assert one.pop("sourcePort") > 0
            assert one == {
                "action": action, "direction": direction, "tier": tier, "policy": name,
                "rule": index, "workload": "b.h" if direction == "ingress" else "a.h",
                **ways, **flow, "destinationPort": port,
            }  # fmt: skip
        assert log.heard == {"Deny": 5, "Log": 1}
        assert not log.lost.total()
        assert path.stat().st_mode & 0o777 == 0o600

    in_fresh_namespace(body)


def test_a_flood_is_limited_and_the_next_line_says_of_how_many(
    spaces: Spaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policylog, "RATE", 5.0)
    monkeypatch.setattr(policylog, "BURST", 2.0)

    async def body() -> None:
        log, path = await put(spaces, tmp_path)
        log._allowed = policylog.BURST
        async with listening(log):
            send(spaces, *(port for port in (2, 3, 4, 5, 6) for _ in range(10)))
            await until("all heard", lambda: log.heard["Deny"] == 50)
            assert 2 <= len(lines(path)) < 20
            assert log.lost["limit"] == 50 - len(lines(path)) > 0

            def told() -> bool:
                send(spaces, 1)
                return sum(one.get("suppressed", 0) for one in lines(path)) > 0

            await until("a line that says it", told)
            await until("as many as", lambda: log.lost.total() <= log.heard.total())
        suppressed = sum(one.get("suppressed", 0) for one in lines(path))
        assert suppressed + log._unsaid == log.lost.total()
        assert log.heard.total() == len(lines(path)) + log.lost["limit"]

    in_fresh_namespace(body)


def test_what_does_not_fit_into_the_socket_is_counted(
    spaces: Spaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nflog, "ROOM", 1)  # the least that there is
    monkeypatch.setattr(nflog, "SOON", 1)

    async def body() -> None:
        log, _ = await put(spaces, tmp_path)
        async with listening(log):
            ports = [port for port in (2, 3, 4, 5, 6) for _ in range(15)]
            send(spaces, *ports)  # nobody reads meanwhile
            sent = len(ports)

            async def one_more() -> None:
                nonlocal sent
                send(spaces, 1)
                sent += 1
                await asyncio.sleep(0.15)  # the kernel tells of ten in a second

            async with asyncio.timeout(20):
                while not log.lost["overrun"]:
                    await one_more()
                while log.heard.total() + log.lost["overrun"] < sent:
                    await one_more()
        assert log.heard.total() + log.lost["overrun"] == sent

    in_fresh_namespace(body)


def test_the_group_is_had_as_soon_as_somebody_else_lets_go_of_it(
    spaces: Spaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(policylog, "RETRY_SECONDS", 0.02)

    async def body() -> None:
        log, path = await put(spaces, tmp_path)
        other = Log(LOG_GROUP)
        serving = asyncio.create_task(log.serve())
        await until("a warning", lambda: "cannot be had" in caplog.text)
        assert not log.listening
        send(spaces, 2)
        assert other.until(1) == ["deny ingress default/in 2 "], "who is there goes on"
        other.close()
        await until("listening", lambda: log.listening)
        assert caplog.text.count("cannot be had") == 1
        send(spaces, 2)
        await until("a line", lambda: len(lines(path)) == 1)
        serving.cancel()

    in_fresh_namespace(body)


def test_a_file_that_cannot_be_written_stops_nothing(spaces: Spaces, tmp_path: Path) -> None:
    async def body() -> None:
        log, path = await put(spaces, tmp_path)
        path.mkdir()
        async with listening(log):
            send(spaces, 2)
            await until("it is counted", lambda: log.lost["file"] == 1)
            path.rmdir()
            send(spaces, 2)
            await until("a line", lambda: len(lines(path)) == 1)
        assert lines(path)[0]["suppressed"] == 1

    in_fresh_namespace(body)


def test_nobody_listens_who_was_not_asked_to(spaces: Spaces, tmp_path: Path) -> None:
    async def body() -> None:
        log, _ = await put(spaces, tmp_path, on=False)
        await log.serve()
        Log(LOG_GROUP).close()

    in_fresh_namespace(body)


def test_whose_policies_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of who has come since the last look, and of interfaces of the host."""
    links = {1: LINKS["a.h"], 2: host_interface_name("new.h1"), 3: "eth0"}
    monkeypatch.setattr(policylog, "_interface", lambda index: links.get(index, ""))

    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await agent.attach(AttachRequest.model_validate({"name": "new", "netns": "new"}))
        ends = [Endpoint("a.h", {"is": "b.h"}, link=LINKS["a.h"])]
        agent.guard.enforcement.wanted = Wanted(plan([], POLICIES[:1], ends))
        log = PolicyLog(agent, tmp_path / "policy.log")

        def whose(prefix: str, came_by: int, leaves_by: int) -> str:
            (line,) = log._taken(Logged(prefix, None, came_by, leaves_by, b""), 100.0)
            return str(json.loads(line)["workload"])

        assert whose("deny ingress default/in 2 ", 3, 1) == "a.h"
        assert whose("deny ingress ", 3, 1) == "a.h"
        assert whose("deny ingress edge/hosts 0 ", 3, 1) == "", "a host endpoint's, on its way"
        assert whose("deny egress default/in 2 ", 1, 3) == "", "nothing selects it there"
        assert whose("log ingress default/in 0 ", 3, 2) == "new.h1"
        assert whose("log egress default/in 0 ", 2, 3) == "new.h1"
        assert whose("deny ingress edge 0", 3, 0) == ""

    play(tmp_path, body, "new")
