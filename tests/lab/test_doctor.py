"""`routed doctor` on a lab host, and the firewalls of others: what the remedy says, helps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.labs import Workloads, doctor, node_conditions

from routed.lab.fabric import command, inside, prefix
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

# as ufw does it, by iptables-nft: a policy, and no chain for others
UFW = """
table ip filter {
  chain ufw-before-forward { ct state established,related counter accept; }
  chain FORWARD { type filter hook forward priority filter; policy drop;
    counter jump ufw-before-forward
  }
}
"""
# as firewalld does it, in words that only nft knows
PLAIN = """
table inet wall {
  chain forward { type filter hook forward priority 10; policy drop;
    ct state established,related accept
  }
}
"""


def test_a_healthy_host(lab: Lab) -> None:
    code, found = doctor(lab)
    assert code == 0, found
    expected = ["rights", "kernel: veth", "kernel: nftables", "sysctl: ip_forward", "firewall"]
    expected += ["uplinks", "credentials", "control plane", "clock", "agent", "speaker"]
    expected += ["switch tor1", "switch tor2"]
    assert {check: found[check]["verdict"] for check in expected} == dict.fromkeys(expected, "ok")


def test_looking_costs_no_session(lab: Lab) -> None:
    """To a switch that knows graceful restart, a second connection is a speaker starting again."""

    def connections() -> list[str]:
        whole = ["ss", "-Htn", "state", "established", "dport", "=", "179"]
        return sorted(inside(f"{lab.top.name}-host1", *whole).split())

    before = connections()
    assert len([one for one in before if one.endswith(":179")]) == len(lab.top.tors)
    _, found = doctor(lab)
    assert connections() == before
    assert "has a connection" in found["switch tor1"]["found"]


def test_credentials_that_everybody_reads(lab: Lab) -> None:
    path = lab.directory / "host1" / "node.kubeconfig"
    path.chmod(0o644)
    try:
        code, found = doctor(lab)
        assert code == 1
        assert found["credentials"]["verdict"] == "fail"
        assert f"chmod 0600 {path}" in found["credentials"]["remedy"]
    finally:
        path.chmod(0o600)


def test_a_control_plane_that_is_down_is_no_reason_not_to_attach(lab: Lab) -> None:
    lab.server.stop()
    try:
        code, found = doctor(lab)
        assert code == 0
        assert found["control plane"]["verdict"] == "warn"
    finally:
        lab.server.start()
        lab.wait_server()


@pytest.fixture(params=[UFW, PLAIN], ids=["ufw", "plain"])
def walled(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """host1 with somebody's firewall; its table."""
    host = f"{lab.top.name}-host1"
    table = " ".join(request.param.split()[1:3])
    subprocess.run([*prefix(host), "nft", "-f", "-"], input=request.param, text=True, check=True)
    yield table
    command(*prefix(host), "nft", "delete", "table", *table.split())
    wait_for("readiness", lambda: lab.ready("host1"))


def test_a_foreign_drop_is_told_and_the_remedy_helps(
    lab: Lab, workloads: Workloads, walled: str
) -> None:
    _, address = workloads.attach("host1", "walled")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    wait_for("the node saying so", lambda: node_conditions(lab)["Ready"]["status"] == "False", 10)
    blocked = node_conditions(lab)["ForwardBlocked"]
    assert blocked["status"] == "True"
    assert walled in blocked["message"]
    assert not lab.ping(lab.top.client, address), "the firewall is real"
    code, found = doctor(lab)
    assert code == 1
    finding = found[f"firewall: {walled}"]
    assert finding["verdict"] == "fail"
    assert finding["remedy"].startswith("iptables -I" if walled == "ip filter" else "nft insert")
    for line in finding["remedy"].split("; "):
        inside(f"{lab.top.name}-host1", *line.split())
    wait_for("a ping from outside", lambda: lab.ping(lab.top.client, address), 5)
    wait_for(
        "the node being ready",
        lambda: node_conditions(lab)["ForwardBlocked"]["status"] == "False",
        10,
    )
    assert doctor(lab)[0] == 0


def test_ports_of_others(lab: Lab) -> None:
    host = f"{lab.top.name}-host1"
    _, found = doctor(lab)
    assert found["ports: BGP"]["verdict"] == "ok"
    assert found["ports: control plane"]["verdict"] == "ok"
    listen = "import socket, sys; l = [socket.create_server(('', p)) for p in (179, 6780)];"
    other = subprocess.Popen(
        [*prefix(host), sys.executable, "-c", f"{listen} print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        code, found = doctor(lab)
        other.communicate(b"\n")
    assert code == 0, "attaching works all the same"
    assert found["ports: BGP"]["verdict"] == "warn"
    assert f"(pid {other.pid}) listens" in found["ports: BGP"]["found"]
    assert found["ports: control plane"]["verdict"] == "warn"
