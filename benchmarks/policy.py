"""What policies cost: a packet, a change, and a load of all.

A hundred applications, each with policies of its own: ten rules for what comes in, of which the
last one lets the packets in question pass, and one for what goes out. `groups`: five times as many
applications among as many workloads, which is also what changes and loads are measured with. Two
workloads are really there; all others are elements of sets, or of rules where everybody has rules
of his own, as iptables makes them: one after the other, by the link.

A packet is the first one of a flow for as long as nobody answers it, so each of them meets all of
it; the figure is the sender's time until it is in the other's socket (see datapath.py).

A change is one address more or less in a selector that stands for as many as there are workloads,
or one workload more or less, which is told by its link, or, `slave`, by its address: what it is
worked out from, the transaction, and no more. The load is from nothing, with what is read back,
beside `nft -f` of the same commands. `restore` is what follows when somebody has flushed all.

    sudo -E python benchmarks/policy.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from datapath import End, Measured
from figures import figure, say
from paths import Spaces, Way, attach, in_child
from programs import command, own_network

from api.resources.policy import NetworkPolicy
from policies import base
from policies.compile.changes import joined, moved, parted
from policies.compile.compiler import Compiler
from policies.compile.ruleset import NO_POLICIES, Ruleset
from policies.model import Endpoint, Ipvlan, Members, Membership
from policies.nft import Nft
from policies.plan import Order
from routed.kernel import netns
from routed.state import host_interface_name

SIZES = (1_000, 5_000)
FEW, MANY = 100, 500  # applications
RULES = 10
CHANGES = 400
PACKETS = 10_000
UPLINK = frozenset({"up0"})
ONE, OTHER = "10.66.0.1", "10.66.0.2"


def addresses(app: int, count: int) -> frozenset[str]:
    """Of an application's workloads."""
    return frozenset(str(ip_address(0x0A420001 + app * count + n)) for n in range(count))


def selector(app: int) -> str:
    return f"app == 'a{app}'"


def policy(app: int, apps: int) -> NetworkPolicy:
    """What is from ten places may come, the first application last of them; out goes all."""
    others = [1 + (app * 7 + n) % (apps - 1) for n in range(1, RULES)]
    ingress = [
        {
            "action": "Allow",
            "protocol": "UDP",
            "source": {"selector": selector(other)},
            "destination": {"ports": [9000]},
        }
        for other in (*others, 0)
    ]
    spec = {"selector": selector(app), "ingress": ingress, "egress": [{"action": "Allow"}]}
    return NetworkPolicy.model_validate({"metadata": {"name": f"p{app}"}, "spec": spec})


