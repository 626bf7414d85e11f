"""While what policies are compiled to is changed, and the whole table made anew, not one packet
passes that is denied before and after."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle

import pytest
from support.compiled import TABLE, policy
from support.flows import entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from policies.compile.compiler import compiled
from policies.compile.ruleset import Ruleset
from policies.counters import Key
from policies.model import Endpoint, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import plan
from routed.kernel.linux import LinuxKernel
from routed.state import HostState, host_interface_name

pytestmark = pytest.mark.root
Make = Callable[[str], str]
ADDRESSES = {"a.h": "10.65.0.1", "b.h": "10.65.0.2"}
ROUNDS = 40
WAIT = 10  # seconds, for what has to come


def ruleset(number: int) -> Ruleset:
    """Always another one, in which b takes TCP alone."""
    some = [Endpoint(name, {"is": name}, link=host_interface_name(name)) for name in ADDRESSES]
    more = [Endpoint(f"c{n}", {"is": "c"}, link=f"rtc{n}") for n in range(number % 3)]
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [number + 1]}}
    policies = [policy("b", selector="is == 'b.h'", ingress=[rule] * (1 + number % 2))]
    if number % 4 == 0:
        policies.append(policy("c", selector="is in {'b.h', 'c'}", order=1, ingress=[rule]))
    if number % 5 == 0:
        policies.append(policy("all", egress=[{"action": "Allow"}]))
    return compiled(plan([], policies, [*some, *more]), Membership())


@contextmanager
def flood(netns: str, to: str) -> Iterator[None]:
    """Packets, as fast as they go."""
    over = threading.Event()
    with entered(netns):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def sending() -> None:
        while not over.is_set():
            sender.sendto(b"x", (to, 7000))

    thread = threading.Thread(target=sending)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sender.close()


def test_nothing_passes_meanwhile(namespaces: Make) -> None:
    spaces = {name: namespaces(name[0]) for name in ADDRESSES}

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        table.sync(Nat(), ruleset(0))
        ends = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
        await kernel.sync(HostState(endpoints=ends))
        with entered(spaces["b.h"]):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((ADDRESSES["b.h"], 7000))
        receiver.settimeout(0)
        tampering = cycle(
            (
                "add chain inet routed stray",  # all is made anew
                "add rule inet routed policy-ingress accept",  # behind the last rule
                "add rule inet routed antispoof counter",
                "",
            )
        )
        with flood(spaces["a.h"], ADDRESSES["b.h"]):
            for number in range(1, ROUNDS):
                table.sync(Nat(), ruleset(number), trusted=True)
                if command := next(tampering):
                    run("nft", command)
                    assert table.sync(Nat(), ruleset(number))
            with pytest.raises(BlockingIOError):
                receiver.recv(1)
            receiver.settimeout(WAIT)
            run("nft", "delete", "table", *TABLE.split())
            assert receiver.recv(1), "it would have been seen"
        receiver.close()

    in_fresh_namespace(body)


def test_a_link_that_is_in_no_set_sends_and_receives_nothing(namespaces: Make) -> None:
    spaces = {name: namespaces(name[0]) for name in ADDRESSES}

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        allow = [policy("p", ingress=[{"action": "Allow"}], egress=[{"action": "Allow"}])]
        both = [Endpoint(name, {}, link=host_interface_name(name)) for name in ADDRESSES]
        ends = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
        await kernel.sync(HostState(endpoints=ends))
        with entered(spaces["b.h"]):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((ADDRESSES["b.h"], 7000))
        for missing, word in ((0, "egress"), (1, "ingress")):
            known = [one for place, one in enumerate(both) if place != missing]
            table.sync(Nat(), compiled(plan([], allow, known), Membership()))
            label = f"{word} unknown link"
            with flood(spaces["a.h"], ADDRESSES["b.h"]):
                while not table.counted().totals()[Key(label)].packets:
                    pass
            receiver.settimeout(0)
            with pytest.raises(BlockingIOError):
                receiver.recv(1)
        table.sync(Nat(), compiled(plan([], allow, both), Membership()))
        receiver.settimeout(WAIT)
        with flood(spaces["a.h"], ADDRESSES["b.h"]):
            assert receiver.recv(1)
        receiver.close()

    in_fresh_namespace(body)
