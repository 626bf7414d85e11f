"""What rules of policies have counted: read from the kernel, and added up so that it never becomes
less, whatever becomes of the rules."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.compiled import policy
from support.flows import entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from api.resources.policy import Tier
from policies.compile.compiler import compiled
from policies.counters import Count, Counters, Key, Reading, Tally
from policies.model import Endpoint, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import plan
from routed.kernel.linux import LinuxKernel
from routed.state import HostState, host_interface_name

ADDRESSES = {"a.h": "10.65.0.1", "b.h": "10.65.0.2"}
A, B = Key("default/a ingress 0"), Key("default/b ingress 0")


def reading(table: int, *rules: tuple[int, Key, int], whole: bool = True) -> Reading:
    return Reading(table, {handle: (key, Count(n, 10 * n)) for handle, key, n in rules}, whole)


def packets(tally: Tally) -> dict[Key, int]:
    return {key: count.packets for key, count in tally.totals().items()}


def test_sums_of_what_one_rule_became_several_of() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3), (2, A, 4), (3, B, 0)))
    assert tally.totals() == {A: Count(7, 70), B: Count(0, 0)}


def test_a_chain_that_is_written_anew_goes_on_where_it_was() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3), (2, B, 5)))
    tally.take(reading(1, (2, B, 6), (7, A, 1)))
    assert packets(tally) == {A: 4, B: 6}
    tally.take(reading(1, (2, B, 6), (7, A, 9)))
    assert packets(tally) == {A: 12, B: 6}


def test_a_table_that_is_made_anew_goes_on_too_also_with_the_same_handles() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3), (2, B, 5)))
    tally.take(Reading())
    assert packets(tally) == {A: 3, B: 5}, "there is no table for a moment"
    tally.take(reading(2, (1, A, 4), (2, B, 0)))
    assert packets(tally) == {A: 7, B: 5}


def test_what_an_interrupted_reading_does_not_have_may_still_be_there() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3), (2, B, 5)))
    tally.take(reading(1, (1, A, 4), whole=False))
    assert packets(tally) == {A: 4, B: 5}
    tally.take(reading(1, (1, A, 4), (2, B, 6)))
    assert packets(tally) == {A: 4, B: 6}, "and is not counted twice"


def test_somebody_resets_counters() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3)))
    tally.take(reading(1, (1, A, 1)))
    assert packets(tally) == {A: 4}


def test_what_is_of_no_policy_any_more_is_forgotten() -> None:
    tally = Tally()
    tally.take(reading(1, (1, A, 3), (2, B, 5)))
    tally.take(reading(1, (3, B, 0)))
    tally.forget([])
    assert packets(tally) == {B: 5}, "there is still a rule of it"
    tally.take(reading(1))
    tally.forget([A])
    assert not tally.totals()


def test_what_is_gone_can_be_kept_for_the_next() -> None:
    first = Tally()
    first.take(reading(1, (1, A, 3)))
    first.take(reading(1, (2, A, 1)))
    second = Tally(first.gone)
    second.take(reading(1, (2, A, 2)))
    assert packets(second) == {A: 5}


def allowing(port: int, action: str = "Allow") -> list[dict[str, Any]]:
    return [{"action": action, "protocol": "UDP", "destination": {"ports": [port]}}]


@pytest.mark.root
def test_real_packets_are_counted_over_changes_of_policies_and_of_the_table(
    namespaces: Callable[[str], str],
) -> None:
    spaces = {name: namespaces(name[0]) for name in ADDRESSES}
    ends = [Endpoint(name, {"is": name}, link=host_interface_name(name)) for name in ADDRESSES]
    tier = {"metadata": {"name": "trial"}, "spec": {"order": 1}}
    tiers = [Tier.model_validate(tier)]

    async def body() -> None:
        kernel, table, tally = LinuxKernel(), Nft(), Tally()
        tally.take(table.counted())
        assert not tally.totals(), "no table"

        def declare(**rules: Any) -> None:
            mine = policy("in", selector="is == 'b.h'", **rules)
            trial = policy("try", tier="trial", staged=True, selector="is == 'b.h'")
            real = policy("real", tier="trial", selector="is == 'a.h'")
            made = plan(tiers, [mine, trial, real], ends)
            table.sync(Nat(), compiled(made, Membership()))

        def send(port: int) -> None:
            # each a flow of its own
            with entered(spaces["a.h"]):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sender:
                sender.sendto(b"x", (ADDRESSES["b.h"], port))
            tally.take(table.counted())

        declare(ingress=allowing(1))
        wanted = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
        await kernel.sync(HostState(endpoints=wanted))
        first, default = Key("default/in ingress 0"), Key("default ingress default")
        for port in (1, 1, 2):
            send(port)
        assert (packets(tally)[first], packets(tally)[default]) == (2, 1)
        assert tally.totals()[first].octets == 2 * 29
        would = Key("trial ingress default", staged=True)
        assert packets(tally)[would] == 3, "what the staged tier would have denied"
        assert packets(tally)[Key("trial ingress default")] == 0, "and what the same tier did"
        declare(ingress=[*allowing(1), *allowing(2)])
        send(1)
        assert packets(tally)[first] == 3, "a policy that was edited"
        assert table.counted().totals()[first].packets == 1, "whose chain is new"
        run("nft", "flush", "ruleset")
        tally.take(table.counted())
        assert packets(tally)[first] == 3
        declare(ingress=[*allowing(1), *allowing(2)])
        send(1)
        send(2)
        assert packets(tally)[first] == 4, "a table that is another"
        assert packets(tally)[Key("default/in ingress 1")] == 1
        assert packets(tally)[default] == 1
        totals = {key: count.packets for key, count in table.counted().totals().items()}
        said = {
            key: int(row.split("packets ")[1].split()[0])
            for key in (first, default)
            for row in run("nft", "list", "table", "inet", "routed").splitlines()
            if f'comment "{key.label} #' in row and " counter packets" in f" {row.strip()}"
        }
        assert said == {key: totals[key] for key in said} and len(said) == 2, "as nft has it"

    in_fresh_namespace(body)


@pytest.mark.root
def test_a_kernel_that_does_not_answer_is_an_error_of_its_own() -> None:
    async def body() -> None:
        counters = Counters()
        counters.close()
        with pytest.raises(ApplyError, match=r"counters"):
            counters.read()

    in_fresh_namespace(body)
