"""Certificates that live for seconds: renewed in time, outlived by an outage, ended by deletion."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.labs import EXAMPLES, Workloads, ctl, doctor

from api.auth import kubeconfig
from api.auth.certificates import Life, life_of
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

SECONDS = 12


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = tmp_path_factory.mktemp("server") / "server.yaml"
    settings.write_text(f"certificateSeconds: {SECONDS}\n")
    found = Lab(f"c{os.getpid() % 100_000}")
    found.server.words += ["--config", str(settings)]
    try:
        found.up()
        ctl(found, "apply", "-f", str(EXAMPLES))
        wait_for("every session being up", found.established)
        yield found
    finally:
        found.down()


@pytest.fixture
def workloads(lab: Lab) -> Iterator[Workloads]:
    with Workloads(lab) as found:
        yield found


def life(lab: Lab, host: str = "host1") -> Life:
    return life_of(kubeconfig.read(lab.directory / host / "node.kubeconfig").certificate)


def status(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = lab.local("host1").get("/v1/status").json()
    return found


def in_sync(lab: Lab) -> Callable[[], bool]:
    return lambda: status(lab)["controlPlane"] == "in sync"


def objects(lab: Lab, kind: str) -> list[tuple[str, str]]:
    """Names and uids of what host1 has of a kind."""
    items = json.loads(ctl(lab, "get", kind, "-o", "json"))["items"]
    own = [one for one in items if "host1" in (one["metadata"]["name"], one["spec"].get("node"))]
    return sorted((one["metadata"]["name"], one["metadata"]["uid"]) for one in own)


def test_renewed_in_time_and_the_watches_go_on(lab: Lab) -> None:
    issued, ends = [life(lab)], time.time() + 2.5 * SECONDS
    lost_since, longest, mode = 0.0, 0.0, 0
    while time.time() < ends:
        now = time.monotonic()
        if in_sync(lab)():
            lost_since = 0.0
        else:
            lost_since = lost_since or now
            longest = max(longest, now - lost_since)
        mode |= (lab.directory / "host1" / "node.kubeconfig").stat().st_mode & 0o777
        if (found := life(lab)) != issued[-1]:
            assert time.time() < issued[-1].expires, "before the one before ended"
            issued.append(found)
        time.sleep(0.05)
    assert len(issued) >= 3
    assert longest < 1.5, "out of reach while the watches were opened anew"
    assert mode == 0o600
    namespace = lab.workload_namespace("host1", "declared")
    ctl(lab, "attach", "declared", "--node", "host1", "--netns", namespace)
    wait_for("what is declared arriving", lambda: lab.local("host1").get(
        "/v1/attachments/declared").status_code == 200, 5)  # fmt: skip
    ctl(lab, "detach", "declared", "--node", "host1")


def join(lab: Lab, host: str) -> None:
    held = next(one for one in lab.top.hosts if one.name == host)
    lab._join(held, lab.directory / host)


def test_an_outage_that_outlives_the_certificate_ends_with_joining_again(
    lab: Lab, workloads: Workloads
) -> None:
    _, address = workloads.attach("host1", "stays")
    wait_for("the report", lambda: len(objects(lab, "workloads")) == 1)
    before = {kind: objects(lab, kind) for kind in ("nodes", "ipblocks", "workloads")}
    assert before["ipblocks"]
    lab.server.stop()
    expires = max(life(lab, "host1").expires, life(lab, "host2").expires)
    wait_for("the certificates ending", lambda: time.time() > expires, SECONDS + 5)
    lab.server.start()
    lab.wait_server()
    wait_for("host1 saying so", lambda: "join again" in status(lab)["controlPlaneProblem"], 10)
    assert "join again" in lab.agents["host1"].log.read_text()
    assert not in_sync(lab)()
    code, found = doctor(lab)
    assert (code, found["credentials"]["verdict"]) == (1, "fail")
    assert "has expired" in found["credentials"]["found"]
    assert lab.ping(lab.top.client, address), "what runs goes on"
    join(lab, "host1")
    wait_for("host1 being in sync", in_sync(lab), 10)
    join(lab, "host2")
    assert {kind: objects(lab, kind) for kind in before} == before
    assert status(lab)["controlPlaneProblem"] == ""
    assert lab.ping(lab.top.client, address)
    workloads.attach("host1", "new")
    wait_for("the new one's report", lambda: len(objects(lab, "workloads")) == 2, 5)


def test_a_deleted_node_is_refused_until_it_joins_again(lab: Lab) -> None:
    path: Path = lab.directory / "host1" / "node.kubeconfig"
    wait_for("host1 being in sync", in_sync(lab), 10)
    node = objects(lab, "nodes")
    ctl(lab, "delete", "node", "host1", "--force", "--statement", "nothing is attached to it")
    wait_for("host1 being told", lambda: "not valid" in status(lab)["controlPlaneProblem"], 5)
    assert not in_sync(lab)()
    assert objects(lab, "nodes") == []
    held = path.read_bytes()
    join(lab, "host1")
    assert path.read_bytes() != held
    wait_for("host1 being registered", lambda: len(objects(lab, "nodes")) == 1, 10)
    assert objects(lab, "nodes") != node
    wait_for("host1 being in sync", in_sync(lab), 10)
