"""Which ports the host itself waits at, with real sockets."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from support.netns import in_fresh_namespace, run

from routed.kernel.listening import listener

pytestmark = pytest.mark.root
ANY, SIX = "0.0.0.0", "::"
OWN = "192.0.2.1"


def bound(address: str, kind: socket.SocketKind, *, only_six: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_six))
    made.bind((address, 80))
    if kind is socket.SOCK_STREAM:
        made.listen()
    return made


def test_who_listens_where() -> None:
    async def body() -> None:
        run("ip", "addr", "add", f"{OWN}/32", "dev", "lo")
        run("ip", "addr", "add", "192.0.2.9/32", "dev", "lo")
        four, six = ip_address(OWN), ip_address("2001:db8::1")
        for kind, protocol in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
            for address, only_six, asked, met in (
                (ANY, False, None, True),
                (ANY, False, four, True),
                (ANY, False, six, False),
                (OWN, False, None, True),
                (OWN, False, four, True),
                (OWN, False, ip_address(ANY), True),
                ("192.0.2.9", False, four, False),
                (SIX, False, four, True),
                (SIX, False, six, True),
                (SIX, True, four, False),
                (SIX, True, None, True),
                ("127.0.0.1", False, None, False),
                ("::1", False, None, False),
            ):
                with bound(address, kind, only_six=only_six):
                    found = listener(protocol, 80, asked)
                    expected = ip_address(address) if met else None
                    assert found == expected, (protocol, address, asked)
                    assert listener(protocol, 81, asked) is None
            assert listener(protocol, 80, None) is None
        assert listener("SCTP", 80, None) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((OWN, 80))
            client.connect((OWN, 9))
            assert listener("UDP", 80, None) is None, "it has its one peer"

    in_fresh_namespace(body)
