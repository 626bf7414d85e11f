"""Who holds which truth, as a pure state machine: two hosts, a service, a switch.

Time is discrete. Every tick each component that is up does its part; what is down does nothing and
loses what ADR 1 says it loses. Blocks hold one address each, so that an address can change hosts.
`Rules` are ADR 1's; switching one off gives a mutant that the enumeration must find.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GR = 6  # ticks that a switch keeps the routes of a session that ended (RFC 4724)
STALE_PATH = 14  # ticks that it keeps them after a new session without End-of-RIB
COOL = 3  # ticks before a freed address may be given to anybody else
ADDRESSES = (0, 1)


@dataclass(frozen=True)
class Rules:
    sweep_needs_intent: bool = True  # R3
    reports_are_no_intent: bool = True  # R2
    eor_needs_complete: bool = True  # R6
    release_needs_withdrawal: bool = True  # R8
    announce_after_read_back: bool = True  # R5
    owner_down_keeps_blocks: bool = True  # R7
    boot_forgets_reports: bool = True  # R4
    freed_addresses_cool: bool = True  # R8


@dataclass
class Record:
    address: int
    origin: str
    detaching: bool = False


@dataclass
class Intent:
    """What the service last said to a host."""

    blocks: set[int]
    declared: set[str]
    reports: dict[str, int]


@dataclass
class Host:
    up: bool = True
    # kernel and /run: gone with a reboot
    links: dict[str, int] = field(default_factory=dict)
    spaces: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    cooling: dict[int, int] = field(default_factory=dict)
    marker: bool = True
    # disk
    stored: Intent | None = None
    # agent
    agent: bool = True
    intent: Intent | None = None
    read_back: bool = False
    # speaker
    speaker: bool = True
    advertised: set[int] = field(default_factory=set)
    complete: bool = False
    session: bool = False


@dataclass
class World:
    rules: Rules = field(default_factory=Rules)
    now: int = 0
    hosts: list[Host] = field(default_factory=lambda: [Host(), Host()])
    # the service's store survives its outage
    service: bool = True
    blocks: dict[int, int] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)
    reports: dict[str, tuple[int, int]] = field(default_factory=dict)
    # the switch: address -> host -> None, or when its stale route goes
    tor: bool = True
    rib: dict[int, dict[int, int | None]] = field(default_factory=dict)
    # what has been done to workloads, for the invariants
    ended: set[str] = field(default_factory=set)
    untrue: list[str] = field(default_factory=list)
    # workloads that the other host attaches as soon as it can
    eager: list[str] = field(default_factory=list)


def tick(world: World) -> None:
    """One unit of time."""
    world.now += 1
    for number, host in enumerate(world.hosts):
        if host.up and host.agent:
            _agent(world, number, host)
    for number, host in enumerate(world.hosts):
        _speaker(world, number, host)
    for name in world.eager:
        attach(world, 1, name)
    if world.tor:
        for holders in world.rib.values():
            for number, until in list(holders.items()):
                if until is not None and world.now >= until:
                    del holders[number]


def _agent(world: World, number: int, host: Host) -> None:
    rules = world.rules
    if not host.read_back and host.speaker and not rules.announce_after_read_back:
        known = {r.address for r in host.records.values()}
        _state(world, number, host, known)
    _learn(world, number, host)
    intent = host.intent
    wanted = {name for name, r in host.records.items() if not r.detaching}
    early = not rules.sweep_needs_intent and not host.read_back  # before intent was loaded
    if intent is not None or early:
        declared = intent.declared if intent and not early else set()
        for name in list(wanted):
            if host.records[name].origin == "api" and name not in declared:
                host.records[name].detaching = True
    for name, record in list(host.records.items()):
        if name not in host.spaces and name not in host.links:
            record.detaching = True
        if record.detaching:
            _take_away(world, host, name)
    if intent is not None:
        again = (
            intent.declared
            if rules.reports_are_no_intent
            else intent.declared | set(intent.reports)
        )
        for name in sorted(again - set(host.records)):
            origin = "api" if name in intent.declared else "node"
            if name in host.spaces:
                attach(world, number, name, origin)
    host.read_back = True
    if intent is not None and host.speaker:
        announced = {a for a in host.links.values() if a in intent.blocks}
        if not rules.boot_forgets_reports:
            announced |= set(intent.reports.values())
        _state(world, number, host, announced)
        host.complete = True
    if world.service:
        _report(world, number, host)


def _learn(world: World, number: int, host: Host) -> None:
    if world.service:
        host.intent = Intent(
            {a for a, owner in world.blocks.items() if owner == number},
            {name for name, owner in world.declared.items() if owner == number},
            {name: a for name, (owner, a) in world.reports.items() if owner == number},
        )
        host.stored = host.intent
    elif host.intent is None:
        host.intent = host.stored


def _state(world: World, number: int, host: Host, announced: set[int]) -> None:
    """The agent states the whole set; saying what the kernel does not hold is untrue."""
    for address in announced - set(host.links.values()):
        world.untrue.append(f"host {number} announces {address} without a link")
    host.advertised = announced


def _take_away(world: World, host: Host, name: str) -> None:
    record = host.records.pop(name)
    host.advertised.discard(record.address)  # withdrawn first
    host.links.pop(name, None)
    host.cooling[record.address] = world.now + COOL * world.rules.freed_addresses_cool


def _report(world: World, number: int, host: Host) -> None:
    for name, (owner, _) in list(world.reports.items()):
        if owner == number and name not in host.records:
            del world.reports[name]
    for name, record in host.records.items():
        if record.origin == "node":
            world.reports[name] = (number, record.address)
    for address in [a for a, owner in world.blocks.items() if owner == number]:
        used = any(r.address == address for r in host.records.values())
        if used or host.cooling.get(address, 0) > world.now:
            continue
        withdrawn = host.session and host.speaker and address not in host.advertised
        if withdrawn or not world.rules.release_needs_withdrawal:
            del world.blocks[address]
            if host.intent is not None:
                host.intent.blocks.discard(address)


def _speaker(world: World, number: int, host: Host) -> None:
    alive = host.up and host.speaker
    if alive:
        host.advertised &= set(host.links.values()) | (
            host.advertised if not world.rules.announce_after_read_back else set()
        )
    session = alive and world.tor
    if host.session and not session:
        for holders in world.rib.values():
            if number in holders:
                holders[number] = world.now + GR
    began = session and not host.session
    host.session = session
    if not session:
        return
    if began:
        for holders in world.rib.values():
            if holders.get(number) is not None:
                holders[number] = world.now + STALE_PATH
    for address in host.advertised:
        world.rib.setdefault(address, {})[number] = None
    for address, holders in world.rib.items():
        if number not in holders or address in host.advertised:
            continue
        fresh = holders[number] is None
        if fresh or host.complete or not world.rules.eor_needs_complete:
            del holders[number]  # a withdrawal, or End-of-RIB for what was not refreshed


# -- what users do ---------------------------------------------------------------------------------


def attach(world: World, number: int, name: str, origin: str = "node") -> bool:
    """Attach on a host; False where it cannot be (nothing is changed then)."""
    host = world.hosts[number]
    if not (host.up and host.agent and host.intent) or name in host.records:
        return False
    used = {r.address for r in host.records.values()}
    own = [a for a in host.intent.blocks if a not in used]
    free = [a for a in own if host.cooling.get(a, 0) <= world.now]
    if not free:
        if not world.service:
            return False
        owners = {
            a: o
            for a, o in world.blocks.items()
            if world.rules.owner_down_keeps_blocks or world.hosts[o].up
        }
        unowned = [a for a in ADDRESSES if a not in owners]
        if not unowned:
            return False
        free = unowned[:1]
        world.blocks[free[0]] = number
        host.intent.blocks.add(free[0])
    host.spaces.add(name)
    host.records[name] = Record(free[0], origin)
    host.links[name] = free[0]
    return True


def detach(world: World, number: int, name: str) -> None:
    host = world.hosts[number]
    if host.up and host.agent and name in host.records and host.records[name].origin == "node":
        _take_away(world, host, name)
        world.ended.add(name)


def hand_over(world: World) -> None:
    """Detached here, and every address wanted on the other host at once."""
    detach(world, 0, "old")
    world.eager = [f"eager-{address}" for address in ADDRESSES]


def declare(world: World, number: int, name: str) -> None:
    if world.service and name not in world.ended:
        world.declared[name] = number
        if world.hosts[number].up:
            world.hosts[number].spaces.add(name)


def undeclare(world: World, name: str) -> None:
    if world.service and world.declared.pop(name, None) is not None:
        world.ended.add(name)


def vanish(world: World, number: int, name: str) -> None:
    """The namespace is deleted, and with it the link."""
    host = world.hosts[number]
    if name in host.spaces:
        host.spaces.discard(name)
        host.links.pop(name, None)
        if name not in world.declared:
            world.ended.add(name)
