"""Policies of the hosts of a whole fabric: what denies everything cuts off no session of the
switches, no agent from the control plane, no SSH, and nobody's workloads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.flows import connected, listen
from support.labs import Workloads, ctl, node_conditions

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

PORT, SSH = 7000, 22
DENY = [{"action": "Deny"}]


def _policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "routed.dev/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "shut"},
        "spec": {"selector": "role == 'host'", "types": ["Ingress", "Egress"], **spec},
    }


def _apply(lab: Lab, *documents: dict[str, Any]) -> None:
    path = lab.directory / "applied.json"
    for document in documents:
        path.write_text(json.dumps(document))
        ctl(lab, "apply", "-f", str(path))


@contextmanager
def _shut(lab: Lab, **spec: Any) -> Iterator[None]:
    """Every interface of every host, both ways."""
    ends = [
        {
            "apiVersion": "routed.dev/v1",
            "kind": "HostEndpoint",
            "metadata": {"name": host.name, "labels": {"role": "host"}},
            "spec": {"node": host.name, "interfaceName": "*"},
        }
        for host in lab.top.hosts
    ]
    _apply(lab, *ends, _policy(ingress=DENY, egress=DENY, **spec))
    try:
        yield
    finally:
        ctl(lab, "delete", "networkpolicy", "shut")
        for end in ends:
            ctl(lab, "delete", "hostendpoint", end["metadata"]["name"])


def _reaches(namespace: str, address: str, port: int) -> bool:
    try:
        connected(namespace, address, port, 0.5).close()
    except OSError:
        return False
    return True


def _since(lab: Lab) -> dict[str, Any]:
    """Since when each session is up, by host and peer."""
    found = {}
    for host in lab.top.hosts:
        for one in lab.local(host.name).get("/v1/status").json()["bgp"]["sessions"]:
            if one["state"] == "Established":
                found[f"{host.name} {one['peer']}"] = one["since"]
    return found


def test_what_denies_all_cuts_nobody_off(
    lab: Lab, workloads: Workloads, serving: list[subprocess.Popen[str]]
) -> None:
    host = lab.top.hosts[0]
    serving += [listen(host.namespace, host.management, port) for port in (PORT, SSH)]
    _, far = workloads.attach("host1", "far")
    near, _ = workloads.attach("host2", "near")
    serving.append(listen(workloads.namespace("host1", "far"), far, PORT))
    assert _reaches(lab.top.management, host.management, PORT)
    before = _since(lab)
    with _shut(lab):
        wait_for("the policy", lambda: not _reaches(lab.top.management, host.management, PORT))
        assert _reaches(lab.top.management, host.management, SSH)
        assert not lab.ping(lab.top.management, host.management)
        assert _reaches(near, far, PORT), "what hosts forward is judged by workloads' policies"
        assert _since(lab) == before, "no session has ended"
        # what has to begin anew does: neighbours, sessions, the agent's own connections
        inside(host.namespace, "ip", "neigh", "flush", "all")
        inside(host.namespace, "ip", "-6", "neigh", "flush", "all")
        speaker, agent = lab.speakers["host1"], lab.agents["host1"]
        speaker.stop()
        agent.kill()
        wait_for("sessions being down", lambda: lab.tor_lacks(f"{far}/32"))
        speaker.start()
        agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))
        wait_for("every session being up", lab.established, 30)
        wait_for("its routes", lambda: lab.tor_has(f"{far}/32"))
        wait_for("it being said", lambda: _said(lab) == "True")
        assert not _reaches(lab.top.management, host.management, PORT)
        late, _ = workloads.attach("host1", "late")
        assert _reaches(late, far, PORT)
        inside(host.namespace, "nft", "flush", "ruleset")
        wait_for("it being back", lambda: "policy-host-in" in _chains(host.namespace))
        assert not _reaches(lab.top.management, host.management, PORT)
    wait_for("it being open", lambda: _reaches(lab.top.management, host.management, PORT))
    assert "policy-host-in" not in _chains(host.namespace)


def test_what_is_forwarded_is_denied_where_policies_are_for_that(
    lab: Lab, workloads: Workloads, serving: list[subprocess.Popen[str]]
) -> None:
    _, far = workloads.attach("host1", "far")
    near, _ = workloads.attach("host2", "near")
    same, _ = workloads.attach("host1", "same")
    serving.append(listen(workloads.namespace("host1", "far"), far, PORT))
    assert _reaches(near, far, PORT)
    with _shut(lab, applyOnForward=True):
        wait_for("the policy", lambda: not _reaches(near, far, PORT))
        assert _reaches(same, far, PORT), "on one host, by no interface of it"
        assert lab.established()
    wait_for("it being open", lambda: _reaches(near, far, PORT))


def _said(lab: Lab) -> str:
    return node_conditions(lab).get("PoliciesEnforced", {}).get("status", "")


def _chains(namespace: str) -> str:
    return inside(namespace, "nft", "list", "chains")