class World:
    """`size` workloads of so many applications; the first two are those with these links."""

    def __init__(self, size: int, apps: int, links: tuple[str, str]) -> None:
        names = [*links, *(f"rtz{number}" for number in range(2, size))]
        of = [0, 1, *(number % apps for number in range(2, size))]
        self.endpoints = [
            Endpoint(name, {"app": f"a{app}"}, link=name)
            for name, app in zip(names, of, strict=True)
        ]
        self.order = Order([], [policy(app, apps) for app in range(apps)])
        told = {
            selector(app): Members(frozenset(map(ip_address, addresses(app, size // apps))))
            for app in range(apps)
        }
        self.known = Membership(told)
        self.compiler = Compiler()

    def compiled(self) -> Ruleset:
        return self.compiler.compile(self.order.plan(self.endpoints), self.known)


def linear(size: int, links: tuple[str, str]) -> str:
    """As iptables has it, everybody's chains found one after the other; the two come last."""
    names = [*(f"rtz{number}" for number in range(2, size)), *links]
    matches = "".join(
        f"    ip saddr 10.77.{n}.1 udp dport 9000 counter accept\n" for n in range(RULES - 1)
    )
    text = "table ip filter {\n"
    for number in range(size):
        last = "    udp dport 9000 counter accept\n    counter drop\n"
        text += f"  chain to{number} {{\n{matches}{last}  }}\n"
    text += "  chain forward {\n    type filter hook forward priority filter; policy accept;\n"
    text += "    ct state established,related counter accept\n"
    for number, name in enumerate(names):
        text += f'    oifname "{name}" counter jump to{number}\n'
    return text + "  }\n}\n"


def inside(space: str, body: Callable[[], None]) -> None:
    """`body` in a child, in that namespace."""

    def entered() -> None:
        with (
            netns.opened(f"/run/netns/{space}", None) as there,
            netns.entered(netns.open_own(), there),
        ):
            body()

    in_child(entered)


def host(spaces: Spaces, name: str, put: Callable[[tuple[str, str]], None]) -> Way:
    """Two workloads on a host of their own, under what `put` puts there for their links."""
    router, one, other = spaces.router(name), spaces.new(f"{name}a"), spaces.new(f"{name}b")
    attach(router, {one: ONE, other: OTHER})
    links = tuple(host_interface_name(f"{space}.bench") for space in (one, other))
    inside(router, lambda: put((links[0], links[1])))
    return Way(one, other, OTHER)


def load(ruleset: Ruleset) -> None:
    Nft().sync(None, ruleset)


def by_program(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@contextmanager
def hosts(directory: Path) -> Iterator[dict[str, Measured]]:
    puts: dict[str, Callable[[tuple[str, str]], None]] = {"none": lambda links: None}
    for size in SIZES:
        puts[f"{size}"] = lambda links, n=size: load(World(n, FEW, links).compiled())
        puts[f"linear.{size}"] = lambda links, n=size: by_program(linear(n, links))
    puts["groups"] = lambda links: load(World(SIZES[-1], MANY, links).compiled())
    spaces = Spaces(f"rp{os.getpid() % 100_000}")
    with ExitStack() as stack:
        stack.callback(spaces.remove)
        found = {}
        for number, (name, put) in enumerate(puts.items()):
            way = host(spaces, f"p{number}", put)
            client, server = (End(directory, space) for space in (way.here, way.there))
            for end in (client, server):
                stack.callback(end.close)
            server.number(f"listen {way.address}")
            found[name] = Measured(way, client, server)
        yield found


def dispatch(rounds: int) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as directory, hosts(Path(directory)) as paths:
        times: dict[str, list[int]] = {name: [] for name in paths}
        for path in paths.values():
            path.packets(PACKETS)
        for _ in range(rounds):
            for name, path in paths.items():
                times[name].append(path.packets(PACKETS))
    small, big = map(str, SIZES)
    for name, to, said in (
        ("none", None, ""),
        (small, "none", "no policies"),
        (big, small, f"{small} workloads"),
        ("groups", big, f"{FEW} applications"),
        (f"linear.{small}", small, f"ours at {small}"),
        (f"linear.{big}", big, f"ours at {big}"),
    ):
        ratio = None
        if to is not None:
            pairs = zip(times[name], times[to], strict=True)
            ratio = said, statistics.median(a / b for a, b in pairs)
        us = statistics.median(times[name]) / 1e3
        yield figure(f"policy.dispatch.{name}", us, "us", rounds, ratio)


def checked(ruleset: Ruleset) -> None:
    """By one who reads what is there, as he has made nothing of it."""
    with closing(Nft()) as other:
        if other.sync(None, ruleset):
            raise RuntimeError("the table was another than it should have been")


def slaves(table: Nft) -> list[float]:
    """Seconds that one workload of mode ipvlan-l3s takes to come, and to go, among as many others
    of that mode. All of it is sets and rules, which needs no ipvlan."""
    size = SIZES[-1]
    world = World(size, MANY, ("rta", "rtb"))
    ends = [
        replace(one, link="", addresses=frozenset({ip_address(0x0A420001 + n)}))
        for n, one in enumerate(world.endpoints)
    ]
    beside = Ipvlan(frozenset(a for one in ends for a in one.addresses), parents=UPLINK)
    ruleset = world.compiler.compile(world.order.plan(ends, ipvlan=beside), world.known)
    table.sync(None, ruleset)
    times = []
    for number in range(CHANGES):
        address = frozenset({ip_address(0x0B000000 + number // 2)})
        joining = Endpoint(f"w{number // 2}", {"app": "a3"}, address)
        act = joined if number % 2 == 0 else parted
        parents = UPLINK if number % 2 == 0 else frozenset[str]()
        begun = time.perf_counter()
        other = act(ruleset, world.order.place(joining), Ipvlan(address, parents=parents))
        assert other is not None
        ruleset = other
        table.sync(None, ruleset, trusted=True)
        times.append(time.perf_counter() - begun)
    checked(ruleset)
    return times


def changes() -> Iterator[dict[str, object]]:
    """At the bigger size, in this process's namespace."""
    size = SIZES[-1]
    world = World(size, MANY, ("rta", "rtb"))
    everybody = Members(frozenset(ip_address(0x0A420001 + n) for n in range(size)))
    text = selector(0)
    known = Membership({**world.known.selectors, text: everybody})
    table, compiler = Nft(), world.compiler
    ruleset = compiler.compile(world.order.plan(world.endpoints), known)
    table.sync(None, ruleset)
    members, workloads = [], []
    for number in range(CHANGES):
        address = ip_address(0x0B000000 + number // 2)
        joining = Endpoint(f"w{number // 2}", {"app": "a3"}, link=f"rty{number // 2}")
        begun = time.perf_counter()
        if number % 2 == 0:
            ruleset = moved(ruleset, text, add=[address])
        else:
            ruleset = moved(ruleset, text, gone=[address])
        table.sync(None, ruleset, trusted=True)
        between = time.perf_counter()
        act = joined if number % 2 == 0 else parted
        other = act(ruleset, world.order.place(joining))
        assert other is not None
        ruleset = other
        table.sync(None, ruleset, trusted=True)
        members.append(between - begun)
        workloads.append(time.perf_counter() - between)
    checked(ruleset)
    for name, times in (("member", members), ("workload", workloads), ("slave", slaves(table))):
        yield figure(f"policy.{name}.p50", statistics.median(times) * 1e3, "ms", CHANGES)
        worst = statistics.quantiles(times, n=100)[98]
        yield figure(f"policy.{name}.p99", worst * 1e3, "ms", CHANGES)


def loads(rounds: int) -> Iterator[dict[str, object]]:
    size = SIZES[-1]
    world = World(size, MANY, ("rta", "rtb"))
    begun = time.perf_counter()
    ruleset = world.compiled()
    fresh = time.perf_counter() - begun
    begun = time.perf_counter()
    world.compiled()
    again = time.perf_counter() - begun
    text = "\n".join(base.commands(None, None, ruleset))
    table = Nft()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, theirs, nothing = [], [], []
    for _ in range(rounds):
        for times, act in (
            (ours, lambda: table.sync(None, ruleset)),
            (nothing, lambda: Nft().sync(None, ruleset)),
        ):
            begun = time.perf_counter()
            act()
            times.append(time.perf_counter() - begun)
        command("nft", "flush", "ruleset")
        begun = time.perf_counter()
        by_program(text)
        theirs.append(time.perf_counter() - begun)
        command("nft", "flush", "ruleset")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    yield figure("policy.load.5000", statistics.median(ours), "s", rounds, ("nft -f", ratio))
    yield figure("policy.load.nft.5000", statistics.median(theirs), "s", rounds)
    # by one who remembers nothing, as after a restart
    yield figure("policy.read.5000", statistics.median(nothing), "s", rounds)
    yield figure("policy.load.memory.5000", grown, "MiB", 1)
    yield figure("policy.compile.5000", fresh, "s", 1)
    yield figure("policy.compile.again.5000", again, "s", 1)


def restores(rounds: int) -> Iterator[dict[str, object]]:
    """After somebody has flushed the table: until nothing forbidden begins any more, and until all
    is back. The agent hears of it some 20 ms after the flush, which is not in here."""
    for name, size, apps in (
        (f"{SIZES[0]}", SIZES[0], FEW),
        (f"{SIZES[1]}", SIZES[1], FEW),
        ("groups", SIZES[1], MANY),
    ):
        ruleset = World(size, apps, ("rta", "rtb")).compiled()
        table = Watched()
        table.sync(None, ruleset)
        whole, first = [], []
        for _ in range(rounds):
            command("nft", "flush", "ruleset")
            begun = time.perf_counter()
            table.sync(None, ruleset)
            whole.append(time.perf_counter() - begun)
            first.append(table.closed - begun)
        yield figure(f"policy.restore.{name}", statistics.median(whole) * 1e3, "ms", rounds)
        yield figure(f"policy.restore.closed.{name}", statistics.median(first) * 1e3, "ms", rounds)
        table.close()
        command("nft", "flush", "ruleset")


class Watched(Nft):
    """`closed`: when nothing forbidden could begin any more."""

    closed = 0.0

    def run(self, commands: str, of: str = "") -> str:
        said = super().run(commands, of)
        if "hook forward" in commands:
            self.closed = time.perf_counter()
        return said


def everything(rounds: int) -> Iterator[dict[str, object]]:
    own_network()
    command("ip", "link", "set", "lo", "up")
    yield from dispatch(rounds)
    yield from changes()
    Nft().sync(None, NO_POLICIES)
    command("nft", "flush", "ruleset")
    yield from loads(max(3, rounds // 2))
    yield from restores(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--restore", action="store_true", help="nothing but that")
    given = parser.parse_args()
    if given.restore:
        own_network()
        say("policy_restore.jsonl", restores(given.rounds))
    else:
        say("policy.jsonl", everything(given.rounds))


if __name__ == "__main__":
    main()
