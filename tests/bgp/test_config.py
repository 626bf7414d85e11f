"""ExaBGP's configuration and commands are made from typed values only."""

from __future__ import annotations

import dataclasses
import errno
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import pytest
from support.netns import in_fresh_namespace, run
from support.rack import until

from api.resources.errors import SpeakerError
from bgp import addresses, commands, wire
from bgp.config import render
from bgp.events import Answered, Opened, Received, State, parse
from bgp.rib import Inbound
from bgp.seam import Advertisement, Path, Peer

PEER = Peer(
    "tor1",
    ip_address("192.0.2.1"),
    65001,
    4200000000,
    "192.0.2.9",
    local_address=ip_address("192.0.2.9"),
    hold_time=3,
    ttl_security=1,
)


def test_a_peer_with_everything() -> None:
    text = render([PEER], {"tor1": "s3cret"}, "/bin/true")
    assert text == (
        "process routed {\n  run /bin/true;\n  encoder json;\n}\n"
        "neighbor 192.0.2.1 {\n"
        "  router-id 192.0.2.9;\n  local-address 192.0.2.9;\n  local-as 4200000000;\n"
        "  peer-as 65001;\n  hold-time 3;\n  manual-eor true;\n  adj-rib-in false;\n"
        "  outgoing-ttl 255;\n  incoming-ttl 255;\n"
        '  md5-password "s3cret";\n'
        "  family { ipv4 unicast; }\n"
        "  capability { graceful-restart 120; route-refresh enable; asn4 enable; }\n"
        "  api { processes [ routed ]; neighbor-changes; "
        "receive { parsed; open; update; notification; } }\n}\n"
    )


def test_both_families_over_a_link_local_address() -> None:
    peer = Peer(
        "tor1", ip_address("fe80::1"), 65001, 65002, "192.0.2.9", families=(6, 4), interface="up0"
    )
    text = render([peer], {}, "/bin/true")
    assert "  source-interface up0;\n" in text
    assert "  family { ipv4 unicast; ipv6 unicast; }\n  nexthop { ipv4 unicast ipv6; }\n" in text
    assert "asn4 enable; nexthop enable; }" in text
    plain = render([dataclasses.replace(PEER, families=(4, 6))], {}, "/bin/true")
    assert "nexthop" not in plain, "over IPv4 every next hop has its own family"


@pytest.mark.parametrize("bad", ["", "a b", "a;b", "a\nb", "x" * 16])
def test_an_interface_that_would_break_out_is_refused(bad: str) -> None:
    with pytest.raises(SpeakerError, match="of peer tor1: no link's name"):
        render([dataclasses.replace(PEER, interface=bad)], {}, "/bin/true")


def test_the_next_hops_of_a_session() -> None:
    four, six, narrow = map(ip_address, ("192.0.2.9", "2001:db8::9", "fe80::9"))
    both = frozenset({4, 6})
    for local, on_link, extended, expected in (
        (four, [four, six], False, {4: four, 6: six}),
        (six, [four, six], False, {4: four, 6: six}),
        (six, [four, six], True, {4: six, 6: six}),
        (narrow, [], True, {4: narrow, 6: narrow}),
        (narrow, [], False, {6: narrow}),
        (four, [four], True, {4: four}),
        (None, [four, six], True, {}),
    ):
        assert addresses.next_hops(local, both, on_link, extended=extended) == expected
    newer = ip_address("2001:db8::a")
    kept = addresses.next_hops(four, both, [newer, six], extended=False, before={6: six})
    assert kept == {4: four, 6: six}, "one that comes is no reason to change"
    said = addresses.not_carried((4, 6), both, {6: narrow})
    assert said.startswith("IPv4 is not announced: ")
    assert addresses.not_carried((4, 6), {4}, {4: four}).startswith("IPv6 is not carried: ")
    assert addresses.not_carried((4, 6), both, {4: four, 6: six}) == ""


