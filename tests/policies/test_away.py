"""While somebody has flushed the table, and it is not back yet, no flow of a workload begins, and
what there was goes on; of the table that sees to this, nobody else is the master."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.compiled import policy
from support.flows import Outside, connected, entered, listen
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from policies.compile.compiler import compiled
from policies.marks import AWAY
from policies.model import Endpoint, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import plan
from routed.agent.table import Table
from routed.kernel import conntrack
from routed.kernel.linux import LinuxKernel
from routed.lab.processes import wait_for
from routed.state import HostState, host_interface_name

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]
Make = Callable[[str], str]
ADDRESSES = {"a.h": "10.65.0.1", "b.h": "10.65.0.2"}
A, B = ADDRESSES.values()
GATEWAY, HOST = "169.254.1.1", "192.0.2.1"
OPEN, ONE_WAY, SHUT, LASTING = 7000, 7001, 7002, 7003
ALLOW = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [OPEN, LASTING]}}
QUIET = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [ONE_WAY]}}
RULES = compiled(
    plan(
        [],
        [policy("b", selector="is == 'b.h'", ingress=[ALLOW, QUIET])],
        [Endpoint(name, {"is": name}, link=host_interface_name(name)) for name in ADDRESSES],
    ),
    Membership(),
)
HOLDER = """
import sys, time
from policies.nft import Nft
held = Nft()
held.sync()
held.stand_by(anyway=True)
print("ready", flush=True)
sys.stdin.read()
"""


def dropped() -> int:
    """Packets, by the table that stands by."""
    entries = json.loads(run("nft", "-j", "list", "table", "inet", AWAY))["nftables"]
    rules = [entry["rule"]["expr"] for entry in entries if "rule" in entry]
    return sum(part["counter"]["packets"] for one in rules for part in one if "counter" in part)


def tables() -> str:
    return run("nft", "list", "tables")


def datagrams(netns: str, port: int, address: str = B) -> socket.socket:
    """Of a receiver."""
    with entered(netns):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(5)
    return made


class Flows:
    """Those of workloads a and b on the host that is the caller's namespace."""

    def __init__(self, a: str, b: str, far: str) -> None:
        self.spaces = {"a": a, "b": b, "far": far}
        self.sender = datagrams(a, 0, A)
        self.quiet, self.shut = datagrams(b, ONE_WAY), datagrams(b, SHUT)
        with entered(b):
            listener = socket.create_server((B, LASTING))
        with entered(a):
            self.one = socket.create_connection((B, LASTING), timeout=5)
        self.other, _ = listener.accept()
        self.other.settimeout(5)
        self.say()

    def say(self) -> None:
        """By the flow that nobody answers."""
        self.sender.sendto(b"x", (B, ONE_WAY))
        assert self.quiet.recv(1)

    def go_on(self) -> None:
        self.say()
        for one, other in ((self.one, self.other), (self.other, self.one)):
            one.sendall(b"again")
            assert other.recv(5) == b"again"

    def arrives(self) -> bool:
        """What is denied by policy; whichever becomes of it, it is waited for."""
        before = dropped() if AWAY in tables() else 0
        with datagrams(self.spaces["a"], 0, A) as sender:
            sender.sendto(b"x", (B, SHUT))
        if AWAY in tables():
            wait_for("it being dropped", lambda: dropped() > before, 5)
            self.shut.settimeout(0)
        try:
            return bool(self.shut.recv(1))
        except BlockingIOError:
            return False
        finally:
            self.shut.settimeout(5)

    def begins(self, whence: str, address: str = B) -> bool:
        """Whether an allowed one does."""
        try:
            connected(self.spaces[whence], address, OPEN, 1).close()
        except TimeoutError:
            return False
        return True


def play(namespaces: Make, body: Callable[[Flows, Nft], Any]) -> None:
    spaces = {name: namespaces(name[0]) for name in ADDRESSES}
    far = namespaces("far")

    async def whole() -> None:
        kernel, table = LinuxKernel(), Nft()
        Outside(far)
        table.sync(Nat(), RULES)
        ends = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
        blackholes = frozenset([ip_network("10.65.0.0/26")])
        await kernel.sync(HostState(endpoints=ends, blackholes=blackholes))
        servers = [
            listen(spaces["b.h"], B, OPEN),
            listen("", GATEWAY, OPEN),
            listen("", HOST, OPEN),
        ]
        try:
            body(Flows(*spaces.values(), far), table)
        finally:
            for one in servers:
                one.kill()
                one.wait()
            table.close()

    in_fresh_namespace(whole)


