"""The metrics of agent, speaker and service, in a lab at work; docs/metrics.md lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.labs import Workloads, ctl

from api.auth import kubeconfig
from routed.lab.fabric import inside
from routed.lab.lab import PORT, Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> tuple[dict[str, str], Samples]:
    """Family to type, and every sample."""
    families = {}
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        families[family.name] = family.type
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return families, samples


def of_host(lab: Lab) -> tuple[dict[str, str], Samples]:
    answer = lab.local("host1").get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return parsed(answer.text)


def of_service(lab: Lab) -> str:
    token = kubeconfig.read(lab.admin).token
    header = lab.directory / "metrics.header"
    header.touch(mode=0o600)
    header.write_text(f"Authorization: Bearer {token}\n", encoding="ascii")
    url = f"https://{lab.top.server}:{PORT}/metrics"
    return inside(lab.top.management, "curl", "-sk", "-H", f"@{header}", url)


def test_what_is_counted(lab: Lab, workloads: Workloads) -> None:
    _, before = of_host(lab)
    workloads.attach("host1", "metered")
    refused = lab.local("host1").post(
        "/v1/attachments", json={"name": "x", "netns": "/run/netns/none-of-that-name"}
    )
    assert refused.status_code == 422
    _, after = of_host(lab)
    attaches = ("routed_operation_seconds_count", frozenset({("operation", "attach")}))
    assert after[attaches] == before.get(attaches, 0) + 1
    none: frozenset[tuple[str, str]] = frozenset()
    assert after["routed_attachments", none] == before["routed_attachments", none] + 1
    assert after["routed_bgp_sessions", frozenset({("state", "Established")})] == 2
    tor = frozenset({("peer", "tor1")})
    assert after["routed_speaker_session_established", tor] == 1
    assert after["routed_speaker_exabgp_starts_total", none] >= 1
    assert lab.local("host1").delete("/v1/attachments/metered").status_code == 200


def test_the_service_counts_its_requests(lab: Lab) -> None:
    ctl(lab, "get", "nodes")
    _, samples = parsed(of_service(lab))
    labels = frozenset({("method", "GET"), ("resource", "nodes"), ("code", "200")})
    assert samples["routed_api_requests_total", labels] >= 1
    assert samples["routed_api_watches", frozenset({("resource", "nodes")})] == 2, "one an agent"
    url = f"https://{lab.top.server}:{PORT}/metrics"
    code = inside(lab.top.management, "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url)
    assert code == "401", "nobody reads them without a token"


def test_every_metric_is_documented_and_nothing_else(lab: Lab, workloads: Workloads) -> None:
    workloads.attach("host1", "metered")
    documented = set(re.findall(r"^\| `(\w+)`", DOCUMENTED.read_text(encoding="utf-8"), re.M))
    host, _ = of_host(lab)
    service, _ = parsed(of_service(lab))
    found = {
        f"{name}_total" if kind == "counter" else name for name, kind in {**host, **service}.items()
    }
    assert found == documented


def test_the_speaker_answers_without_an_agent(lab: Lab) -> None:
    agent = lab.agents["host1"]
    agent.stop()
    try:
        path = lab.directory / "host1" / "run" / "speaker-metrics.sock"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            answer = client.get("http://speaker/metrics")
        assert 'routed_speaker_session_established{peer="tor1"} 1.0' in answer.text
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        agent.start()
        wait_for("the agent being ready", lambda: lab.ready("host1"))
