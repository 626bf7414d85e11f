"""What is read off a packet that was logged, and off the prefix of its message."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.compile import names
from policies.logged import Flow, flow, logged
from policies.model import Direction

A4, B4, A6, B6 = map(ip_address, ("10.65.0.1", "10.65.0.2", "fd00::1", "fd00::2"))
PORTS = struct.pack("!HH", 40000, 443)


def v4(protocol: int, rest: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 1, fragment, 64, protocol, 0)
    return head + A4.packed + B4.packed + options + rest


def v6(following: int, rest: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(rest), following, 64) + A6.packed + B6.packed + rest


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (v4(6, PORTS + b"more"), Flow(A4, B4, 6, 40000, 443)),
        (v4(17, PORTS, options=b"\1" * 8), Flow(A4, B4, 17, 40000, 443)),
        (v4(132, PORTS), Flow(A4, B4, 132, 40000, 443)),
        (v4(1, b"\3\4"), Flow(A4, B4, 1, icmp_type=3, icmp_code=4)),
        (v4(47, PORTS), Flow(A4, B4, 47)),
        (v4(6, PORTS, fragment=0x2000), Flow(A4, B4, 6, 40000, 443)),
        (v4(6, PORTS, fragment=1), Flow(A4, B4, 6)),
        (v4(6, b"\1\2"), Flow(A4, B4, 6)),
        (v6(6, PORTS), Flow(A6, B6, 6, 40000, 443)),
        (v6(58, b"\x80\0"), Flow(A6, B6, 58, icmp_type=128, icmp_code=0)),
        (v6(0, b"\x11\1" + b"\0" * 14 + PORTS), Flow(A6, B6, 17, 40000, 443)),
        (v6(51, b"\x06\1" + b"\0" * 10 + PORTS), Flow(A6, B6, 6, 40000, 443)),
        (v6(44, b"\x11\0\0\1" + b"\0" * 4 + PORTS), Flow(A6, B6, 17, 40000, 443)),
        (v6(44, b"\x11\0\0\x08" + b"\0" * 4 + PORTS), Flow(A6, B6, 17)),
        (v6(0, b"\x11"), Flow(A6, B6, 0)),
        (b"", None),
        (v4(6, PORTS)[:19], None),
        (v6(6, PORTS)[:39], None),
        (b"\x50" + b"\0" * 40, None),
    ],
)
def test_a_packet(packet: bytes, wanted: Flow | None) -> None:
    assert flow(packet) == wanted


@given(st.sampled_from([b"\x45", b"\x4f", b"\x60", b""]), st.binary(max_size=120))
def test_whatever_a_packet_is_it_is_no_error(first: bytes, rest: bytes) -> None:
    flow(first + rest)


@given(st.binary(max_size=200))
def test_nor_is_what_comes_from_the_socket(data: bytes) -> None:
    list(logged(data))


LONG = ".".join(["p" + "x" * 60] * 4)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(("word", "action"), [("deny", "Deny"), ("log", "Log")])
def test_a_prefix_says_what_it_was_made_of(direction: Direction, word: str, action: str) -> None:
    for tier, policy, rule in (("t", "p", "3"), ("t", "", ""), ("", "", ""), (LONG, LONG, "0")):
        text = f"{names.prefix(word, direction, tier, policy)} {rule} "
        said = (action, direction.short, names.short(tier), names.short(policy), rule or "default")
        assert names.said(text) == said


@pytest.mark.parametrize("text", ["", "deny", "dropped: ", "deny sideways", "deny ingress a b c"])
def test_others_prefixes_say_nothing(text: str) -> None:
    assert names.said(text) is None
