"""What the launcher replaces in ExaBGP: when, with what effect, and that nothing needs it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from exabgp.bgp.message import Action
from exabgp.bgp.message.update.attribute import Attributes, NextHop
from exabgp.bgp.message.update.nlri.cidr import CIDR
from exabgp.bgp.message.update.nlri.inet import INET
from exabgp.bgp.neighbor import Neighbor
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor.asynchronous import ASYNC
from exabgp.reactor.network.outgoing import Outgoing
from exabgp.rib.change import Change
from exabgp.rib.outgoing import OutgoingRIB
from support.rack import PEER, Agent, Make, Rack, advertisements, until

from api.resources.net import IPNetwork
from bgp import replacements
from bgp.seam import Advertisement

MANY = [f"10.65.{n // 250}.{n % 250}/32" for n in range(10_000)]
OTHER_RELEASE = "import exabgp.version\nexabgp.version.release = '5.0.99'\n"


def test_the_replacements_are_for_the_exabgp_that_is_installed() -> None:
    assert replacements.unexpected() == []


def test_another_source_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (ASYNC.run, ASYNC.LIMIT, Neighbor.remove_self, OutgoingRIB._update_rib)
    monkeypatch.setitem(replacements.EXPECTED, "OutgoingRIB.updates", "0123456789abcdef")
    monkeypatch.setitem(replacements.EXPECTED, "ASYNC.gone", "0123456789abcdef")
    assert replacements.replace() == ["OutgoingRIB.updates", "ASYNC.gone"]
    assert (ASYNC.run, ASYNC.LIMIT, Neighbor.remove_self, OutgoingRIB._update_rib) == before


@pytest.mark.parametrize("release", ["", OTHER_RELEASE])
def test_it_says_so_when_it_runs_exabgp_as_it_is(release: str) -> None:
    code = release + (
        "import runpy, sys; sys.argv = ['exabgp', 'version']\n"
        "runpy.run_module('bgp.launcher', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("exabgp runs as it is" in done.stderr) == bool(release)


ASKED = """
import runpy, socket, sys
def asked(*_): sys.exit("the name service was asked")
socket.gethostbyaddr = asked
sys.argv = ["exabgp", "version"]
runpy.run_module({module!r}, run_name="__main__")
"""


@pytest.mark.parametrize(("module", "asks"), [("bgp.launcher", False), ("exabgp", True)])
def test_no_name_server_is_waited_for(module: str, asks: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED.format(module=module)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ("the name service was asked" in done.stderr) == asks, done.stderr


def test_the_socket_of_a_session_sends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "warning", lambda *_, **__: None)  # it is not set up here
    connection = Outgoing(AFI.ipv4, "127.0.0.1", "127.0.0.1")
    assert replacements.setup(connection) is None
    try:
        assert connection.io.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        connection.io.close()


def test_a_session_whose_socket_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "warning", lambda *_, **__: None)
    connection = Outgoing(AFI.ipv4, "127.0.0.1", "192.0.2.1")
    assert replacements.setup(connection) is not None  # nobody here has that address
    assert connection.io is None


def change(action: int, community: str = "") -> Change:
    nlri = INET(AFI.ipv4, SAFI.unicast, action)
    nlri.cidr = CIDR(bytes([10, 65, 0, 1]), 32)
    nlri.nexthop = NextHop("192.0.2.1" + community)
    attributes = Attributes()
    attributes.add(nlri.nexthop)
    return Change(nlri, attributes)


def sent(rib: OutgoingRIB) -> list[int]:
    return [nlri.action for update in rib.updates(True) for nlri in update.nlris]


def test_the_last_of_several_unsent_changes_of_a_prefix_is_the_one_that_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "debug", lambda *_, **__: None)  # it is not set up here

    def queue() -> OutgoingRIB:
        rib = OutgoingRIB(True, {(AFI.ipv4, SAFI.unicast)})
        rib.add_to_rib(change(Action.ANNOUNCE))
        rib.add_to_rib(change(Action.WITHDRAW, "0"))  # its attributes make it another group
        rib.add_to_rib(change(Action.ANNOUNCE))
        return rib

    assert sent(queue()) == [Action.ANNOUNCE, Action.WITHDRAW], "ExaBGP as it is: wrong order"
    monkeypatch.setattr(OutgoingRIB, "_update_rib", replacements.update_rib)
    rib = queue()
    assert sent(rib) == [Action.ANNOUNCE]
    assert not rib.pending()


@pytest.mark.root
def test_ten_thousand_are_announced_and_churned_without_a_lost_session(rack: Rack) -> None:
    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, {})
            await until(lambda: agent.state() == "Established")
            since = rack.birdc("show", "protocols", "host")
            agent.client.set({"tor": PEER}, advertisements(*MANY))
            assert await until(lambda: len(rack.routes()) == len(MANY), 20) < 5
            ends = time.monotonic() + 2
            turn = 0
            while time.monotonic() < ends:  # each 50 ms a quarter goes and the others change
                turn += 1
                wanted: dict[IPNetwork, Advertisement] = {
                    ip_network(p): Advertisement(
                        ip_network(p), communities=(f"65002:{(turn + n) % 3}",)
                    )
                    for n, p in enumerate(MANY[:400])
                    if (n + turn) % 4
                }
                agent.client.set({"tor": PEER}, wanted)
                await asyncio.sleep(0.05)
            await agent.client.sync()
            expected = {str(p) for p in wanted}
            await until(lambda: rack.routes() == expected)
            for prefix, one in list(wanted.items())[:20]:
                said = rack.birdc("show", "route", "all", str(prefix))
                assert f"({one.communities[0].replace(':', ',')})" in said, said
            assert rack.birdc("show", "protocols", "host") == since, "the session never went"

    asyncio.run(body())


@pytest.mark.root
def test_an_exabgp_of_another_release_announces_all_the_same(
    namespaces: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OTHER_RELEASE, encoding="ascii")
    root = Path(replacements.__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{site}:{root}")
    rack = Rack(namespaces, tmp_path, "")

    async def body() -> None:
        async with Agent(rack) as agent:
            agent.client.set({"tor": PEER}, advertisements(*MANY[:1000]))
            await until(lambda: len(rack.routes()) == 1000)
            agent.client.set({"tor": PEER}, advertisements(MANY[0]))
            await until(lambda: rack.routes() == {MANY[0]})

    try:
        asyncio.run(body())
    finally:
        rack.stop()
    assert "exabgp runs as it is" in (tmp_path / "log").read_text(encoding="utf-8")


CLOCK = """
import sys, time
from bgp import replacements
from exabgp.bgp.message import Notify, KeepAlive, _NOP
from exabgp.bgp.timer import ReceiveTimer, SendTimer
from exabgp.reactor.delay import Delay
from exabgp.bgp.message.open.holdtime import HoldTime

