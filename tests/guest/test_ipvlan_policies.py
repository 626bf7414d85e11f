"""Policies of workloads of mode ipvlan-l3s, and what holds for them before any, by real packets."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from support.compiled import policy
from support.flows import acknowledged, connected, listen
from support.ipvlans import DB, FAR, HOST, OTHER, VETH, Rig, play
from support.netns import run
from support.scenes import Sent

from routed.lab.processes import wait_for

pytestmark = [pytest.mark.nft]
Make = Callable[[str], str]
INTO = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [1000]}}
OUT = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [2000]}}
BOTH = policy("p", selector="app == 'db'", ingress=[INTO], egress=[OUT])
SILENT = policy("edge", selector="role == 'edge'", types=["Ingress", "Egress"])


def test_every_direction_that_the_host_sees(namespaces: Make) -> None:
    def body(rig: Rig, family: int) -> None:
        db, other, far, host, veth = (one[family] for one in (DB, OTHER, FAR, HOST, VETH))
        rig.put(BOTH)
        assert rig.passes("far", "db", db, 1000)
        assert not rig.passes("far", "db", db, 1001)
        assert rig.passes("db", "far", far, 2000)
        assert not rig.passes("db", "far", far, 2001)
        assert rig.passes("veth", "db", db, 1000), "by the host's slave"
        assert not rig.passes("veth", "db", db, 1001)
        assert rig.passes("", "db", db, 1001), "the host to its own"
        assert not rig.passes("db", "", host, 2000), "its own host, allowed by its policy"
        assert not rig.pings("db", host), "its policy does not"
        assert rig.pings("other", host)
        assert not rig.passes("other", "", host, 2000)
        assert rig.passes("other", "far", far, 2001)
        assert rig.passes("far", "other", other, 1001)
        assert rig.passes("other", "db", db, 1001), "not seen, as docs/policy.md says"
        # in IPv4 by the switch, which sends it back
        rig.put(policy("v", selector="app == 'veth'", ingress=[INTO]))
        assert rig.passes("db", "veth", veth, 1000)
        assert not rig.passes("db", "veth", veth, 1001)
        rig.flush()
        assert rig.passes("far", "db", db, 1001)
        assert rig.passes("db", "far", far, 2001)
        assert rig.passes("db", "", host, 2000)

    play(namespaces, lambda rig: [body(rig, family) for family in (0, 1)])


def test_where_nobody_knows_the_policies_no_flow_begins(namespaces: Make) -> None:
    def body(rig: Rig, family: int) -> None:
        db, other, far, host = (one[family] for one in (DB, OTHER, FAR, HOST))
        server = listen(rig.spaces["far"], far)
        try:
            rig.put()
            held = connected(rig.spaces["db"], far)
            rig.close(*OTHER)
            assert not rig.passes("far", "db", db, 1000)
            assert not rig.passes("db", "far", far, 2000)
            assert not rig.passes("veth", "db", db, 1000), "by the host's slave"
            assert not rig.passes("db", "veth", VETH[family], 1000)
            assert not rig.pings("db", host)
            assert rig.passes("", "db", db, 1000), "the host to its own"
            assert rig.passes("far", "other", other, 1000), "no policy is for it"
            assert rig.passes("other", "far", far, 2000)
            assert rig.pings("other", host)
            held.sendall(b"still")
            assert acknowledged(held)
            held.close()
        finally:
            server.kill()
            server.wait()
            server.stdout.close()  # type: ignore[union-attr]

    play(namespaces, lambda rig: [body(rig, family) for family in (0, 1)])


def test_what_is_established_goes_on_and_what_is_refused_is_told(namespaces: Make) -> None:
    def body(rig: Rig, family: int) -> None:
        db, far = DB[family], FAR[family]
        reject = [{"action": "Deny", "reject": True}]
        shut = policy("shut", selector="app == 'db'", ingress=reject, egress=reject)
        inner, outer = rig.spaces["db"], rig.spaces["far"]
        servers = [listen(inner, db), listen(outer, far)]
        try:
            held = [connected(outer, db), connected(inner, far)]
            rig.put(shut)
            for one in held:
                one.sendall(b"still")
                assert acknowledged(one)
                one.close()
            for inside, address in ((outer, db), (inner, far)):
                with pytest.raises(ConnectionRefusedError):
                    connected(inside, address)
            with pytest.raises(ConnectionRefusedError):  # in the name of one who is not here
                connected(inner, ("198.51.100.7", "2001:db8:7::7")[family])
            rig.put()
            connected(outer, db).close()
        finally:
            for server in servers:
                server.kill()
                server.wait()
                server.stdout.close()  # type: ignore[union-attr]

    play(namespaces, lambda rig: [body(rig, family) for family in (0, 1)])


def _forged(number: int) -> list[Sent]:
    """Of sources that nobody here has, by several protocols."""
    four, six = ip_address(FAR[0]), ip_address(FAR[1])
    sources = [f"198.18.0.{number + 1}", f"10.65.0.{number + 100}", VETH[0], "192.0.2.77"]
    sources += ["127.0.0.5", "0.0.0.0", "255.255.255.255", "224.0.0.5"]
    found = [Sent(ip_address(one), four, 17, 1000 + number, 9) for one in sources]
    found += [
        Sent(ip_address(sources[0]), four, protocol, 1000 + number, 9) for protocol in (6, 132)
    ]
    found += [
        Sent(ip_address(sources[1]), four, 1, 8, 0),
        Sent(ip_address(sources[1]), four, 1, 3, 3),
    ]
    others = [f"2001:db8:99::{number + 1:x}", f"fd00:65::{number + 100:x}", VETH[1], "fe80::77"]
    found += [Sent(ip_address(one), six, 17, 1000 + number, 9) for one in others]
    found += [Sent(ip_address(others[3]), six, 58, kind, 0) for kind in (134, 135, 136, 137)]
    return found


def test_foreign_sources_go_nowhere(namespaces: Make) -> None:
    frames = [one for number in range(50) for one in _forged(number)]
    distinct = len({str(one) for one in frames})
    assert len(frames) == 1000

    def body(rig: Rig) -> None:
        assert rig.forge("db", *frames) == 0
        rig.put(BOTH)
        assert rig.forge("db", *frames[:20]) == 0, "policies change nothing of that"
        rig.flush()
        seen = rig.forge("db", *frames)
        assert seen > distinct / 2, "what is no martian is seen where nobody filters"

    play(namespaces, body)


def test_slaves_have_no_neighbours_and_serve_no_dhcp(namespaces: Make) -> None:
    six, four = (ip_address(DB[1]), ip_address(FAR[1])), (ip_address(DB[0]), ip_address(FAR[0]))
    frames = [Sent(*six, 58, kind, 0) for kind in (133, 134, 135, 136, 137)]
    frames += [Sent(*six, 17, 547, 546), Sent(*four, 17, 67, 68)]

    def body(rig: Rig) -> None:
        assert rig.forge("db", *frames) == 0
        assert rig.forge("db", Sent(*four, 17, 68, 67), Sent(*six, 17, 546, 547)) == 2, "clients"
        rig.flush()
        assert rig.forge("db", *frames) == len(frames)

    play(namespaces, body)


def test_what_cannot_be_told_is_what_the_docs_say(namespaces: Make) -> None:
    """A neighbour's address, and the host's."""

    def body(rig: Rig) -> None:
        for source in (OTHER[0], HOST[0]):
            assert rig.forge("db", Sent(ip_address(source), ip_address(FAR[0]), 17, 7, 9)) == 1

    play(namespaces, body)


def test_an_address_that_a_workload_gives_itself_gets_nothing(namespaces: Make) -> None:
    def body(rig: Rig, family: int) -> None:
        stolen = ("10.65.0.77", "fd00:65::77")[family]
        length = (32, 128)[family]
        rig.put()
        rig.ip("db", "addr", "add", f"{stolen}/{length}", "dev", "eth0", *["nodad"] * family)
        run("ip", "route", "add", "blackhole", stolen)  # as of an owned block
        assert not rig.passes("far", "db", stolen, 1000)
        run("nft", "delete", "element", "inet", "routed", "slaves-parents", "{ up0 }")
        assert rig.passes("far", "db", stolen, 1000)

    play(namespaces, lambda rig: [body(rig, family) for family in (0, 1)])


def test_the_host_itself_goes_on(namespaces: Make) -> None:
    """Its own sources, processes, neighbours, and refusals."""

    def body(rig: Rig) -> None:
        for far, host in zip(FAR, HOST, strict=True):
            run("ip", "neigh", "flush", "all")
            assert rig.pings("", far)
            assert rig.pings("far", host)
            with pytest.raises(ConnectionRefusedError):
                connected(rig.spaces["far"], host, 9)
            assert rig.passes("", "far", far, 9)
            assert rig.passes("far", "", host, 9)
        run("ip", "link", "add", "dad0", "type", "veth", "peer", "dad1")
        for name in ("dad0", "dad1"):
            run("ip", "link", "set", name, "up")
        for name in ("dad0", "dad1"):
            run("ip", "addr", "add", "fd00:99::1/64", "dev", name)
        wait_for(
            "one having heard of the other",
            lambda: "dadfailed" in run("ip", "-6", "addr", "show", "to", "fd00:99::1"),
            10,
        )

    play(namespaces, body)


def test_interfaces_of_the_host_are_not_what_slaves_send_by(namespaces: Make) -> None:
    def body(rig: Rig, family: int) -> None:
        db, far, host = DB[family], FAR[family], HOST[family]
        forward = policy(
            "onward", selector="role == 'edge'", applyOnForward=True, ingress=[INTO], egress=[OUT]
        )
        rig.put(SILENT, host=True)
        assert not rig.passes("", "far", far, 2001)
        assert not rig.passes("far", "", host, 1001)
        assert rig.passes("db", "far", far, 2001)
        assert rig.passes("far", "db", db, 1001)
        assert rig.passes("", "db", db, 1001)
        assert rig.pings("db", host)
        rig.put(forward, host=True)
        assert rig.passes("db", "far", far, 2000)
        assert not rig.passes("db", "far", far, 2001)
        assert rig.passes("far", "db", db, 1000)
        assert not rig.passes("far", "db", db, 1001)

    play(namespaces, lambda rig: [body(rig, family) for family in (0, 1)])