def recorded(name: str) -> Any:
    """What ExaBGP 5.0.15 said in a session with BIRD 2.0.12."""
    return parse((FilePath(__file__).parent / "recorded" / name).read_bytes())


def test_recorded_open_of_a_switch_with_both_families() -> None:
    said = recorded("open-both.json")
    both = frozenset({4, 6})
    assert (said.families, said.extended) == (both, True)
    assert (said.restart, said.kept) == (None, frozenset()), "a helper keeps nothing itself"


def test_recorded_prefix_with_a_next_hop_of_the_other_family() -> None:
    said = recorded("update-rfc8950.json")
    assert (ip_network("10.66.0.1/32"), ip_address("fd00:2::1")) in said.announced


def test_recorded_prefix_of_a_switch_without_a_global_address() -> None:
    rib = Inbound(dataclasses.replace(PEER, families=(4, 6)))
    _, paths = rib.receive(recorded("update-link-local.json"))
    assert [path.next_hops for path in paths] == [(ip_address("fe80::1"),)]


def test_recorded_end_of_rib_of_each_family() -> None:
    assert [recorded(f"eor-ipv{v}.json").end_of_rib for v in (4, 6)] == [4, 6]


@pytest.mark.parametrize("bad", ["", "a b", 'a"b', "x" * 81, "ä", "a;b", "a\nb"])
def test_a_password_that_would_break_out_is_refused(bad: str) -> None:
    with pytest.raises(SpeakerError, match="password of peer tor1"):
        render([PEER], {"tor1": bad}, "/bin/true")


def test_communities_are_digits_never_words() -> None:
    one = Advertisement(ip_network("10.65.0.1/32"), communities=("65535:0", "65001:1:2"))
    assert commands.announce(PEER.address, ip_address("192.0.2.9"), [one]) == (
        "neighbor 192.0.2.1 announce attributes next-hop 192.0.2.9 community [65535:0] "
        "large-community [65001:1:2] nlri 10.65.0.1/32"
    )


@pytest.mark.parametrize(
    "value",
    [
        PEER,
        Advertisement(ip_network("fd00::1/128"), ip_address("fd00::9"), "rt0", ("1:2",)),
        wire.Withdraw(ip_network("10.65.0.1/32")),
        wire.End(3, complete=True),
        wire.Sync(7),
    ],
)
def test_what_the_agent_says_arrives_as_it_was(value: wire.Message) -> None:
    assert wire.parse_op(wire.op(value)) == value


def test_what_the_speaker_says_arrives_as_it_was() -> None:
    path = Path("tor1", ip_network("10.65.0.1/32"), (ip_address("192.0.2.1"),), (65001,), ("1:2",))
    assert wire.parse_event(wire.event(path)) == path


@pytest.mark.parametrize(
    "line", [b"x", b"{}", b"[]", b'{"op":"peer"}', b'{"op":"withdraw","prefix":"1"}', b'{"op":3}']
)
def test_a_line_that_cannot_be_read_is_an_error(line: bytes) -> None:
    with pytest.raises(SpeakerError, match="cannot read"):
        wire.parse_op(line)


