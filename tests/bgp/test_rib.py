"""Adj-RIB-Out and Adj-RIB-In, the pure parts of the speaker."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.resources.net import IPNetwork
from bgp.events import Opened, Received
from bgp.rib import REST, Inbound, Outbound
from bgp.seam import Advertisement, Peer

PEER = Peer("tor1", ip_address("192.0.2.1"), 65001, 4200000000, "192.0.2.9")
LOCAL = ip_address("192.0.2.9")
PREFIXES = [IPv4Network(f"10.65.0.{n}/32") for n in range(6)]


def adv(prefix: IPNetwork) -> Advertisement:
    return Advertisement(prefix)


def drain(out: Outbound, wanted: dict[IPNetwork, Advertisement], now: float) -> list[str]:
    found = []
    while (command := out.next_command(wanted, now, complete=True)) is not None:
        found.append(command)
    return found


def test_end_of_rib_comes_after_everything_and_only_when_complete() -> None:
    wanted: dict[IPNetwork, Advertisement] = {p: adv(p) for p in PREFIXES}
    out = Outbound(PEER)
    out.touch(wanted)
    assert out.next_command(wanted, 0.0, complete=True) is None, "nothing while it is down"
    out.came_up({4: LOCAL})
    first = out.next_command(wanted, 0.0, complete=False)
    assert first is not None
    assert first.startswith("neighbor 192.0.2.1 announce attributes next-hop 192.0.2.9 nlri ")
    assert all(str(p) in first for p in PREFIXES)
    rest = [out.next_command(wanted, 0.0, complete=False) for _ in range(3)]
    assert not any("eor" in command for command in rest if command)
    last = out.next_command(wanted, 0.0, complete=True)
    assert last == "neighbor 192.0.2.1 announce eor ipv4 unicast"
    assert out.next_command(wanted, 0.0, complete=True) is None


def test_a_prefix_rests_between_two_changes_and_they_coalesce() -> None:
    prefix = PREFIXES[0]
    wanted: dict[IPNetwork, Advertisement] = {prefix: adv(prefix)}
    out = Outbound(PEER)
    out.came_up({4: LOCAL})
    out.touch([prefix])
    assert len(drain(out, wanted, 0.0)) == 2  # the announcement, End-of-RIB
    out.touch([prefix])
    assert drain(out, {}, 0.1) == [], "it changed 0.1 s ago"
    assert out.wake_at() == REST
    out.touch([prefix])
    assert drain(out, wanted, REST) == [], "withdrawn and announced again: nothing to say"
    out.touch([prefix])
    assert drain(out, {}, REST) == [
        "neighbor 192.0.2.1 withdraw attributes next-hop 192.0.2.9 nlri 10.65.0.0/32"
    ]


def test_what_changed_while_down_is_sent_and_flushed() -> None:
    wanted: dict[IPNetwork, Advertisement] = {p: adv(p) for p in PREFIXES}
    out = Outbound(PEER)
    out.touch(wanted)
    out.came_up({4: LOCAL})
    drain(out, wanted, 0.0)
    out.up = False
    del wanted[PREFIXES[0]]
    out.touch([PREFIXES[0]])
    assert drain(out, wanted, 5.0) == []
    out.came_up({4: LOCAL})
    said = drain(out, wanted, 5.0)
    assert [c.split()[2] for c in said] == ["withdraw", "flush", "announce"]
    assert said[-1].endswith("eor ipv4 unicast")


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 1)), max_size=40))
def test_any_sequence_ends_with_the_peer_told_what_is_wanted(
    changes: list[tuple[int, bool, float]],
) -> None:
    wanted: dict[IPNetwork, Advertisement] = {}
    peer: set[str] = set()
    out = Outbound(PEER)
    out.came_up({4: LOCAL})
    now = 0.0

    def tell(at: float) -> None:
        for command in drain(out, wanted, at):
            words = command.split()
            if "nlri" in words:
                listed = set(words[words.index("nlri") + 1 :])
                peer.symmetric_difference_update(listed)
                assert peer >= listed if "announce" in words else not peer & listed

    for index, announced, passed in changes:
        prefix = PREFIXES[index]
        if announced:
            wanted[prefix] = adv(prefix)
        else:
            wanted.pop(prefix, None)
        out.touch([prefix])
        now += passed
        tell(now)
    tell(now + REST)
    assert peer == {str(prefix) for prefix in wanted}


def received(*prefixes: str, path: tuple[int, ...] = (65001,)) -> Received:
    hop = ip_address("192.0.2.1")
    return Received(PEER.address, tuple((ip_network(p), hop) for p in prefixes), as_path=path)


def test_a_path_with_our_own_as_is_a_loop() -> None:
    rib = Inbound(PEER)
    rib.receive(received("10.65.1.1/32"))
    gone, new = rib.receive(received("10.65.1.1/32", path=(65001, 4200000000)))
    assert gone == [ip_network("10.65.1.1/32")]
    assert not new
    assert not rib.paths


def test_a_graceful_peers_paths_stay_until_its_end_of_rib() -> None:
    rib = Inbound(PEER, restart=120)
    rib.receive(received("10.65.1.1/32", "10.65.1.2/32"))
    gone, stale = rib.went_down(100.0)
    assert not gone
    assert all(path.stale for path in stale)
    rib.receive(received("10.65.1.1/32"))
    gone, _ = rib.receive(Received(PEER.address, end_of_rib=4))
    assert gone == [ip_network("10.65.1.2/32")]
    assert list(rib.paths) == [ip_network("10.65.1.1/32")]


def test_stale_paths_expire_and_a_peer_without_gr_loses_all_at_once() -> None:
    rib = Inbound(PEER, restart=120)
    rib.receive(received("10.65.1.1/32"))
    rib.went_down(100.0)
    assert rib.expire(100.0 + PEER.graceful_restart_time - 1) == []
    assert rib.expire(100.0 + PEER.graceful_restart_time) == [ip_network("10.65.1.1/32")]
    plain = Inbound(PEER)
    plain.receive(received("10.65.1.1/32"))
    assert plain.went_down(0.0)[0] == [ip_network("10.65.1.1/32")]


def test_no_more_than_max_prefixes() -> None:
    rib = Inbound(Peer("t", PEER.address, 1, 2, "192.0.2.9", max_prefixes=2))
    _, new = rib.receive(received("10.65.1.1/32", "10.65.1.2/32", "10.65.1.3/32", path=(1,)))
    assert len(new) == 2
    assert rib.refused == 1


def test_a_notification_ends_it_all_although_the_peer_restarts_gracefully() -> None:
    rib = Inbound(PEER, restart=120)
    rib.receive(received("10.65.1.1/32"))
    assert rib.went_down(0.0, notified=True) == ([ip_network("10.65.1.1/32")], [])


def test_the_peers_restart_time_bounds_what_is_stale() -> None:
    rib = Inbound(PEER, restart=20)
    rib.receive(received("10.65.1.1/32"))
    rib.went_down(0.0)
    assert rib.expire(19.0) == []
    assert rib.expire(20.0) == [ip_network("10.65.1.1/32")]


@pytest.mark.parametrize(("forwarding", "kept"), [(True, True), (False, False)])
def test_a_peer_back_without_its_forwarding_state_keeps_nothing(
    forwarding: bool, kept: bool
) -> None:
    rib = Inbound(PEER, restart=20)
    rib.receive(received("10.65.1.1/32"))
    rib.went_down(0.0)
    kept4 = frozenset({4})
    gone = rib.opened(Opened(PEER.address, 20, kept4, kept4 if forwarding else frozenset()), 10.0)
    assert (gone == []) is kept
    assert bool(rib.paths) is kept


def test_our_own_restart_keeps_what_a_mere_helper_told_us() -> None:
    rib = Inbound(PEER)
    rib.receive(received("10.65.1.1/32"))
    assert [path.stale for path in rib.restarted(0.0)] == [True]
    assert rib.opened(Opened(PEER.address, None), 1.0) == []
    assert rib.receive(Received(PEER.address, end_of_rib=4))[0] == [ip_network("10.65.1.1/32")]


BOTH = Peer(
    "tor1", ip_address("2001:db8::1"), 65001, 4200000000, "192.0.2.9", families=(4, 6), hold_time=3
)
SIX = ip_network("fd00:65::1/128")


def both() -> dict[IPNetwork, Advertisement]:
    return {PREFIXES[0]: adv(PREFIXES[0]), SIX: adv(SIX)}


def test_each_family_has_its_next_hop_and_its_end_of_rib() -> None:
    wanted, out = both(), Outbound(BOTH)
    out.touch(wanted)
    out.came_up({4: LOCAL, 6: ip_address("2001:db8::9")})
    said = drain(out, wanted, 0.0)
    assert said == [
        "neighbor 2001:db8::1 announce attributes next-hop 192.0.2.9 nlri 10.65.0.0/32",
        "neighbor 2001:db8::1 announce attributes next-hop 2001:db8::9 nlri fd00:65::1/128",
        "neighbor 2001:db8::1 flush adj-rib out",
        "neighbor 2001:db8::1 announce eor ipv4 unicast",
        "neighbor 2001:db8::1 announce eor ipv6 unicast",
    ]
    out.touch(wanted)
    gone = drain(out, {}, REST)
    assert [command.split()[-1] for command in gone] == ["10.65.0.0/32", "fd00:65::1/128"]


def test_a_family_without_a_next_hop_waits_and_holds_nothing_up() -> None:
    wanted, out = both(), Outbound(BOTH)
    out.touch(wanted)
    out.came_up({6: ip_address("2001:db8::9")})
    assert [c.split()[-2] for c in drain(out, wanted, 0.0)] == ["nlri", "adj-rib", "ipv6"]
    assert out.idle()
    assert out.wake_at() is None
    out.use({4: LOCAL, 6: ip_address("2001:db8::9")})
    assert [c.split()[-2] for c in drain(out, wanted, 0.0)] == ["nlri", "ipv4"]


OVER_FOUR = dataclasses.replace(PEER, families=(4, 6))
HOPS = {4: LOCAL, 6: ip_address("2001:db8::9")}
GONE = "neighbor 192.0.2.1 withdraw attributes next-hop 2001:db8::9 nlri fd00:65::1/128"


@pytest.mark.parametrize("detached", [False, True])
def test_a_session_that_comes_up_without_a_next_hop_withdraws_what_exabgp_repeats(
    detached: bool,
) -> None:
    wanted, out = both(), Outbound(OVER_FOUR)
    out.touch(wanted)
    out.came_up(HOPS)
    drain(out, wanted, 0.0)
    out.up = False
    if detached:
        del wanted[SIX]
        out.touch([SIX])
    out.came_up({4: LOCAL}, carried=(4, 6))
    assert not out.idle()
    assert out.wake_at() is not None
    said = drain(out, wanted, 1.0)
    assert said[0] == GONE
    assert [command.split()[-2] for command in said[-2:]] == ["ipv6", "ipv4"], "End-of-RIB of both"
    assert out.idle()
    assert out.wake_at() is None
    assert SIX not in out.told
    out.use(HOPS)
    assert any(str(SIX) in command for command in drain(out, wanted, 2.0)) is not detached


def test_what_is_detached_while_there_is_no_next_hop_is_withdrawn() -> None:
    wanted, out = both(), Outbound(OVER_FOUR)
    out.touch(wanted)
    out.came_up(HOPS)
    drain(out, wanted, 0.0)
    out.use({4: LOCAL})
    del wanted[SIX]
    out.touch([SIX])
    assert drain(out, wanted, 0.1) == []
    assert (out.idle(), out.wake_at()) == (False, REST)
    assert drain(out, wanted, REST) == [GONE]
    assert out.idle()


def test_another_next_hop_while_the_session_is_up_is_told() -> None:
    wanted, out = both(), Outbound(OVER_FOUR)
    out.touch(wanted)
    out.came_up(HOPS)
    drain(out, wanted, 0.0)
    out.use({4: LOCAL, 6: ip_address("2001:db8::8")})
    (said,) = drain(out, wanted, 1.0)
    assert said.endswith("announce attributes next-hop 2001:db8::8 nlri fd00:65::1/128")
    out.use({4: LOCAL, 6: ip_address("2001:db8::8")})
    assert drain(out, wanted, 2.0) == []


def test_another_next_hop_than_in_the_last_session_is_told_anew() -> None:
    wanted, out = both(), Outbound(BOTH)
    out.touch(wanted)
    out.came_up({4: ip_address("2001:db8::9"), 6: ip_address("2001:db8::9")})
    drain(out, wanted, 0.0)
    out.up = False
    del wanted[SIX]
    out.touch([SIX])
    out.came_up({4: LOCAL, 6: ip_address("2001:db8::8")})
    said = drain(out, wanted, 5.0)
    assert [c.split()[2] for c in said] == ["withdraw", "announce", "flush", "announce", "announce"]
    assert said[1].endswith("next-hop 192.0.2.9 nlri 10.65.0.0/32")


def heard(*prefixes: IPNetwork) -> Received:
    return Received(BOTH.address, tuple((p, ip_address("2001:db8::1")) for p in prefixes))


def test_each_familys_end_of_rib_sweeps_its_own() -> None:
    rib = Inbound(BOTH)
    rib.opened(Opened(BOTH.address, 120, frozenset({4, 6}), families=frozenset({4, 6})), 0.0)
    rib.receive(heard(PREFIXES[0], SIX))
    rib.went_down(0.0)
    back = Opened(BOTH.address, 120, frozenset({4, 6}), frozenset({4, 6}), frozenset({4, 6}))
    assert rib.opened(back, 1.0) == []
    assert rib.receive(Received(BOTH.address, end_of_rib=6))[0] == [SIX]
    assert not rib.whole
    assert rib.expire(60.0) == []
    assert rib.receive(Received(BOTH.address, end_of_rib=4))[0] == [PREFIXES[0]]
    assert rib.whole


def test_a_peer_keeps_one_family_and_not_the_other() -> None:
    rib = Inbound(BOTH)
    rib.opened(Opened(BOTH.address, 120, frozenset({4}), families=frozenset({4, 6})), 0.0)
    rib.receive(heard(PREFIXES[0], SIX))
    gone, stale = rib.went_down(0.0)
    assert (gone, [path.prefix for path in stale]) == ([SIX], [PREFIXES[0]])
    rib = Inbound(BOTH)
    rib.opened(Opened(BOTH.address, 120, frozenset({4, 6}), families=frozenset({4, 6})), 0.0)
    rib.receive(heard(PREFIXES[0], SIX))
    rib.went_down(0.0)
    half = Opened(BOTH.address, 120, frozenset({4, 6}), frozenset({4}), frozenset({4, 6}))
    assert rib.opened(half, 1.0) == [SIX]


def test_a_peer_that_does_not_offer_a_family_is_whole_without_it() -> None:
    rib = Inbound(BOTH)
    rib.opened(Opened(BOTH.address, None, families=frozenset({4})), 0.0)
    rib.receive(Received(BOTH.address, end_of_rib=4))
    assert rib.whole


@pytest.mark.parametrize(
    ("hops", "used"),
    [
        (("2001:db8::1", "fe80::1"), ("2001:db8::1",)),
        (("::", "fe80::1"), ("fe80::1",)),
        (("fe80::1",), ("fe80::1",)),
        (("169.254.0.9",), ("169.254.0.9",)),
    ],
)
def test_of_a_global_and_a_link_local_next_hop_one_is_used(
    hops: tuple[str, ...], used: tuple[str, ...]
) -> None:
    rib = Inbound(BOTH)
    rib.receive(Received(BOTH.address, tuple((SIX, ip_address(hop)) for hop in hops)))
    assert tuple(map(str, rib.paths[SIX].next_hops)) == used
