"""A real dockerd with its own iptables on a lab host: workloads' traffic flows, and so do Docker's
own containers, whoever of the two comes first and whoever is restarted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.docker import Docker, dockerd, program
from support.labs import Workloads, doctor, node_conditions

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

PAIR = [
    "-N DOCKER-USER",
    "-A DOCKER-USER -i rt+ -m comment --comment routed -j ACCEPT",
    "-A DOCKER-USER -o rt+ -m comment --comment routed -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
]


@pytest.fixture
def docker(lab: Lab) -> Iterator[Docker]:
    """Docker on host1, started before the agent, as after a boot: it finds forwarding off,
    switches it on, and sets the policy of FORWARD to drop."""
    program("iptables", "iptables")
    host = f"{lab.top.name}-host1"
    agent = lab.agents["host1"]
    agent.stop()
    inside(host, "sysctl", "-qw", "net.ipv4.ip_forward=0")
    try:
        with dockerd(host) as found:
            yield found
    finally:
        agent.stop()
        inside(host, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for table in ("filter", "nat"):
            inside(host, "nft", "delete", "table", "ip", table, check=False)
        command("ip", "-n", host, "link", "del", "docker0", check=False)
        agent.start()
        wait_for("readiness", lambda: lab.ready("host1"))


def pings(lab: Lab, *addresses: str) -> bool:
    return all(lab.ping(lab.top.client, address) for address in addresses)


def test_traffic_flows_beside_docker(
    lab: Lab, workloads: Workloads, request: pytest.FixtureRequest
) -> None:
    host = f"{lab.top.name}-host1"
    first, second = (workloads.attach("host1", name)[1] for name in ("beside", "another"))
    wait_for("traffic before Docker", lambda: pings(lab, first, second))
    docker: Docker = request.getfixturevalue("docker")

    def user_chain() -> list[str]:
        return inside(host, "iptables", "-S", "DOCKER-USER").splitlines()

    assert "-P FORWARD DROP" in inside(host, "iptables", "-S", "FORWARD")
    assert not lab.ping(lab.top.client, first), "Docker's firewall is real"
    code, found = doctor(lab)
    assert found["firewall: ip filter"]["verdict"] == "warn"
    assert code == 0, "an agent that is started opens it"

    lab.agents["host1"].start()
    wait_for("traffic beside Docker", lambda: pings(lab, first, second), 10)
    assert user_chain() == PAIR
    wait_for("readiness", lambda: node_conditions(lab)["Ready"]["status"] == "True", 10)
    assert node_conditions(lab)["ForwardBlocked"]["status"] == "False"
    assert doctor(lab)[1]["firewall"]["verdict"] == "ok"

    docker.import_busybox()
    said = docker.run("run", "--rm", "busybox", "/bin/ip", "addr").stdout
    assert "inet 172.17.0.2/16" in said, "iptables must understand our rules for Docker to go on"

    inside(host, "iptables", "-F", "DOCKER-USER")
    inside(host, "iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    wait_for("the pair being back", lambda: user_chain() == PAIR, 5)
    assert pings(lab, first, second)

    docker.stop()
    assert pings(lab, first, second)
    docker.start()
    assert pings(lab, first, second), "a restarted Docker leaves its chain to others"
    docker.run("run", "-d", "--name", "own", "-p", "8080:80", "busybox", "/bin/sleep", "600")
    own = docker.inspect("own")["NetworkSettings"]["IPAddress"]
    assert lab.ping(host, own)
    assert "-i docker0" in inside(host, "iptables-save")
    _, third = workloads.attach("host1", "later")
    wait_for("traffic of a new workload", lambda: pings(lab, third))
    wait_for("the pair being alone", lambda: user_chain() == PAIR, 5)

    lab.agents["host1"].kill()
    assert user_chain() == PAIR, "nobody removes it"
    assert pings(lab, first, second, third)