@pytest.mark.parametrize("command", ["flush ruleset", "delete table inet routed"])
def test_no_flow_begins_meanwhile_and_what_there_was_goes_on(
    namespaces: Make, command: str
) -> None:
    def body(flows: Flows, table: Nft) -> None:
        other = Nft()
        other.stand_by(anyway=True)
        assert flows.begins("a")
        assert not flows.begins("a", GATEWAY), "the host's own ports are closed to workloads"
        run("nft", *command.split())
        assert not flows.arrives()
        flows.go_on()
        assert not flows.begins("a"), "nor what is allowed"
        assert not flows.begins("far")
        assert not flows.begins("a", GATEWAY)
        assert flows.begins("far", HOST), "the host's are its own"
        table.sync(Nat(), RULES)
        flows.go_on()
        assert flows.begins("a")
        assert flows.begins("far")
        other.close()
        wait_for("its end", lambda: AWAY not in tables(), 5)
        run("nft", *command.split())
        assert flows.arrives(), "it would have been seen"
        assert flows.begins("a", GATEWAY)

    play(namespaces, body)


def test_a_table_that_is_put_to_sleep_is_woken(namespaces: Make) -> None:
    def body(flows: Flows, table: Nft) -> None:
        run("nft", "add table inet routed { flags dormant; }")
        assert flows.arrives(), "nothing is filtered"
        assert table.sync(Nat(), RULES)
        assert not table.sync(Nat(), RULES)
        table.stand_by(anyway=True)
        run("nft", "add table inet routed { flags dormant; }")
        assert not flows.arrives()
        assert table.sync(Nat(), RULES)
        assert flows.begins("a")

    play(namespaces, body)


def test_what_began_while_nobody_filtered_is_judged_anew(namespaces: Make) -> None:
    def body(flows: Flows, table: Nft) -> None:
        assert table.opened(), "as the table was made first"
        assert not table.opened()
        with entered(flows.spaces["b"]):
            listener = socket.create_server((B, SHUT))
        # somebody else has connections tracked, or nothing would be while the table is away
        run("nft", "add table inet other")
        run("nft", "add chain inet other c { type filter hook forward priority 0; }")
        run("nft", "add rule inet other c ct state invalid counter")
        run("nft", "delete", "table", "inet", "routed")
        with entered(flows.spaces["a"]):
            denied = socket.create_connection((B, SHUT), timeout=5)
        ours, _ = listener.accept()
        ours.settimeout(1)
        assert table.sync(Nat(), RULES)
        assert table.opened()
        denied.sendall(b"more")
        assert ours.recv(4) == b"more", "it is established"
        assert conntrack.forget([ip_address(B)], unseen=True) == 1
        denied.sendall(b"more")
        with pytest.raises(TimeoutError):
            ours.recv(4)
        flows.go_on()
        assert conntrack.forget([ip_address(A), ip_address(B)], unseen=True) == 0
        run("nft", "delete", "table", "inet", "routed")
        assert table.sync(Nat(), RULES)
        assert table.opened()
        table.stand_by(anyway=True)
        run("nft", "delete", "table", "inet", "routed")
        assert table.sync(Nat(), RULES)
        assert not table.opened(), "nothing could begin"

    play(namespaces, body)


def test_nobody_else_changes_it() -> None:
    async def body() -> None:
        first, second = Nft(), Nft()
        for one in (first, second):
            one.sync()
        first.stand_by(anyway=True)
        with pytest.raises(ApplyError, match="routed-away"):
            second.stand_by(anyway=True)
        before = run("nft", "list", "table", "inet", AWAY)
        for command in (
            f"delete table inet {AWAY}",
            f"flush table inet {AWAY}",
            f"add table inet {AWAY} {{ flags dormant; }}",
            f"insert rule inet {AWAY} at-forward accept",
            f"delete chain inet {AWAY} at-forward",
        ):
            done = subprocess.run(["nft", command], check=False, capture_output=True, text=True)
            assert "Operation not permitted" in done.stderr, command
        run("nft", "flush", "ruleset")
        assert run("nft", "list", "table", "inet", AWAY) == before
        assert "table inet routed\n" not in tables()
        first.close()
        wait_for("its end", lambda: AWAY not in tables(), 5)
        second.sync()
        second.stand_by(anyway=True)
        assert AWAY in tables()
        second.close()

    in_fresh_namespace(body)


def test_it_goes_with_its_process_and_the_table_stays() -> None:
    def killed() -> str:
        """The table as it was just before."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", HOLDER], text=True, **pipes) as held:
            assert held.stdout is not None
            assert held.stdout.readline() == "ready\n"
            before = run("nft", "list", "table", "inet", "routed")
            assert AWAY in tables()
            held.kill()
        return before

    async def body() -> None:
        before = killed()
        wait_for("its end", lambda: AWAY not in tables(), 5)
        assert run("nft", "list", "table", "inet", "routed") == before

    in_fresh_namespace(body)


def test_where_there_are_no_labels_all_else_is_as_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: Nft, body: str) -> None:
        raise ApplyError("rules", "change", 95)

    monkeypatch.setattr(Nft, "_try", refused)

    async def body() -> None:
        table = Table(Nft())
        for _ in range(3):
            await table.sync(Nat(), RULES)
        listed = run("nft", "list", "table", "inet", "routed")
        assert "policy-ingress" in listed
        assert "ct label" not in listed
        assert AWAY not in tables()
        said = [one.message for one in caplog.records if "all passes" in one.message]
        assert len(said) == 1, said

    in_fresh_namespace(body)
