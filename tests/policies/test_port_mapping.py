"""A port of the node reaches a workload: from outside, from another workload, from itself, from the
host; real flows of both families."""

from __future__ import annotations

import contextlib
import errno
import socket
import statistics
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from support.flows import Outside, connected, entered, heard, listen
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.kernel.linux import LinuxKernel
from routed.state import HostState

pytestmark = pytest.mark.root
Make = Callable[[str], str]


@pytest.mark.parametrize(
    ("own", "other", "host", "second", "far"),
    [
        ("10.65.0.1", "10.65.0.2", "192.0.2.1", "198.18.0.1", "192.0.2.2"),
        ("fd00:65::1", "fd00:65::2", "2001:db8::1", "2001:db8:9::1", "2001:db8::2"),
    ],
)
def test_a_mapped_port_is_reached_from_everywhere(
    namespaces: Make, own: str, other: str, host: str, second: str, far: str
) -> None:
    inside, beside, out = namespaces("a"), namespaces("b"), namespaces("out")
    address = ip_address(own)
    everywhere = PortMapping("tcp", 8080, address, 80)
    at_one = PortMapping("tcp", 8081, address, 80, ip_address(second))

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        assert table.sync(Nat(ports=frozenset([everywhere, at_one])))
        Outside(out)
        run("ip", "addr", "add", second, "dev", "lo")
        run("ip", *(["-6"] if ":" in own else []), "-n", out, "route", "add", second, "via", host)
        one, two = endpoint("a.h", inside, own), endpoint("b.h", beside, other)
        await kernel.sync(HostState(endpoints={"a.h": one, "b.h": two}))
        server = listen(inside, own, 80)

        def from_host(to: str, port: int) -> None:
            with socket.create_connection((to, port), timeout=5) as made:
                made.sendall(b"ready")
                assert made.recv(5) == b"hello"

        for to, port in ((host, 8080), (second, 8080), (second, 8081)):
            connected(out, to, port).close()
            assert heard(server) == far, "its own peer, not the host"
            connected(beside, to, port).close()
            assert heard(server) == other
            connected(inside, to, port).close()
            assert heard(server) not in (own, other, far), "it would not answer itself"
            from_host(to, port)
            assert heard(server) not in (own, other, far)
        for netns in (out, beside, inside):
            with pytest.raises(ConnectionRefusedError if netns == out else OSError):
                connected(netns, host, 8081, seconds=0.5)
        loopback = "::1" if ":" in own else "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            from_host(loopback, 8080)
        table.map_ports([everywhere], add=False)
        with pytest.raises(ConnectionRefusedError):
            connected(out, host, 8080)
        connected(out, second, 8081).close()
        server.kill()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    ("own", "pool", "pooled"),
    [("10.65.0.1", "10.65.0.0/24", "10.65.0.7"), ("fd00:65::1", "fd00:65::/64", "fd00:65::7")],
)
def test_an_address_of_a_pool_on_the_host_has_its_own_ports(
    namespaces: Make, own: str, pool: str, pooled: str
) -> None:
    inside, out = namespaces("a"), namespaces("out")
    address = ip_address(own)
    ports = [
        PortMapping("tcp", 8080, address, 80),
        PortMapping("tcp", 8081, address, 80, ip_address(pooled)),
    ]

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        pools = frozenset([ip_network(pool)])
        assert table.sync(Nat(pools=pools, ports=frozenset(ports)))
        Outside(out)
        run("ip", "addr", "add", pooled, "dev", "lo")
        await kernel.sync(HostState(endpoints={"a.h": endpoint("a.h", inside, own)}))
        of_pooled = listen("", pooled, 8080)
        connected(out, pooled, 8080).close()  # nobody listens inside
        inner = listen(inside, own, 80)
        connected(out, pooled, 8081).close()  # a mapping may name it
        for server in (of_pooled, inner):
            server.kill()

    in_fresh_namespace(body)


def test_datagrams_and_their_answers(namespaces: Make) -> None:
    inside, out = namespaces("a"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync(Nat(ports=frozenset([PortMapping("udp", 5353, ip_address("10.65.0.1"), 53)])))
        Outside(out)
        await kernel.sync(HostState(endpoints={"a.h": endpoint("a.h", inside, "10.65.0.1")}))
        with entered(inside):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("10.65.0.1", 53))
        with entered(out):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect(("192.0.2.1", 5353))
        client.settimeout(0.5)
        server.settimeout(0.5)
        heard_of, answer = set(), b""
        for _ in range(20):  # a datagram is lost where a link has just come up
            client.send(b"question")
            with contextlib.suppress(TimeoutError):
                said, peer = server.recvfrom(100)
                heard_of.add((said, peer[0]))
                server.sendto(b"answer", peer)
                answer = client.recv(100)
                break
        assert heard_of == {(b"question", "192.0.2.2")}
        assert answer == b"answer"
        server.close()
        client.close()

    in_fresh_namespace(body)


def test_elements_come_and_go_alone() -> None:
    async def body() -> None:
        table = Nft()
        many = [
            PortMapping("tcp", 10_000 + number, ip_address(f"10.65.{number // 250}.1"), 80)
            for number in range(1000)
        ]
        one = PortMapping("udp", 53, ip_address("10.66.0.1"), 53)
        table.sync(Nat(ports=frozenset(many)))
        rules = run("nft", "-a", "-t", "list", "table", "inet", "routed")
        took = []
        for _ in range(20):
            began = time.perf_counter()
            table.map_ports([one], add=True)
            table.map_ports([one], add=False)
            took.append((time.perf_counter() - began) / 2)
        print(f"a mapped port beside 1000: {statistics.median(took) * 1000:.2f} ms")
        assert min(took) < 0.01
        with pytest.raises(ApplyError) as refused:
            table.map_ports([one], add=False)
        assert refused.value.errno == errno.ENOENT
        moved = PortMapping("tcp", 10_000, ip_address("10.66.0.1"), 81)
        assert table.sync(Nat(ports=frozenset([moved, *many[1:]])))
        assert not table.sync(Nat(ports=frozenset([moved, *many[1:]])))
        assert run("nft", "-a", "-t", "list", "table", "inet", "routed") == rules

    in_fresh_namespace(body)


PROTOCOLS_UNKNOWN = """
from ipaddress import ip_address
from policies.nat import Nat, PortMapping
from policies.nft import Nft

table, one = Nft(), ip_address("10.65.0.1")
ports = [PortMapping(word, 8080, one, 80) for word in ("tcp", "udp", "sctp")]
ports.append(PortMapping("udp", 53, one, 53, ip_address("192.0.2.1")))
assert table.sync(Nat(ports=frozenset(ports)))
table.map_ports(ports[:2], add=False)
assert table.sync(Nat(ports=frozenset(ports)))
assert not table.sync(Nat(ports=frozenset(ports)))
"""


@pytest.mark.parametrize("mount", ["", "mount --bind /dev/null /etc/protocols &&"])
def test_a_host_may_have_no_names_of_protocols(mount: str) -> None:
    script = f'{mount} exec "$0" -c "$1"'
    run("unshare", "-nm", "sh", "-c", script, sys.executable, PROTOCOLS_UNKNOWN)
