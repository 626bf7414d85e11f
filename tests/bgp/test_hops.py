"""The next hops of sessions, by the addresses that the host has."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from bgp import addresses, hops
from bgp.addresses import Held
from bgp.events import Opened
from bgp.rib import Inbound, Outbound
from bgp.seam import Advertisement, Peer

FOUR, SIX, OTHER = map(ip_address, ("192.0.2.9", "2001:db8::9", "2001:db8::8"))
PEER = Peer("tor1", ip_address("192.0.2.1"), 65001, 65002, "192.0.2.9", families=(4, 6))


class Host:
    """`held`: its addresses, all of one link; None: they cannot be read. `looks`: how often they
    were."""

    def __init__(self) -> None:
        self.held: list[Held] | None = [Held(2, FOUR, wide=True), Held(2, SIX, wide=True)]
        self.looks = 0

    def usable(self) -> list[Held] | None:
        self.looks += 1
        return self.held


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(addresses, "usable", made.usable)
    monkeypatch.setattr(addresses, "towards", lambda *_: None)
    return made


def session(peer: Peer = PEER) -> tuple[Outbound, Inbound]:
    inbound = Inbound(peer)
    inbound.opened(Opened(peer.address, 120, families=frozenset(peer.carried)), 0.0)
    return Outbound(peer), inbound


def test_they_follow_the_addresses_while_the_session_is_up(host: Host) -> None:
    outbound, inbound = pair = session()
    hops.came_up(outbound, inbound, FOUR)
    assert outbound.hops == {4: FOUR, 6: SIX}
    host.held = [Held(2, OTHER, wide=True), Held(2, FOUR, wide=True), Held(2, SIX, wide=True)]
    assert hops.look([pair]) == [outbound]
    assert outbound.hops[6] == SIX, "one more is no reason to change"
    host.held = [Held(2, FOUR, wide=True), Held(2, OTHER, wide=True), Held(3, SIX, wide=True)]
    hops.look([pair])
    assert outbound.hops == {4: FOUR, 6: OTHER}
    host.held = [Held(2, FOUR, wide=True)]
    hops.look([pair])
    assert outbound.hops == {4: FOUR}


def test_what_cannot_be_found_out_changes_nothing(host: Host) -> None:
    outbound, inbound = pair = session()
    six = ip_network("fd00:65::1/128")
    wanted = {six: Advertisement(six)}
    outbound.touch(wanted)
    hops.came_up(outbound, inbound, FOUR)
    while outbound.next_command(wanted, 0.0, complete=True):
        pass
    host.held = None
    assert hops.look([pair]) == []
    outbound.up = False
    hops.came_up(outbound, inbound, None)
    assert outbound.hops == {4: FOUR, 6: SIX}
    commands = []
    while command := outbound.next_command(wanted, 1.0, complete=True):
        commands.append(command.split()[2])
    assert commands == ["announce", "announce"], "End-of-RIB of both, and no withdrawal"


def test_nothing_is_said_where_our_end_is_not_known(host: Host) -> None:
    outbound, inbound = session()
    hops.came_up(outbound, inbound, None)
    assert outbound.next_command({}, 0.0, complete=True) is None, "nor End-of-RIB"
    assert host.looks == 0


def test_one_look_is_for_all_and_none_for_those_that_need_none(host: Host) -> None:
    plain = Peer("tor2", ip_address("192.0.2.2"), 65001, 65002, "192.0.2.9")
    pairs = [session(), session(), session(plain)]
    for outbound, inbound in pairs:
        hops.came_up(outbound, inbound, FOUR)
    host.looks = 0
    assert hops.look(pairs) == [pairs[0][0], pairs[1][0]]
    assert host.looks == 1
    assert hops.look(pairs[2:]) == []
    assert host.looks == 1