from exabgp.logger import log

log.debug = lambda *_, **__: None  # it is not set up here
assert sys.argv[1] == "stock" or replacements.replace() == []
passed, step = [100.0], [0.0]
real = time.time
time.time = lambda: 1_700_000_000 + passed[0] + step[0]
replacements.time.monotonic = lambda: passed[0]
replacements.Monotonic.time = staticmethod(lambda: passed[0])
received, sent = ReceiveTimer(lambda: "s", 9, 4, 0), SendTimer(lambda: "s", HoldTime(9))
delay = Delay()
received.check_ka_timer(KeepAlive())
step[0] = float(sys.argv[2])
passed[0] += 4
said = []
try:
    received.check_ka_timer(_NOP)
except Notify:
    said.append("ended")
said.append("sends" if sent.need_ka() else "silent")
said.append("waits" if delay.backoff() else "connects")
passed[0] += 4.9
try:
    received.check_ka_timer(_NOP)
    passed[0] += 0.2
    received.check_ka_timer(_NOP)
    said.append("late")
except Notify:
    said.append("in time")
print(*said)
"""


@pytest.mark.parametrize("step", [0, 86_400, -86_400])
def test_who_sets_the_clock_ends_no_session_and_delays_no_keepalive(step: int) -> None:
    def said(which: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", CLOCK, which, str(step)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said("replaced") == "sends connects in time"
    stock = {0: "sends connects late", 86_400: "ended sends connects", -86_400: "silent waits late"}
    assert said("stock").startswith(stock[step]), "else nothing has to be replaced any more"
