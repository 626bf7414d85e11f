"""A host whose default route is its management network's keeps it: a TCP stream to it from behind
that network, like ssh, stays up while routed starts, learns a default route, and stops."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.labs import doctor, forget_routes, node_document

from routed.lab.fabric import command, inside, prefix, routes
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

PORT = 2222
MOST_GAP = 5.0  # seconds, on a busy machine; without a way back it would be for ever
ECHO = f"""
import socket
server = socket.create_server(("", {PORT}))
print("ready", flush=True)
link = server.accept()[0]
while data := link.recv(100):
    link.sendall(data)
"""
# one number every 20 ms, which must come back; at the end the longest time that one took
STREAM = f"""
import socket, sys, threading, time
link = socket.create_connection((sys.argv[1], {PORT}), 5)
link.settimeout(30)
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print("ready", flush=True)
longest, ended = 0.0, False
def wait():
    global ended
    sys.stdin.read()
    ended = True
threading.Thread(target=wait, daemon=True).start()
while not ended:
    began = time.monotonic()
    link.sendall(b"12345678")
    left = 8
    while left:
        data = link.recv(left)
        assert data, "the stream has ended"
        left -= len(data)
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.02)
print(longest, flush=True)
"""


@pytest.fixture
def operator(lab: Lab) -> Iterator[str]:
    """A machine behind the management network's router; host1's default route leads there, as DHCP
    would have made it, with the metric that systemd-networkd gives it."""
    router, host = lab.top.management, f"{lab.top.name}-host1"
    name = f"{lab.top.name}-operator"
    command("ip", "netns", "add", name)
    command("ip", "-n", name, "link", "add", "up0", "type", "veth", "peer", "name", "operator",
            "netns", router)  # fmt: skip
    command("ip", "-n", name, "addr", "add", "172.28.9.2/24", "dev", "up0")
    command("ip", "-n", router, "addr", "add", "172.28.9.1/24", "dev", "operator")
    command("ip", "-n", name, "link", "set", "up0", "up")
    command("ip", "-n", router, "link", "set", "operator", "up")
    command("ip", "-n", name, "route", "add", "default", "via", "172.28.9.1")
    theirs = ["default", "via", lab.top.server, "dev", "mgmt", "proto", "dhcp", "metric", "1024"]
    command("ip", "-n", host, "route", "add", *theirs)
    yield name
    command("ip", "-n", host, "route", "del", *theirs)
    command("ip", "netns", "del", name)


@contextmanager
def child(namespace: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    whole = [*prefix(namespace), sys.executable, "-c", *words]
    with subprocess.Popen(
        whole, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as found:
        try:
            assert found.stdout is not None
            assert found.stdout.readline() == "ready\n"
            yield found
        finally:
            found.kill()


def defaults(lab: Lab) -> dict[str, object]:
    """host1's default routes: by protocol, the metric."""
    held = routes(f"{lab.top.name}-host1")
    return {str(one["protocol"]): one.get("metric") for one in held if one["dst"] == "default"}


def test_the_stream_stays_up_and_the_default_route_is_theirs(lab: Lab, operator: str) -> None:
    host, address = f"{lab.top.name}-host1", lab.top.hosts[0].management
    agent, speaker = lab.agents["host1"], lab.speakers["host1"]
    agent.stop()
    speaker.stop()
    forget_routes(host)
    assert defaults(lab) == {"dhcp": 1024}
    with child(host, ECHO), child(operator, STREAM, address) as stream:
        speaker.start()
        agent.start()
        wait_for("readiness", lambda: lab.ready("host1"))
        wait_for("the learned default route", lambda: "82" in defaults(lab), 30)
        assert defaults(lab)["dhcp"] == 1024
        assert " dev mgmt " in inside(host, "ip", "route", "get", "172.28.9.2")
        wait_for("every session being up", lab.established, 30)
        time.sleep(0.5)  # of the stream over both
        agent.stop()
        speaker.stop()
        assert "dhcp" in defaults(lab)
        assert stream.poll() is None
        said, _ = stream.communicate(timeout=20)
    assert stream.returncode == 0, said
    print(f"the longest gap: {float(said):.2f} s")
    assert float(said) < MOST_GAP
    speaker.start()
    agent.start()
    wait_for("readiness", lambda: lab.ready("host1"))
    wait_for("every session being up", lab.established, 30)


def test_the_node_shows_which_addresses_are_its_own_and_how_they_were_found(lab: Lab) -> None:
    host = lab.top.hosts[0]
    own = [host.management, host.management6]
    expected = [{"address": one, "interface": "mgmt", "method": "control-plane"} for one in own]
    until_shown(lab, expected)
    assert node_document(lab)["spec"]["addresses"] == own
    finding = doctor(lab)[1]["addresses"]
    assert finding["verdict"] == "ok"
    assert finding["found"] == ", ".join(f"{one} (mgmt, control-plane)" for one in own)


def test_another_method_after_a_restart(lab: Lab) -> None:
    host = lab.top.hosts[0]
    tor = lab.top.tors[-1]
    agent = lab.agents["host1"]
    path = Path(lab.directory) / "host1" / "agent.yaml"
    before = path.read_text()
    text = f"interface=tor{tor.number}"
    path.write_text(f"{before}addressMethod: {text}\n")
    try:
        agent.stop()
        agent.start()
        own = [host.address(tor), host.address6(tor)]
        until_shown(
            lab, [{"address": o, "interface": f"tor{tor.number}", "method": text} for o in own]
        )
    finally:
        path.write_text(before)
        agent.stop()
        agent.start()
        wait_for("readiness", lambda: lab.ready("host1"))


def until_shown(lab: Lab, addresses: list[dict[str, str]]) -> None:
    wait_for(
        "the node's status",
        lambda: node_document(lab)["status"].get("addresses") == addresses,
        20,
    )
