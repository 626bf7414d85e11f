"""A real NetworkManager on a lab host, which has the uplinks and a profile that fits every link of
ethernet, as installers make one. Without what is shipped for it, it takes links of workloads over:
they are mended at once, and the node says who does so and what to configure; with it, it leaves
them alone. What it does to the uplinks is its own matter, and no route of ours goes with that."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.labs import Workloads, node_conditions, running_lab
from support.network_manager import NetworkManager, network_manager
from support.rig import routes_of

from routed.agent.flapping import NETWORK_MANAGER, TIMES
from routed.kernel.removals import BURST_SECONDS
from routed.lab.fabric import prefix
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

BACK_SECONDS = 5.0  # it takes 0.1; a busy machine takes its time to look
DROP_IN = Path(__file__).resolve().parents[2] / "deploy" / "NetworkManager.conf"
ANY = "type=ethernet\nmulti-connect=3\n[ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\n"


@pytest.fixture(scope="module")
def own_lab() -> Iterator[Lab]:
    """Its uplinks are not afterwards what they were."""
    with running_lab("nm") as found:
        yield found


@pytest.fixture
def attached(own_lab: Lab) -> Iterator[Workloads]:
    with Workloads(own_lab) as found:
        yield found


def connections(lab: Lab) -> dict[str, str]:
    host = lab.top.hosts[0]
    uplinks = {
        f"tor{tor.number}": f"type=ethernet\ninterface-name=tor{tor.number}\n"
        f"[ipv4]\nmethod=manual\naddress1={host.address(tor)}/24\n"
        f"[ipv6]\nmethod=manual\naddress1={host.address6(tor)}/64\n"
        for tor in lab.top.tors
    }
    return uplinks | {"any": ANY}


def ours(lab: Lab) -> set[tuple[str, ...]]:
    """The routes of routed on host1, each with where it leads."""
    return {
        (one["dst"], one.get("dev", ""), *sorted(hop["gateway"] for hop in one.get("nexthops", ())))
        for one in routes_of(f"{lab.top.name}-host1")
    }


def whole(lab: Lab, *addresses: str) -> set[tuple[str, ...]]:
    """The same, once both uplinks are in use for both families and there is a route to each of
    `addresses`."""
    learned = {
        ("default", "", *sorted(tor.address for tor in lab.top.tors)),
        ("default", "", *sorted(tor.address6 for tor in lab.top.tors)),
    }

    found: set[tuple[str, ...]] = set()

    def used() -> bool:
        nonlocal found
        found = ours(lab)
        return found >= learned and {route[0] for route in found} >= set(addresses)

    wait_for("both uplinks being used", used, 30)
    return found


def reached(lab: Lab, address: str) -> bool:
    words = [*prefix(lab.top.client), "ping", "-c1", "-W1", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def removals(lab: Lab) -> int:
    """How often NetworkManager has removed what is ours, as far as the agent has said so."""
    lines = lab.local("host1").get("/metrics").text.splitlines()
    found = [one for one in lines if one.startswith('routed_routes_removed{program="NetworkM')]
    return int(float(found[0].split()[-1])) if found else 0


def uplinks_up(lab: Lab, manager: NetworkManager) -> None:
    for tor in lab.top.tors:
        name = f"tor{tor.number}"
        wait_for(
            f"NetworkManager having {name}",
            lambda one=name: manager.links()[one] == ("connected", one),
            20,
        )
    wait_for("every session being up", lab.established, 30)


def found_by_doctor(lab: Lab, manager: NetworkManager) -> dict[str, str]:
    """What `routed doctor` says of NetworkManager, where that runs."""
    agent = lab.agents["host1"].words
    words = [*manager.prefix, *agent[agent.index("--") + 1 : agent.index("-m")]]
    config = str(lab.directory / "host1" / "agent.yaml")
    done = subprocess.run(
        [*words, "-m", "routed.main", "doctor", "-o", "json", "--config", config],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    findings = json.loads(done.stdout)["findings"]
    return next(one for one in findings if one["check"] == "NetworkManager")


def test_with_what_is_shipped_it_leaves_links_of_workloads_alone(
    own_lab: Lab, attached: Workloads
) -> None:
    lab = own_lab
    _, before = attached.attach("host1", "before")
    with network_manager(f"{lab.top.name}-host1", connections(lab), DROP_IN.read_text()) as manager:
        uplinks_up(lab, manager)
        _, after = attached.attach("host1", "after")
        routes = whole(lab, before, after)
        for _ in range(TIMES):
            manager.nmcli("connection", "up", "tor1")
            uplinks_up(lab, manager)
        wait_for("all routes being there", lambda: ours(lab) >= routes, 30)  # others may come
        links = manager.links()
        own = [name for name in links if name.startswith("rt")]
        assert len(own) == 2
        assert all(links[name] == ("unmanaged", "") for name in own), links
        for address in (before, after):
            wait_for(f"{address} being reached", lambda one=address: reached(lab, one), 10)
        assert found_by_doctor(lab, manager)["verdict"] == "ok"
    assert removals(lab) == 0
    assert node_conditions(lab)["RouteFlapping"]["status"] == "False"


def test_without_it_links_are_mended_and_the_node_says_what_to_configure(
    own_lab: Lab, attached: Workloads
) -> None:
    lab, longest = own_lab, 0.0
    with network_manager(f"{lab.top.name}-host1", connections(lab)) as manager:
        uplinks_up(lab, manager)
        _, address = attached.attach("host1", "taken")
        link = lab.local("host1").get("/v1/attachments/taken").json()["hostInterface"]
        routes = whole(lab, address)  # it may be taking the link just now
        wait_for("the workload being reached", lambda: reached(lab, address), 10)
        time.sleep(BURST_SECONDS)  # it may have taken the link by itself: that is another time
        for _ in range(TIMES):
            before = removals(lab)
            began = time.monotonic()
            manager.nmcli("--wait", "0", "connection", "up", "any", "ifname", link)
            wait_for("the agent having heard of it", lambda n=before: removals(lab) > n)
            wait_for("all routes being back", lambda: ours(lab) >= routes)
            longest = max(longest, time.monotonic() - began)
            time.sleep(BURST_SECONDS)  # the next is another time, and not a longer one
        wait_for("the workload being reached", lambda: reached(lab, address), 10)
        print(f"the longest time until all was back: {longest:.2f} s")
        assert longest < BACK_SECONDS
        wait_for(
            "the node saying so",
            lambda: node_conditions(lab)["RouteFlapping"]["status"] == "True",
            30,
        )
        said = node_conditions(lab)["RouteFlapping"]["message"]
        assert said.startswith("NetworkManager (pid ")
        assert NETWORK_MANAGER in said
        found = found_by_doctor(lab, manager)
        assert (found["verdict"], found["remedy"]) == ("warn", NETWORK_MANAGER)
    assert set(NETWORK_MANAGER.split()) >= set(DROP_IN.read_text().splitlines()[1:])
