"""A host that reboots while the service is down: nothing stale is announced, blocks are still
owned, and what was in use cools down first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from support.labs import Workloads, ctl, forget_routes

from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def test_a_reboot_without_the_service(
    lab: Lab, workloads: Workloads, status_of: Callable[[str], dict[str, Any]]
) -> None:
    namespace, first = workloads.attach("host2", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{first}/32"))
    wait_for("the report", lambda: status_of("a.host2")["addresses"] == [first])
    kept = [*(lab.directory / "host2").rglob("intent.json")]
    wait_for("the copy of it on disk", lambda: any(f'"{first}"' in one.read_text() for one in kept))
    agent, speaker = lab.agents["host2"], lab.speakers["host2"]
    lab.server.stop()
    try:
        agent.kill()
        speaker.kill()
        command("ip", "netns", "del", namespace)
        host = f"{lab.top.name}-host2"
        forget_routes(host)
        shutil.rmtree(lab.directory / "host2" / "run")
        speaker.start()
        agent.start()
        wait_for("the agent", lambda: lab.ready("host2"))
        wait_for("End-of-RIB having cleared what was stale", lambda: lab.tor_lacks(f"{first}/32"))
        assert lab.local("host2").get("/v1/attachments").json()["items"] == []
        _, second = workloads.attach("host2", "b")
        assert second != first, "the address of before cools down"
        assert second.rpartition(".")[0] == first.rpartition(".")[0], "of the same block"
        refused = lab.local("host2").post(
            "/v1/attachments",
            json={"name": "c", "netns": lab.workload_namespace("host2", "c"), "addresses": [first]},
        )
        assert refused.status_code == 409
        assert "cools down" in refused.json()["message"]
        wait_for("the switches knowing the new one", lambda: lab.tor_has(f"{second}/32"), 30)
    finally:
        lab.server.start()
        lab.wait_server()
    wait_for("the new one's report", lambda: status_of("b.host2")["addresses"] == [second])
    wait_for("the old one's end", lambda: "a.host2" not in ctl(lab, "get", "wl", "-o", "name"), 10)


def test_a_clean_shutdown_and_a_reboot_with_the_service(
    lab: Lab, workloads: Workloads, status_of: Callable[[str], dict[str, Any]]
) -> None:
    namespace, first = workloads.attach("host2", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{first}/32"))
    wait_for("the report", lambda: status_of("a.host2")["addresses"] == [first])
    agent, speaker = lab.agents["host2"], lab.speakers["host2"]
    agent.stop()
    assert lab.tor_has(f"{first}/32"), "the agent's stop changes nothing"
    speaker.stop()
    assert wait_for("the withdrawal", lambda: lab.tor_lacks(f"{first}/32"), 2) < 1
    command("ip", "netns", "del", namespace)
    forget_routes(f"{lab.top.name}-host2")
    shutil.rmtree(lab.directory / "host2" / "run")
    speaker.start()
    agent.start()
    wait_for("the agent", lambda: lab.ready("host2"))
    wait_for("the report's end", lambda: "a.host2" not in ctl(lab, "get", "wl", "-o", "name"), 10)
    assert lab.tor_lacks(f"{first}/32")
    _, second = workloads.attach("host2", "b")
    assert second != first, "the address of before cools down"
    wait_for("the switches knowing the new one", lambda: lab.tor_has(f"{second}/32"), 30)
