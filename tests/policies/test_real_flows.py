"""Flows through a host with policies, by real sockets: what is established goes on, errors about a
flow come back, a new connection is refused at once or gets no answer at all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from support.catalogue import case
from support.flows import acknowledged, connected, entered, heard, listen
from support.netns import in_fresh_namespace
from support.tables import compiled
from support.wires import Wires

from policies.nft import Nft
from routed.kernel import conntrack

pytestmark = pytest.mark.root
Make = Callable[[str], str]
ADDRESSES = {
    "web": ["10.65.0.1", "fd00:65::1"],
    "db": ["10.65.0.2", "fd00:65::2"],
}
PORT, CLOSED, SILENCE = 7000, 7001, 1.0  # seconds without any answer
LARGE = bytes(4000)  # more than any link takes at once
TO_WEB = "app == 'web'"


class Place:
    """A workload `web` that talks to a workload `db`, and the policies between them."""

    def __init__(self, wires: Wires, spaces: dict[str, str]) -> None:
        self.links, self.web, self.db, self.table = wires.links, spaces["web"], spaces["db"], Nft()

    def put(self, **raw: Any) -> None:
        scene = replace(case("flows", raw).scene, links=self.links)
        self.table.sync(None, compiled(scene))

    @contextmanager
    def udp(self, address: str, port: int) -> Iterator[socket.socket]:
        """A socket of web that sends there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with entered(self.web), socket.socket(family, socket.SOCK_DGRAM) as made:
            made.settimeout(SILENCE)
            made.connect((address, port))
            yield made


def play(namespaces: Make, body: Callable[[Place], None]) -> None:
    spaces = {name: namespaces(name) for name in ADDRESSES}
    outside = namespaces("outside")

    async def whole() -> None:
        wires = await Wires.made(spaces, ADDRESSES, outside)
        place = Place(wires, spaces)
        body(place)
        place.table.close()
        wires.close()

    in_fresh_namespace(whole)


@pytest.mark.parametrize("address", ADDRESSES["db"])
def test_connections_are_let_go_on_and_new_ones_are_refused_or_dropped(
    namespaces: Make, address: str
) -> None:
    def body(place: Place) -> None:
        allow = {"action": "Allow", "protocol": "TCP", "source": {"selector": TO_WEB}}
        place.put(**{"in": [{**allow, "destination": {"ports": [PORT]}}]})
        server = listen(place.db, address, PORT)
        made = connected(place.web, address, PORT)
        assert heard(server) in ADDRESSES["web"]
        for rule, told in (
            ({"action": "Deny", "reject": True}, ConnectionRefusedError),
            ({"action": "Deny"}, TimeoutError),
        ):
            place.put(**{"in": [rule]})
            with pytest.raises(told):
                connected(place.web, address, PORT, SILENCE)
            made.sendall(b"still")
            assert acknowledged(made), "what is established was cut off"
        place.put(**{"in": [{**allow, "destination": {"ports": [f"{PORT}:{PORT + 1}"]}}]})
        connected(place.web, address, PORT).close()
        made.close()
        server.kill()
        server.wait()

    play(namespaces, body)


@pytest.mark.parametrize("address", ADDRESSES["db"])
def test_what_is_forgotten_is_judged_anew(namespaces: Make, address: str) -> None:
    """As with `flushConntrack`: of two flows the one that is allowed still goes on."""

    def body(place: Place) -> None:
        allow = {"action": "Allow", "protocol": "TCP", "source": {"selector": TO_WEB}}
        place.put(**{"in": [allow]})
        servers = [listen(place.db, address, port) for port in (PORT, CLOSED)]
        goes, stays = (connected(place.web, address, port) for port in (PORT, CLOSED))
        place.put(**{"in": [{**allow, "destination": {"ports": [CLOSED]}}]})
        assert conntrack.forget([ip_address(address)]) >= 2
        for made in (goes, stays):
            made.sendall(b"still")
        assert acknowledged(stays), "what is allowed was cut off"
        assert not acknowledged(goes, SILENCE), "what is allowed no more went on"
        for made in (goes, stays):
            made.close()
        for server in servers:
            server.kill()
            server.wait()

    play(namespaces, body)


@pytest.mark.parametrize("address", ADDRESSES["db"])
def test_errors_about_a_flow_pass_and_datagrams_are_refused_or_dropped(
    namespaces: Make, address: str
) -> None:
    def body(place: Place) -> None:
        # db may send nothing: what says that its port is closed is related to web's datagram
        allow = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [CLOSED]}}
        shut = {"name": "shut", "selector": "app == 'db'", "types": ["Egress"]}
        place.put(**{"in": [allow], "policies": [shut]})
        with place.udp(address, CLOSED) as made:
            made.send(b"hello")
            with pytest.raises(ConnectionRefusedError):
                made.recv(5)
        place.put(**{"in": [{"action": "Deny", "reject": True}]})
        with place.udp(address, CLOSED + 1) as made:
            made.send(b"hello")
            with pytest.raises(OSError) as told:
                made.recv(5)
            # ICMP 3/13 and ICMPv6 1/1, as Linux tells them to sockets
            assert told.value.errno == (errno.EACCES if ":" in address else errno.EHOSTUNREACH)
        place.put(**{"in": [{"action": "Deny"}]})
        with place.udp(address, CLOSED + 2) as made:
            made.send(b"hello")
            with pytest.raises(TimeoutError):
                made.recv(5)

    play(namespaces, body)


def test_answers_pass_where_only_the_question_is_allowed(namespaces: Make) -> None:
    def body(place: Place) -> None:
        ask = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [PORT]}}
        place.put(
            policies=[
                {"name": "a", "types": ["Ingress", "Egress"]},
                {"name": "b", "order": 1, "selector": TO_WEB, "egress": [ask]},
                {"name": "c", "order": 1, "selector": "app == 'db'", "ingress": [ask]},
            ]
        )
        server, back = listen(place.db, "10.65.0.2", PORT), listen(place.web, "10.65.0.1", PORT)
        connected(place.web, "10.65.0.2", PORT).close()
        with pytest.raises(TimeoutError):
            connected(place.db, "10.65.0.1", PORT, SILENCE)
        for one in (server, back):
            one.kill()
            one.wait()

    play(namespaces, body)


@pytest.mark.parametrize("address", ADDRESSES["db"])
def test_fragments_are_judged_as_the_datagram_that_they_are_of(
    namespaces: Make, address: str
) -> None:
    def body(place: Place) -> None:
        place.put(
            **{"in": [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [PORT]}}]}
        )
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with entered(place.db), socket.socket(family, socket.SOCK_DGRAM) as wanted:
            wanted.bind((address, PORT))
            wanted.settimeout(5)
            with socket.socket(family, socket.SOCK_DGRAM) as other:
                other.bind((address, PORT + 1))
                other.settimeout(SILENCE)
                with place.udp(address, PORT + 1) as made:
                    made.send(LARGE)
                with place.udp(address, PORT) as made:
                    made.send(LARGE)
                assert wanted.recv(len(LARGE)) == LARGE
                with pytest.raises(TimeoutError):
                    other.recv(len(LARGE))

    play(namespaces, body)