def test_exabgps_events() -> None:
    head = '{"exabgp":"5.0.0","type":"%s","neighbor":{"address":{"local":"192.0.2.9",'
    head += '"peer":"192.0.2.1"},%s}}'
    peer, local = ip_address("192.0.2.1"), ip_address("192.0.2.9")
    assert parse((head % ("state", '"state":"up"')).encode()) == State(peer, "up", "", local)
    capability = '"64":{"time":120,"address-family-flags":{%s},"restart-flags":[]}'
    for families, said in (
        ("", Opened(peer, None)),  # a helper, which keeps nothing itself
        ('"ipv4/unicast":[]', Opened(peer, 120, frozenset({4}))),
        ('"ipv4/unicast":["restart"]', Opened(peer, 120, frozenset({4}), frozenset({4}))),
        (
            '"ipv4/unicast":["restart"],"ipv6/unicast":[]',
            Opened(peer, 120, frozenset({4, 6}), frozenset({4})),
        ),
    ):
        opened = head % ("open", f'"open":{{"capabilities":{{{capability % families}}}}}')
        assert parse(opened.encode()) == said
    update = (
        '"message":{"update":{"attribute":{"as-path":[65001,65002],"med":5,'
        '"community":[[65001,7]]},"announce":{"ipv4 unicast":{"192.0.2.1":'
        '[{"nlri":"10.65.0.1/32"}]}},"withdraw":{"ipv4 unicast":[{"nlri":"10.65.0.2/32"}]}}}'
    )
    assert parse((head % ("update", update)).encode()) == Received(
        peer,
        ((ip_network("10.65.0.1/32"), peer),),
        (ip_network("10.65.0.2/32"),),
        (65001, 65002),
        ("65001:7",),
        5,
    )
    eor = head % ("update", '"message":{"eor":{"afi":"ipv4","safi":"unicast"}}')
    assert parse(eor.encode()) == Received(peer, end_of_rib=4)
    assert parse(b"done\n") == Answered(ok=True)
    assert parse(b"error\n") == Answered(ok=False)
    assert parse(b"reload in progress\n") is None
    assert parse(b'{"type":"update"}') is None


@pytest.mark.root
def test_our_address_towards_a_link_local_peer_is_that_of_its_link() -> None:
    """ExaBGP does not always say it, and without the link there is no way to it."""

    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far")
        for link in ("up0", "far"):
            run("ip", "link", "set", link, "up")
        run("ip", "addr", "add", "fe80::9/64", "dev", "up0", "nodad")
        run("ip", "addr", "add", "2001:db8::9/64", "dev", "up0", "nodad")
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "up0")
        peer = ip_address("fe80::1")
        assert addresses.towards(peer) is None
        found = addresses.towards(peer, "up0")
        assert found is not None
        assert found.is_link_local
        held = addresses.usable()
        assert held is not None
        assert set(map(str, addresses.on_link_of(found, held))) == {"2001:db8::9", "192.0.2.9"}
        run("ip", "addr", "add", "fe80::9/64", "dev", "far", "nodad")
        run("ip", "addr", "add", "2001:db8:1::9/64", "dev", "far", "nodad")
        held, narrow = addresses.usable(), ip_address("fe80::9")
        assert held is not None
        assert len(addresses.on_link_of(narrow, held)) == 3, "two links have it"
        found_on = addresses.on_link_of(narrow, held, "far")
        assert list(map(str, found_on)) == ["2001:db8:1::9"]
        assert addresses.on_link_of(narrow, held, "nosuch0") == []
        assert addresses.towards(peer, "nosuch0") is None

    in_fresh_namespace(body)


@pytest.mark.root
def test_a_temporary_address_is_no_next_hop() -> None:
    """RFC 8981: it is the kernel's first, and gone tomorrow."""

    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far")
        run("ip", "link", "set", "far", "up")
        run("sysctl", "-qw", "net.ipv6.conf.up0.use_tempaddr=2")
        run("sysctl", "-qw", "net.ipv6.conf.up0.dad_transmits=0")
        run("ip", "link", "set", "up0", "up")
        own = ("2001:db8::9/64", "dev", "up0", "nodad", "mngtmpaddr")
        run("ip", "addr", "add", *own, "valid_lft", "86400", "preferred_lft", "80000")
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "up0")
        run("ip", "addr", "add", "192.0.2.8/24", "dev", "up0")  # "secondary" is the same bit
        ready = ("ip", "-6", "addr", "show", "dev", "up0", "temporary", "-tentative")
        await until(lambda: "2001:db8:" in run(*ready))
        held = addresses.usable()
        assert held is not None
        found = {str(one.address) for one in held if one.wide}
        assert found == {"2001:db8::9", "192.0.2.9", "192.0.2.8"}

    in_fresh_namespace(body)


def test_without_a_descriptor_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    assert addresses.usable() is None
    assert addresses.towards(PEER.address) is None
