"""What the kernel lists of TCP sockets, read back from real ones."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from routed.doctor import sockets
from routed.doctor.sockets import State


@pytest.mark.parametrize(
    ("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_both_ends_of_a_connection(listen: str, dial: str) -> None:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    dual = {"dualstack_ipv6": True} if listen == "::" else {}
    with socket.create_server((listen, 0), family=family, **dual) as server:
        port = server.getsockname()[1]
        with socket.create_connection((dial, port), timeout=5):
            held = [one for one in sockets.tcp() if port in (one.port, one.peer_port)]
    assert sorted((one.port == port, one.state) for one in held) == [
        (False, State.ESTABLISHED),
        (True, State.ESTABLISHED),
        (True, State.LISTEN),
    ]
    connected = {one.peer for one in held if one.state == State.ESTABLISHED}
    assert connected == {ip_address(dial)}, "IPv4 behind an IPv6 socket is IPv4"
