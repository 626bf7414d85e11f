"""Firewalls of other programs on a lab host, which come after the agent: the condition says which
rules to add, and with exactly these traffic flows. By TCP: ufw lets pings through in any case."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.docker import program
from support.firewalls import NAMES, clear, load, walled
from support.labs import Workloads, doctor, node_conditions

from routed.lab.fabric import inside, prefix
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

PORT = "7777"
LISTEN = (
    "import socket, sys; l = socket.create_server(('', int(sys.argv[1])))\n"
    "print('up', flush=True)\nwhile True: l.accept()[0].close()"
)
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"


@contextmanager
def listening(namespace: str) -> Iterator[None]:
    words = [*prefix(namespace), sys.executable, "-c", LISTEN, PORT]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            yield
        finally:
            child.kill()


def reaches(namespace: str, address: str) -> bool:
    words = [*prefix(namespace), sys.executable, "-c", DIAL, address, PORT]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_that_the_condition_says_let_traffic_flow(
    lab: Lab, workloads: Workloads, name: str
) -> None:
    program("iptables-legacy", "iptables")
    host, client = f"{lab.top.name}-host1", lab.top.client
    namespace, address = workloads.attach("host1", f"behind-{name}")
    outside = lab.top.client_address(lab.top.tors[0])
    words = prefix(host)

    def flows() -> bool:
        return reaches(client, address) and reaches(namespace, outside)

    def blocked() -> str:
        condition = node_conditions(lab)["ForwardBlocked"]
        return condition["message"] if condition["status"] == "True" else ""

    with ExitStack() as stack:
        for one in (namespace, client):
            stack.enter_context(listening(one))
        wait_for("traffic before the firewall", flows)
        with walled(name, words):
            wait_for("the node saying so", lambda: blocked() != "", 30)
            assert node_conditions(lab)["Ready"]["status"] == "False"
            assert not reaches(client, address)
            assert not reaches(namespace, outside)
            code, found = doctor(lab)
            assert code == 1
            said = blocked()
            sentences = [part.partition(" (to keep it")[0] for part in said.split("; run: ")[1:]]
            commands = [one.partition("; chain ")[0] for one in sentences]
            told = [one["remedy"] for one in found.values() if one["check"].startswith("firewall")]
            assert sorted(told) == sorted(commands), f"doctor says the same: {found}"
            for command in "; ".join(commands).split("; "):
                inside(host, *command.split())
            wait_for(f"traffic after {said}", flows)
            wait_for("the node being ready", lambda: not blocked() and lab.ready("host1"), 30)
            assert doctor(lab)[0] == 0
            if name in ("firewalld", "ufw"):  # they write their rules anew, with what is to last
                clear(words)
                load(f"{name}-kept", words)
                wait_for("traffic with the rules that last", flows)
                assert doctor(lab)[0] == 0
        wait_for("the node being ready", lambda: not blocked() and lab.ready("host1"), 30)
