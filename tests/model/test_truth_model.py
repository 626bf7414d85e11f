"""ADR 1, enumerated: every ordered pair of components failing and recovering in both orders, with
every operation at every point between, judged at every tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import permutations, product

import pytest
from truth_model import (
    GR,
    STALE_PATH,
    Host,
    Rules,
    World,
    attach,
    declare,
    detach,
    hand_over,
    tick,
    undeclare,
    vanish,
)

COMPONENTS = ("agent", "service", "speaker", "tor", "host")
POINTS = 5  # before, one down, both down, one back, both back
QUIET = GR + STALE_PATH + 6

OPERATIONS: dict[str, Callable[[World], object]] = {
    "nothing": lambda world: None,
    "attach": lambda world: attach(world, 0, "new"),
    "attach on the other host": lambda world: attach(world, 1, "other"),
    "detach": lambda world: detach(world, 0, "old"),
    "hand over": hand_over,
    "declare": lambda world: declare(world, 0, "api-new"),
    "undeclare": lambda world: undeclare(world, "api-old"),
    "vanish": lambda world: vanish(world, 0, "old"),
}
# Rules switched off together: cool-down and withdrawal both keep a freed block from a second
# announcer, and each hides most histories in which the other is missing.
MUTANTS: dict[str, tuple[str, ...]] = {
    "sweep before intent is loaded": ("sweep_needs_intent",),
    "attachments made again from reports": ("reports_are_no_intent",),
    "End-of-RIB before the set is complete": ("eor_needs_complete",),
    "block given away while still announced": ("release_needs_withdrawal",),
    "neither cool-down nor withdrawal": ("release_needs_withdrawal", "freed_addresses_cool"),
    "announced from records, not read back": ("announce_after_read_back",),
    "a merely-down node's block reclaimed": ("owner_down_keeps_blocks",),
    "announced from the intent file after a boot": ("boot_forgets_reports",),
}
STARTS = ("node-born", "declared")
PACES = (2, 5)  # ticks between steps: short of the cool-down, and beyond it
History = tuple[str, str, bool, str, int, str, int]


class Judge:
    """Watches one history; `found` has what was violated."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: list[str] = []
        self.dead: dict[tuple[int, int], tuple[int, int]] = {}
        self.settled: set[tuple[int, str]] = set()
        self.gone: set[str] = set()  # ended, and seen to be away since

    def look(self) -> None:
        world = self.world
        self.found += world.untrue
        world.untrue = []
        for address, holders in world.rib.items():
            if len(holders) > 1:
                self.found.append(f"{address} has two announcers: {sorted(holders)}")
        self._dead()
        for number, host in enumerate(world.hosts):
            for name in host.links:
                if name in self.gone:
                    self.found.append(f"{name} came back on host {number}")
            self._kept(number)
        present = {name for host in world.hosts for name in host.links}
        self.gone |= world.ended - present

    def _dead(self) -> None:
        """Nothing dead is announced beyond its bound: 2 ticks where the speaker has a session and
        an agent's word, the switch's own bounds (restart and stale-path time) otherwise."""
        world = self.world
        routes = {(a, n) for a, holders in world.rib.items() for n in holders}
        for key in list(self.dead):
            if key not in routes:
                del self.dead[key]
        for address, number in routes:
            host = world.hosts[number]
            if host.up and address in host.links.values():
                self.dead.pop((address, number), None)
                continue
            silent, told = self.dead.get((address, number), (0, 0))
            told += host.session and host.complete
            self.dead[(address, number)] = (silent + 1, told)
            if told > 2 or silent + 1 > GR + STALE_PATH:
                self.found.append(f"{address} of host {number} is dead and still announced")

    def _kept(self, number: int) -> None:
        """What lives keeps its link, and its route unless its host was silent beyond GR."""
        world, host = self.world, self.world.hosts[number]
        for name, address in host.links.items():
            if host.session and number in world.rib.get(address, {}):
                self.settled.add((number, name))
        for one, name in list(self.settled):
            gone = one == number and (name in world.ended or not host.up or name not in host.spaces)
            if gone or (one == number and not world.tor):
                self.settled.discard((one, name))
            elif one == number and name not in host.links:
                if name not in world.declared and name.startswith("api"):
                    self.settled.discard((one, name))  # undeclared
                else:
                    self.found.append(f"{name} lost its link")
                    self.settled.discard((one, name))
            elif one == number and not host.session and not self._routed(number, name):
                self.settled.discard((one, name))  # silent beyond GR: the switch's right
            elif one == number and not self._routed(number, name):
                self.found.append(f"{name} lives and lost its route")
                self.settled.discard((one, name))

    def _routed(self, number: int, name: str) -> bool:
        address = self.world.hosts[number].links[name]
        return number in self.world.rib.get(address, {})

    def quiescent(self) -> None:
        """At the end store, kernel and switch agree."""
        world = self.world
        for number, host in enumerate(world.hosts):
            known = {n for n, (owner, _) in world.reports.items() if owner == number}
            declared = {n for n, owner in world.declared.items() if owner == number}
            known |= declared & host.spaces
            if set(host.links) != known:
                self.found.append(f"host {number}: store {known}, kernel {set(host.links)}")
            routes = {a for a, holders in world.rib.items() if number in holders}
            if routes != set(host.links.values()):
                self.found.append(f"host {number}: switch {routes}, kernel {host.links}")


