"""A control plane and a speaker of this release, and what a newer agent says to them."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.agents import NODE, client_file, running_agent, speaking, until
from support.between import Between, Document, client_of
from support.service import Service

from api.resources.net import parse_cidr
from routed.agent.request import AttachRequest
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel

# an agent that is stopped while it connects leaves a transport to the collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def more(document: Document) -> Document:
    """As a newer agent would say it: a field more in every map, and a phase more."""
    made = copy.deepcopy(document)
    for part in (made, made.get("metadata"), made.get("spec"), made.get("status")):
        if part is not None:
            part["fromTheFuture"] = {"a": [1, None]}
    status = made.get("status", {})
    for condition in status.get("conditions", ()):
        condition["severity"] = "high"
    if "phase" in status:
        status["phase"] = "Migrating"
    return made


def test_reports_of_a_newer_agent_are_kept_without_what_is_not_known(
    service: Service, passing: Between, home: Path
) -> None:
    """And without an end of reports and deletions of what the agent finds other than it said."""

    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        async with running_agent(home, client_of(client_file(home), passing), kernel) as agent:
            await until("the agent being in sync", lambda: agent.control.in_sync)
            passing.asked = lambda document: (
                document if document.get("kind") == "IPBlock" else more(document)
            )
            wanted = {"name": "web", "netns": "web", "labels": {"app": "web"}}
            await agent.attach(AttachRequest.model_validate(wanted))
            reports = agent.control.known.reports
            await until("the report", lambda: "web.h1" in reports)
            with service.http() as admin:
                await until("the node", lambda: admin.get(f"/nodes/{NODE}").json()["status"])
                uid = admin.get("/workloads/web.h1").json()["metadata"]["uid"]
                settled = len(passing.writes())
                for _ in range(3):  # looks at everything
                    agent.report_due({"web.h1"})
                    agent.control.wake()
                    await asyncio.sleep(1.1)  # the time between two counts
                now = admin.get("/workloads/web.h1").json()
                assert now["metadata"]["uid"] == uid
                assert now["status"]["addresses"]
                assert "fromTheFuture" not in json.dumps(now)
            assert len(passing.writes()) - settled <= 6

    asyncio.run(body())
    assert all(one.status < 300 for one in passing.writes() if one.kind), [
        (one.path, one.answer) for one in passing.writes() if one.status >= 300
    ]
    assert not [one for one in passing.writes() if one.method == "DELETE" and "work" in one.path]


def test_what_is_not_known_of_a_report_is_warned_of(service: Service) -> None:
    with service.http() as admin:
        admin.post("/nodes", json={"metadata": {"name": NODE}, "spec": {}})
        workload: dict[str, Any] = {
            "metadata": {"name": f"web.{NODE}"},
            "spec": {"node": NODE, "origin": "Node", "priority": 7},
            "status": {"phase": "Migrating", "addresses": [], "since": 1},
        }
        made = admin.post("/workloads?fieldValidation=Warn", json=workload)
        assert made.status_code == 201, made.text
        said = made.headers.get_list("warning")
        assert [one.partition("unknown ")[2] for one in said] == [
            'field \\"spec.priority\\""',
            'field \\"status.since\\""',
            'value of \\"status.phase\\""',
        ]
        assert made.json()["status"]["phase"] == "Pending"
        # but what is asked for is not done in part, nor what decides taken for something else
        claim = {"spec": {"node": NODE, "pool": "main", "zone": "z"}}
        refused = admin.post("/ipblocks?fieldValidation=Strict", json=claim)
        assert refused.status_code == 400
        assert 'unknown field "spec.zone"' in refused.json()["message"]
        workload["metadata"]["name"] = f"db.{NODE}"
        workload["spec"]["mode"] = "quantum"
        refused = admin.post("/workloads?fieldValidation=Warn", json=workload)
        assert refused.status_code == 422
        assert "spec.mode" in refused.json()["message"]


def test_the_service_says_its_version_and_notes_that_of_agents(
    service: Service, home: Path, passing: Between
) -> None:
    async def body() -> str:
        client = client_of(client_file(home), passing)
        try:
            return await client.version()
        finally:
            await client.close()

    with service.http() as admin:
        answer = admin.get("/nodes")
    assert answer.headers["routed-version"] == asyncio.run(body()) == "0.1.0"
    with service.http(client_file(home)) as node:
        for version, warned in (("0.2.0", 0), ("0.4.0", 1), ("0.4.0", 1), ("0.1.9", 1)):
            node.get("/ippools", headers={"User-Agent": f"routed-agent/{version}"})
            log = (service.directory / "log").read_text()
            assert log.count("version skew node=h1") == warned, log
    assert "the agent of node h1 is of version 0.4.0" in log


def test_an_old_speaker_and_a_new_one(tmp_path: Path, service: Service, passing: Between) -> None:
    """The agent passes over what a newer speaker says more, and says which are too far apart."""
    begin = {"event": "begin", "revision": 1}
    session = {"event": "session", "peer": "tor1", "address": "192.0.2.1"}
    session |= {"state": "Established", "since": 1.0, "error": "", "bfd": {"state": "Up"}}
    path = {"event": "path", "peer": "tor1", "prefix": "10.65.9.0/24", "next_hops": ["192.0.2.1"]}
    end = {"event": "end", "revision": 1, "complete": True, "received": True}
    more = [
        {"event": "weather", "sky": "blue"},
        {**session, "state": "Restarting"},
        path | {"x": 1},
    ]
    cases = [(None, False), ("0.1.3", False), ("0.2.0", False), ("0.3.0", True), ("x", True)]

    async def body(number: int, version: str | None, far: bool) -> None:
        home = tmp_path / f"home{number}"
        home.mkdir()
        with service.http() as admin:
            client_file(home).write_text(admin.post(f"/nodes/{NODE}/credentials", json={}).text)
        first = begin if version is None else begin | {"version": version, "uptime": 3}
        async with (
            speaking(home / "speaker.sock", [first, session, *more, end]) as heard,
            running_agent(home, client_of(client_file(home), passing)) as agent,
        ):
            await until("its being told all", lambda: any(one["op"] == "end" for one in heard))
            assert agent.speech.connected
            assert agent.speech.sessions["tor1"].state == "Restarting"
            assert parse_cidr("10.65.9.0/24") in agent.speech.paths
            said = next(one for one in conditions(agent) if one.type == "VersionSkew")
            assert (said.status, said.reason) == (
                ("True", "Speaker") if far else ("False", "Supported")
            )
            assert agent.versions().get("speaker") == version

    for number, case in enumerate(cases):
        asyncio.run(body(number, *case))
