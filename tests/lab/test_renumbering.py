"""A host that gets other addresses, as docs/host.md says it: what is announced leads to the new
ones, the node says what is not as it was registered, and no more once the service is told."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.labs import Workloads, ctl, node_conditions, node_document, running_lab
from support.rig import IGNORED
from support.streams import Stream

from routed.lab.bird import ask
from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

OLD, NEW = 11, 31  # the last number of each address of host1


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """Its host1 is not afterwards what it was."""
    with running_lab("rn") as found:
        yield found


def links(lab: Lab) -> dict[str, list[str]]:
    """Of each link the addresses that host1 has, with their lengths."""
    shown = json.loads(command("ip", "-n", f"{lab.top.name}-host1", "-j", "addr", "show"))
    return {
        one["ifname"]: [
            f"{held['local']}/{held['prefixlen']}"
            for held in one["addr_info"]
            if held["scope"] == "global"
        ]
        for one in shown
    }


def renumbered(address: str) -> str:
    return re.sub(rf"([.:]){OLD}/", rf"\g<1>{NEW}/", address)


def renumber(lab: Lab) -> list[str]:
    """Every address of host1; the new ones of the management network."""
    host = f"{lab.top.name}-host1"
    for name, held in links(lab).items():
        for address in held:
            if (new := renumbered(address)) != address:
                more = ["nodad"] if ":" in new else []
                command("ip", "-n", host, "addr", "del", address, "dev", name)
                command("ip", "-n", host, "addr", "add", new, "dev", name, *more)
    return [one.partition("/")[0] for one in links(lab)["mgmt"]]


def hops(lab: Lab, address: str) -> set[str]:
    """The next hops that the switches have for the address of a workload of host1."""
    found = set()
    for tor in lab.tor_namespaces:
        shown = json.loads(command("ip", "-n", tor, "-j", "route", "show", address))
        found |= {one["gateway"] for one in shown}
    return found


def identifiers(lab: Lab) -> set[str]:
    """The BGP identifiers that the switches are told by hosts."""
    shown = [ask(lab.directory, name, "show", "protocols", "all") for name in lab.tor_namespaces]
    return {one for text in shown for one in re.findall(r"Neighbor ID: +(\S+)", text)}


@IGNORED
def test_a_host_gets_other_addresses(own_lab: Lab) -> None:
    lab = own_lab
    host = lab.top.hosts[0]
    agent, speaker = lab.agents["host1"], lab.speakers["host1"]
    path = Path(lab.directory) / "host1" / "agent.yaml"
    with Workloads(lab) as workloads:
        namespace, address = workloads.attach("host1", "web")
        assert node_conditions(lab)["Renumbered"]["status"] == "False"
        assert hops(lab, address) == {host.address(tor) for tor in lab.top.tors}

        speaker.stop()
        agent.stop()
        own = renumber(lab)
        listed = json.dumps(own)
        path.write_text(f"{path.read_text()}addresses: {listed}\n")
        speaker.start()
        agent.start()
        wait_for("every session being up", lab.established, 60)
        expected = {f"172.31.{tor.number}.{NEW}" for tor in lab.top.tors}
        wait_for("the new next hops", lambda: hops(lab, address) == expected)
        wait_for("the workload being reached", lambda: lab.ping(lab.top.client, address), 10)
        assert host.management in identifiers(lab)

        assert node_document(lab)["spec"]["addresses"] == [host.management, host.management6]
        wait_for(
            "the node saying so", lambda: node_conditions(lab)["Renumbered"]["status"] == "True"
        )
        said = node_conditions(lab)["Renumbered"]["message"]
        assert host.management in said
        assert f"{own[0]} (mgmt)" in said
        remedy = shlex.split(said.partition("routectl ")[2].partition(" (each")[0])
        with closing(Stream(lab.top.client, namespace, address, 9301)) as stream:
            ctl(lab, *remedy)
            assert node_document(lab)["spec"]["addresses"] == own
            wait_for(
                "the node having no more to say",
                lambda: node_conditions(lab)["Renumbered"]["status"] == "False",
            )
            wait_for("the new BGP identifier", lambda: own[0] in identifiers(lab), 30)
            wait_for("the end of the old one", lambda: host.management not in identifiers(lab), 60)
            wait_for("every session being up", lab.established, 60)
            counts = stream.counts()
        print(f"while the BGP identifier changed: {counts}")
        assert counts.received >= counts.sent, "graceful restart covers it"
        wait_for("the new next hops", lambda: hops(lab, address) == expected)