def histories() -> Iterator[History]:
    pairs = permutations(COMPONENTS, 2)
    for (one, other), same_order, operation in product(pairs, (True, False), OPERATIONS):
        points = range(POINTS if operation != "nothing" else 1)
        for point, start, pace in product(points, STARTS, PACES):
            yield one, other, same_order, operation, point, start, pace


def violations(rules: Rules, history: History) -> list[str]:
    one, other, same_order, operation, point, start, pace = history
    world = World(rules)
    judge = Judge(world)
    down: set[str] = set()

    def run(ticks: int) -> None:
        for _ in range(ticks):
            tick(world)
            judge.look()

    tick(world)
    if start == "node-born":
        attach(world, 0, "old")
    else:
        declare(world, 0, "api-old")
    run(4)
    back = (one, other) if same_order else (other, one)
    steps = [("fail", one), ("fail", other), ("recover", back[0]), ("recover", back[1])]
    for place in range(POINTS):
        if place == point:
            OPERATIONS[operation](world)
        run(pace)
        if place < len(steps):
            verb, component = steps[place]
            if verb == "fail":
                down.add(component)
                fail(world, component)
            else:
                down.discard(component)
                recover(world, component, down)
            run(1 if verb == "fail" else 2)
    attach(world, 1, "later")
    run(QUIET)
    judge.quiescent()
    return judge.found


def fail(world: World, component: str) -> None:
    host = world.hosts[0]
    if component == "agent":
        host.agent, host.intent, host.read_back = False, None, False
    elif component == "service":
        world.service = False
    elif component == "speaker":
        host.speaker, host.advertised, host.complete = False, set(), False
    elif component == "tor":
        world.tor = False
        world.rib = {}
        for one in world.hosts:
            one.session = False
    else:
        world.ended |= {n for n, r in host.records.items() if r.origin == "node"}
        stored = host.stored
        world.hosts[0] = Host(up=False, stored=stored, session=host.session, marker=False)


def recover(world: World, component: str, down: set[str]) -> None:
    host = world.hosts[0]
    if component == "agent":
        host.agent = True
    elif component == "service":
        world.service = True
    elif component == "speaker":
        host.speaker = True
    elif component == "tor":
        world.tor = True
    else:
        host.up = True
        host.agent, host.speaker = "agent" not in down, "speaker" not in down
        host.complete = True  # first start after a boot: nothing that the switch keeps is true
        host.spaces = {n for n, owner in world.declared.items() if owner == 0}


def test_no_pair_of_failures_breaks_a_promise() -> None:
    count = 0
    for history in histories():
        count += 1
        assert violations(Rules(), history) == [], history
    assert count >= 5000, "the enumeration became smaller"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_a_rule_a_promise_is_broken(mutant: str) -> None:
    rules = replace(Rules(), **dict.fromkeys(MUTANTS[mutant], False))
    assert any(violations(rules, history) for history in histories())


def test_every_rule_has_a_mutant() -> None:
    assert {rule for rules in MUTANTS.values() for rule in rules} == set(asdict(Rules()))
