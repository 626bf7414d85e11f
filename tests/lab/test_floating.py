"""A floating address: the one of a lease, on an interface beside a workload's own, moved to a
workload on another node while both run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from support.flows import connected, heard, listen
from support.labs import Workloads

from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture
def ends() -> Iterator[Callable[..., None]]:
    servers = []

    def later(server: object) -> None:
        servers.append(server)

    yield later
    for server in servers:
        with server:  # type: ignore[attr-defined]
            server.kill()  # type: ignore[attr-defined]


def test_it_moves_between_workloads_that_run(
    lab: Lab, leased: str, workloads: Workloads, ends: Callable[..., None]
) -> None:
    beside = {"ifName": "pub0", "lease": "db", "defaultRoute": False}
    servers, own = {}, {}
    for host in ("host1", "host2"):
        namespace, own[host] = workloads.attach(host, "web")
        servers[host] = listen(namespace, "0.0.0.0", 80)
        ends(servers[host])
    besides = {host: workloads.attach(host, "beside") for host in own}

    def give(host: str) -> bool:
        body = {"name": "public", "netns": workloads.namespace(host, "web"), **beside}
        answer = lab.local(host).post("/v1/attachments", json=body)
        assert answer.status_code in (200, 201, 409, 422), answer.text
        return answer.status_code in (200, 201)

    def reached(
        address: str, host: str, source: str = lab.top.client, peer: str = "172.29."
    ) -> bool:
        try:
            connected(source, address, 80, seconds=3).close()
        except OSError:
            return False
        return heard(servers[host]).startswith(peer)

    for host, other in (("host1", "host2"), ("host2", "host1")):
        wait_for("the lease being free", lambda host=host: give(host), 20)
        wait_for("its new route", lambda host=host: reached(leased, host), 10)
        assert reached(own["host1"], "host1")
        assert reached(own["host2"], "host2")
        for node in lab.top.hosts:
            beside_it, its = besides[node.name]
            wait_for(  # each host learns the new route in its own time
                f"its route from {node.name}",
                partial(reached, leased, host, beside_it, its),
                10,
            )
            itself = "169.254.1.1" if node.name == host else "172."  # its gateway, or an uplink
            assert reached(leased, host, node.namespace, itself), f"from {node.name} itself"
        assert reached(leased, host, workloads.namespace(other, "web"), own[other])
        assert not give(other), "it has one owner"
        answer = lab.local(host).delete("/v1/attachments/public")
        assert answer.status_code == 200
    assert reached(own["host1"], "host1")
