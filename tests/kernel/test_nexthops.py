"""Which next hops and groups there should be: pure, judged by a model of what the kernel does."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from routed.kernel import fib, nexthops
from routed.kernel import messages as m
from routed.kernel.netlink import attr, attr_u32
from routed.kernel.nexthops import Objects, Way
from routed.state import (
    GROUP_IDS,
    LONE_NEXT_HOP_IDS,
    NEXT_HOP_IDS,
    LearnedRoute,
    NextHop,
    level,
)

GATEWAYS = tuple(NextHop(ip_address(f"192.0.2.{n}")) for n in range(1, 5))
USABLE = {hop: (hop.gateway.packed, 2) for hop in GATEWAYS}
PREFIXES = tuple(ip_network(f"10.0.0.{n}/32") for n in range(8))
AT = level(4, 32, 512)
LEGACY = 0  # the group of a route that names its gateways itself


def way(hops: tuple[NextHop, ...]) -> Way:
    return nexthops.way_of(hops, USABLE)


@dataclass
class Model:
    """A kernel with next hop objects and routes: address to group."""

    held: Objects = field(default_factory=Objects)
    routes: dict[bytes, int] = field(default_factory=dict)
    legacy: dict[bytes, Way] = field(default_factory=dict)

    def way(self, address: bytes) -> Way:
        group = self.routes.get(address)
        if group is None:
            return ()
        return self.legacy[address] if group == LEGACY else self.held.way(group)

    def ways(self) -> dict[bytes, Way]:
        return {address: self.way(address) for address in self.routes}

    def delete(self, number: int) -> None:
        self.held.taken.discard(number)
        self.held.hops.pop(number, None)
        for group, members in list(self.held.groups.items()):
            self.held.groups[group] = tuple(one for one in members if one != number)
            if group == number or not self.held.groups[group]:
                del self.held.groups[group]
                self.held.taken.discard(group)
                self.routes = {a: g for a, g in self.routes.items() if g != group}

    def table(self) -> fib.Table:
        shapes = {g: fib.Shape(1, 82, 512, g, ()) for g in {*self.held.groups, LEGACY}}
        return {AT: {address: shapes[group] for address, group in self.routes.items()}}

    def sync(self, desired: list[LearnedRoute], *, sweep: bool = True) -> int:
        """As the driver does it; checked after each step. The number of changes."""
        wanted = {route.address: way(route.next_hops) for route in desired}
        before = self.ways()
        changes = 0

        def check() -> None:
            for address, old in before.items():
                new = wanted.get(address, () if sweep else old)
                now = self.way(address)
                assert set(now) <= set(old) | set(new) or not new, "neither the old nor the new"
                assert now or not (old and new), "a gap"

        if sweep:
            for number in nexthops.unwanted(self.held, desired):
                self.delete(number)
                changes += 1
                check()
        table = self.table()
        cells = fib.cells(desired, table)
        surplus = fib.surplus(cells, table).get(AT, [])
        kept = () if sweep else {self.routes[address] for address in surplus}
        todo = nexthops.arrange(cells, self.held, USABLE, kept, sweep=sweep)
        for number, hop in todo.hops.items():
            assert number not in self.held.taken
            self.held.taken.add(number)
            self.held.hops[number] = hop
        for group, members in todo.groups.items():
            assert group not in self.held.taken
            self.held.taken.add(group)
            assert set(members) <= self.held.hops.keys()
            self.held.groups[group] = members
        for group, cell in todo.move:
            for address in cell.addresses:
                self.routes[address] = group
                check()
        for group, members in todo.change.items():
            assert set(members) <= self.held.hops.keys()
            self.held.groups[group] = members
            check()
        for group, cell in todo.add:
            self.routes |= dict.fromkeys(cell.addresses, group)
            check()
        changes += len(todo.hops) + len(todo.groups) + len(todo.change)
        changes += sum(len(cell.addresses) for _, cell in (*todo.move, *todo.add))
        if sweep:
            for address in surplus:
                del self.routes[address]
                changes += 1
            for number in todo.idle_groups + todo.idle_hops:
                self.delete(number)
                check()
                changes += 1
        assert {address: self.way(address) for address in wanted} == wanted
        return changes


def routes(*sets: tuple[NextHop, ...]) -> list[LearnedRoute]:
    """The first of PREFIXES over the first of `sets`, and so on; none where that is empty."""
    pairs = zip(PREFIXES, sets, strict=False)
    return [LearnedRoute(prefix, hops) for prefix, hops in pairs if hops]


SETS = st.sets(st.sampled_from(GATEWAYS)).map(lambda hops: tuple(sorted(hops, key=str)))
PLANS = st.lists(SETS, min_size=len(PREFIXES), max_size=len(PREFIXES))


@settings(max_examples=300)
@given(st.lists(st.tuples(PLANS, st.booleans()), min_size=1, max_size=6), st.randoms())
def test_whatever_was_there_routes_get_what_they_should_without_a_gap(
    plans: list[tuple[list[tuple[NextHop, ...]], bool]], dice: object
) -> None:
    kernel = Model()
    for plan, sweep in plans:
        desired = routes(*plan)
        kernel.sync(desired, sweep=sweep)
        assert kernel.sync(desired, sweep=sweep) == 0, "a second sync changes nothing"
        if sweep:
            assert set(kernel.routes) == {route.address for route in desired}
            used = {
                one for group in set(kernel.routes.values()) for one in kernel.held.groups[group]
            }
            assert set(kernel.held.groups) == set(kernel.routes.values())
            assert set(kernel.held.hops) == used, "nothing is left behind"
        somebodys = sorted(kernel.held.taken)
        if somebodys:
            kernel.delete(dice.choice(somebodys))  # type: ignore[attr-defined]


def test_a_gateway_that_goes_costs_one_change_however_many_routes() -> None:
    kernel = Model()
    kernel.sync(routes(*[GATEWAYS[:2]] * 8))
    assert kernel.sync(routes(*[GATEWAYS[:1]] * 8)) == 1
    assert kernel.sync(routes(*[GATEWAYS[:2]] * 8)) == 2, "the next hop, and the group"


def test_routes_of_one_gateway_alone_do_not_keep_it_in_the_others() -> None:
    kernel = Model()
    kernel.sync(routes(*[GATEWAYS[:2]] * 7, GATEWAYS[1:2]))
    gone = nexthops.unwanted(kernel.held, routes(*[GATEWAYS[:1]] * 7))
    assert [kernel.held.hops[number] for number in gone] == [USABLE[GATEWAYS[1]]]
    assert gone[0] in NEXT_HOP_IDS


def test_the_last_gateway_of_a_group_is_not_deleted_before_it_has_another() -> None:
    kernel = Model()
    kernel.sync(routes(GATEWAYS[:1], GATEWAYS[:1]))
    other = routes(GATEWAYS[1:2], GATEWAYS[1:2])
    assert nexthops.unwanted(kernel.held, other) == []
    group = kernel.routes[other[0].address]
    kernel.sync(other)
    assert kernel.routes[other[0].address] == group, "the group has changed, not the routes"


def test_the_search_for_unwanted_gateways_ends_when_all_are_seen() -> None:
    kernel = Model()
    kernel.sync(routes(GATEWAYS[:2]))
    seen = []

    def some() -> object:
        for route in routes(GATEWAYS[:2], GATEWAYS[:2], GATEWAYS[:2]):
            seen.append(route)
            yield route

    assert nexthops.unwanted(kernel.held, some()) == []  # type: ignore[arg-type]
    assert len(seen) == 1


def test_most_routes_of_a_group_decide_what_it_becomes() -> None:
    kernel = Model()
    kernel.sync(routes(*[GATEWAYS[:2]] * 8))
    (group,) = set(kernel.routes.values())
    kernel.sync(routes(*[GATEWAYS[:3]] * 6, GATEWAYS[:2], GATEWAYS[2:4]))
    chosen = [kernel.routes[prefix.network_address.packed] for prefix in PREFIXES]
    assert chosen[:6] == [group] * 6
    assert len(set(chosen)) == 3


def test_routes_that_name_their_gateways_are_moved_to_a_group() -> None:
    kernel = Model()
    (route,) = routes(GATEWAYS[:2])
    kernel.routes[route.address] = LEGACY
    kernel.legacy[route.address] = way(GATEWAYS[:2])
    assert kernel.sync([route]) > 0
    assert kernel.routes[route.address] in GROUP_IDS


def test_a_route_without_usable_next_hops_is_left_out_or_left_alone() -> None:
    kernel = Model()
    (route,) = desired = routes(GATEWAYS[:1])
    kernel.sync(desired)
    cells = fib.cells(desired, kernel.table())
    for sweep in (True, False):
        todo = nexthops.arrange(cells, kernel.held, {}, (), sweep=sweep)
        assert todo.nowhere == cells
        assert bool(todo.idle_groups) == sweep, "its group goes only where it may go itself"
        assert not (todo.add or todo.move or todo.change)
    assert nexthops.arrange(fib.cells([route], {}), Objects(), {}, (), sweep=True).nowhere


def shown(number: int, protocol: int = 82, **parts: bytes) -> bytes:
    body = struct.pack("=BBBBI", 2, 0, protocol, 0, 0) + attr_u32(m.NHA_ID, number)
    for name, value in parts.items():
        body += attr(getattr(m, f"NHA_{name.upper()}"), value)
    return body


def test_what_has_our_marks_but_is_not_as_we_make_it_means_nothing() -> None:
    one, lone, group = NEXT_HOP_IDS[0], LONE_NEXT_HOP_IDS[0], GROUP_IDS[0]
    gateway, link = ip_address("192.0.2.1").packed, struct.pack("=I", 2)
    found = nexthops.objects(
        [
            shown(one, gateway=gateway, oif=link),
            shown(one + 1, blackhole=b""),
            shown(one + 2, gateway=gateway, oif=link, encap_type=b"\1\0"),
            shown(lone, 4, gateway=gateway, oif=link),
            shown(7, gateway=gateway, oif=link),
            shown(group, group=struct.pack("=II", one, 0)),
            shown(group + 1, group=struct.pack("=II", one, 3)),
            shown(group + 2, group=struct.pack("=IIII", one, 0, 7, 0)),
        ]
    )
    assert found.taken == {one, one + 1, one + 2, lone, 7, group, group + 1, group + 2}
    assert found.hops == {one: (gateway, 2), one + 1: (b"", 0), one + 2: (b"", 2)}
    assert [found.way(group + n) for n in range(3)] == [((gateway, 2),), (), ()]
    assert found.find((gateway, 2), NEXT_HOP_IDS) == one
    assert found.find((gateway, 2), LONE_NEXT_HOP_IDS) is None
    assert next(found.free(NEXT_HOP_IDS)) == one + 3
