"""ExaBGP's configuration and commands are made from typed values only."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from api.resources.errors import SpeakerError
from bgp import commands, wire
from bgp.config import render
from bgp.events import Answered, Opened, Received, State, parse
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
        ('"ipv4/unicast":[]', Opened(peer, 120)),
        ('"ipv4/unicast":["restart"]', Opened(peer, 120, forwarding=True)),
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
    assert parse(eor.encode()) == Received(peer, end_of_rib=True)
    assert parse(b"done\n") == Answered(ok=True)
    assert parse(b"error\n") == Answered(ok=False)
    assert parse(b"reload in progress\n") is None
    assert parse(b'{"type":"update"}') is None
