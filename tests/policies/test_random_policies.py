"""Random sets of policies and packets: the reference evaluator and what the kernel has of what is
compiled say the same, of the verdict, of what is logged, and of what staged policies would deny.

All sets of a run are applied to one table after another, some by what differs from the one before
and some read anew, so that changes are tried as well. `make test-policy-long` tries 30 000 sets.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from support.drawn import FOUR, NUMBERS, SIX, crowds, mixed, packets, scenes, spread
from support.oracles import Evaluated, Interpreted, uncounted
from support.scenes import Scene, ipvlan_of
from support.tables import Table

from policies.compile.changes import joined, moved, parted
from policies.compile.compiler import Compiler
from policies.model import Membership, Plan
from policies.plan import Order, plan

pytestmark = [pytest.mark.root, pytest.mark.timeout(0)]
WHOLE = settings(
    database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
AT_ONCE = 600  # sets that one run of Hypothesis draws
PACKETS = 24  # of each set


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.close()


def test_random_policies_do_in_the_kernel_what_the_evaluator_says(
    table: Table, policy_sets: range, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for number in policy_sets[::AT_ONCE]:
        _try(table, counts, number, min(AT_ONCE, policy_sets.stop - number))
        seconds = time.monotonic() - began
        if len(policy_sets) > AT_ONCE:
            with capsys.disabled():
                print(f"\n{_told(counts, seconds)}", end="", flush=True)
    with capsys.disabled():
        print(f"\n{_told(counts, time.monotonic() - began)}", end=" ")
    assert counts["sets"] >= len(policy_sets)
    # nothing is agreed upon where nothing happens
    for what, part in (("allow", 0.2), ("deny", 0.1), ("reject", 0.001), ("logged", 0.05)):
        assert counts[what] > counts["packets"] * part, counts
    assert counts["staged"] > counts["packets"] * 0.01, counts


def _told(counts: Counter[str], seconds: float) -> str:
    said = ", ".join(f"{counts[what]} {what}" for what in ("allow", "deny", "reject", "staged"))
    return (
        f"{counts['sets']} sets of policies, {counts['packets']} packets ({said}): {seconds:.0f} s"
    )


def _try(table: Table, counts: Counter[str], number: int, examples: int) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(scene=st.one_of(scenes(), mixed()), which=NUMBERS, trusted=st.booleans())
    def agree(scene: Scene, which: int, trusted: bool) -> None:
        ruleset = table.put(scene, trusted=trusted)
        counts["sets"] += 1
        for sent in packets(which, PACKETS):
            said, done = Evaluated(scene, sent), Interpreted(scene, ruleset, sent)
            assert (done.verdict, done.logged, done.staged) == (
                said.verdict,
                said.logged,
                said.staged,
            ), str(sent)
            assert not uncounted(said, done), f"{sent}: {done.counted}, {said.counted}"
            counts.update(["packets", said.verdict])
            counts.update(["logged"] * bool(said.logged) + ["staged"] * bool(said.staged))

    agree()


@settings(WHOLE, max_examples=300)
@given(made=st.one_of(scenes(), spread(scenes())))
def test_a_workload_that_comes_or_goes_ends_in_what_would_be_compiled_anew(made: Scene) -> None:
    _come_and_go(made)


def _come_and_go(made: Scene) -> None:
    """By elements, where elements are all that differs."""
    order = Order(made.tiers, made.policies)
    one, *others = made.local()
    rest = replace(made, workloads=tuple(w for w in made.workloads if w is not one))
    compiler, placed = Compiler(), order.place(made.endpoint_of(one))
    whole = _planned(order, made)
    known = made.membership(whole.needs())
    few = compiler.compile(_planned(order, rest), known)
    all_of_them = compiler.compile(whole, known)
    assert all_of_them == compiler.compile(whole, known)
    assert all_of_them == Compiler().compile(whole, known)
    beside = ipvlan_of([one])
    left = replace(beside, parents=beside.parents - ipvlan_of(others).parents)
    after, before = joined(few, placed, beside), parted(all_of_them, placed, left)
    if few.chains == all_of_them.chains and few.sets.keys() == all_of_them.sets.keys():
        assert (after, before) == (all_of_them, few), "elements are all that differs"
    else:
        assert (after, before) == (None, None)


@settings(WHOLE, max_examples=30)
@given(made=st.one_of(crowds(2), spread(crowds(3))), which=NUMBERS)
def test_one_of_a_crowd_that_comes_or_goes_does_so_too(made: Scene, which: int) -> None:
    """Where groups are told by bits."""
    first = which % len(made.workloads)
    ordered = (*made.workloads[first:], *made.workloads[:first])
    _come_and_go(replace(made, workloads=ordered))


def _planned(order: Order, scene: Scene) -> Plan:
    of_the_host = scene.default, scene.interfaces, scene.failsafe, scene.ipvlan
    return order.plan(scene.endpoints, *of_the_host)


@settings(WHOLE, max_examples=150)
@given(made=scenes(), which=NUMBERS)
def test_members_that_come_or_go_end_in_what_would_be_compiled_anew(
    made: Scene, which: int
) -> None:
    ends = made.endpoints, made.default, made.interfaces, made.failsafe
    whole = plan(made.tiers, made.policies, *ends)
    known, dice = made.membership(whole.needs()), Random(which)  # noqa: S311
    assume(known.selectors)
    text = dice.choice(sorted(known.selectors))
    before = known.selectors[text]
    pool = [ip_address(one) for one in (*FOUR, *SIX)]
    after = replace(before, addresses=frozenset(dice.sample(pool, dice.randint(0, 8))))
    come, left = after.addresses - before.addresses, before.addresses - after.addresses
    compiler = Compiler()
    after_it = moved(compiler.compile(whole, known), text, come, left)
    other = Membership({**known.selectors, text: after}, known.ports)
    assert after_it == compiler.compile(whole, other) == Compiler().compile(whole, other)


@settings(WHOLE, max_examples=20)
@given(made=crowds(), which=NUMBERS)
def test_many_signatures_are_told_apart(made: Scene, which: int) -> None:
    table = Table()
    ruleset = table.put(made)
    for sent in packets(which, 150, len(made.workloads) + 4):
        said, done = Evaluated(made, sent), Interpreted(made, ruleset, sent)
        assert (done.verdict, done.logged) == (said.verdict, said.logged), str(sent)
        assert not uncounted(said, done), str(sent)
    table.close()
