"""What policies are compiled to, in the kernel: changes one after the other end in the table that a
load from nothing makes, and what somebody did to it is put right."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compiled import (
    DENY,
    KNOWN,
    S4,
    TABLE,
    WEB,
    endpoints,
    handles,
    listed,
    policy,
    ruleset,
)
from support.netns import in_fresh_namespace, run
from support.worlds import after, worlds

from api.resources.errors import ApplyError
from policies.compile import changes, names
from policies.compile.compiler import Compiler, compiled
from policies.compile.ruleset import NO_POLICIES
from policies.counters import Count, Key
from policies.model import Direction, Members, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import Order, plan

pytestmark = pytest.mark.root


def test_changes_one_after_the_other_end_in_the_table_of_a_load_from_nothing() -> None:
    @given(st.data())
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def histories(data: st.DataObject) -> None:
        table, compiler = Nft(), Compiler()
        world = data.draw(worlds())
        for step in range(data.draw(st.integers(1, 6))):
            wanted = compiler.compile(world.plan(), world.known)
            assert wanted == compiled(world.plan(), world.known), "what was before is no matter"
            table.sync(None, wanted, trusted=step > 0)
            assert not Nft().sync(None, wanted), "one that remembers nothing has nothing to do"
            if step:
                assert not table.sync(None, wanted, trusted=True)
            found = listed()
            world = data.draw(after(world))
        run("nft", "delete", "table", *TABLE.split())
        assert Nft().sync(None, wanted)
        assert found == listed()
        table.close()

    async def body() -> None:
        histories()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    "command",
    [
        "flush ruleset",
        "delete table inet routed",
        "flush chain inet routed policy-ingress",
        "flush chain inet routed ingress-policy-p",
        "flush chain inet routed antispoof",
        "add rule inet routed ingress-policy-p accept",
        "insert rule inet routed policy-egress accept",
        "insert rule inet routed tohost accept",
        "add chain inet routed another",
        "add chain inet routed ingress-policy-another",
        "add element inet routed LINKS { x }",
        "delete element inet routed LINKS { rt1 }",
        "flush set inet routed SELECTOR",
        'add element inet routed SELECTOR { 10.9.9.9 comment "x" }',
        "add set inet routed selector4-another { type ipv4_addr; }",
        "delete rule inet routed policy-tohost handle TOHOST",
        "flush chain inet routed policy-ingress; delete chain inet routed policy-ingress; "
        "add chain inet routed policy-ingress { type filter hook forward priority 7; }",
    ],
)
def test_what_somebody_did_to_the_table_is_put_right(command: str) -> None:
    members = Members(frozenset([ip_address("10.0.0.1"), ip_address("10.0.0.2")]))
    some = endpoints(3, app="db")
    policies = [policy("p", ingress=[WEB, DENY], egress=[WEB])]
    made = compiled(plan([], policies, some), Membership({"app == 'web'": members}))
    words = {
        "LINKS": next(name for name in made.sets if name.startswith("links-")),
        "SELECTOR": S4,
    }

    async def body() -> None:
        table = Nft()
        assert table.sync(Nat(), made)
        whole = listed()
        words["TOHOST"] = str(handles()["policy-tohost"][-1])
        text = command
        for word, meant in words.items():
            text = text.replace(word, meant)
        run("nft", text)
        assert table.sync(Nat(), made)
        assert listed() == whole
        assert not table.sync(Nat(), made)

    in_fresh_namespace(body)


def test_without_policies_the_table_is_the_base_and_comes_back_to_it() -> None:
    made = ruleset(policy("p", ingress=[WEB], egress=[DENY]))
    assert (
        compiled(plan([], [policy("q", selector="app == 'x'")], endpoints(2)), KNOWN) == NO_POLICIES
    )

    async def body() -> None:
        table = Nft()
        assert table.sync(Nat())
        base, rules = listed(), handles()
        assert not table.sync(Nat(), NO_POLICIES)
        assert table.sync(Nat(), made, trusted=True)
        assert table.sync(Nat(), NO_POLICIES, trusted=True)
        assert (listed(), handles()) == (base, rules), "nothing else was touched"

    in_fresh_namespace(body)


def test_what_is_not_known_yet_stays_and_where_it_cannot_no_flow_begins() -> None:
    made = ruleset(policy("p", ingress=[WEB], egress=[WEB]))

    async def body() -> None:
        Nft().sync(Nat(), made)
        whole = listed()
        table = Nft()
        assert not table.sync(None)
        run("nft", "flush", "chain", *TABLE.split(), "antispoof")
        assert table.sync(None)
        closed = listed()
        for name in ("policy-ingress", "policy-egress", "policy-tohost"):
            assert "drop" in closed[f"rules of {name}"][-1][0]
        assert not table.sync(None)
        assert table.sync(Nat(), made)
        assert listed() == whole

    in_fresh_namespace(body)


def test_a_table_of_another_release_is_replaced_in_one_transaction() -> None:
    made = ruleset(policy("p", ingress=[WEB], egress=[WEB]))

    async def body() -> None:
        table = Nft()
        table.sync(Nat(), made)
        whole = listed()
        run("nft", "delete", "table", *TABLE.split())
        run(
            "nft",
            "add table inet routed; add chain inet routed version-0; "
            "add chain inet routed policy-ingress "
            "{ type filter hook forward priority 7; policy drop; }; "
            "add set inet routed links-x { type ipv4_addr; }",
        )
        ran: list[str] = []
        kept = table.run
        table.run = lambda commands, *rest: ran.append(commands) or kept(commands, *rest)  # type: ignore[method-assign,func-returns-value]
        assert table.sync(Nat(), made)
        assert len([commands for commands in ran if not commands.startswith("list")]) == 1
        assert listed() == whole
        run("nft", "delete", "table", *TABLE.split())
        run(
            "nft",
            "add table inet routed; add chain inet routed policy-ingress "
            "{ type filter hook forward priority 7; policy drop; }",
        )
        assert Nft().sync(None, made)
        assert listed()["chain policy-ingress"]["prio"] == 2

    in_fresh_namespace(body)


def test_what_the_kernel_refuses_changes_nothing() -> None:
    made = ruleset(policy("p", ingress=[WEB], egress=[WEB]))
    (name,) = (name for name in made.sets if name.startswith("links-"))
    wrong = made.changed(name, add=["a-name-that-is-too-long-for-a-link"])

    async def body() -> None:
        table = Nft()
        table.sync(None, made)
        whole = listed()
        for trusted in (True, False):
            with pytest.raises(ApplyError):
                table.sync(None, wrong, trusted=trusted)
            assert listed() == whole
        assert not table.sync(None, made, trusted=True)

    in_fresh_namespace(body)


def test_trust_that_was_wrong_is_mended_where_it_is_found() -> None:
    """The element that is to go is gone already: the table is read, and made right as a whole."""
    order = Order([], [policy("p", ingress=[WEB])])
    some = endpoints(3, app="db")
    made = compiled(order.plan(some), KNOWN)
    fewer = changes.parted(made, order.place(some[1]))

    async def body() -> None:
        table = Nft()
        table.sync(None, made)
        run("nft", "flush", "chain", *TABLE.split(), "policy-ingress")
        run("nft", "flush", "set", *TABLE.split(), next(iter(made.sets)))
        assert table.sync(None, fewer, trusted=True)
        assert not Nft().sync(None, fewer)

    in_fresh_namespace(body)


def test_rules_are_counted_by_their_label() -> None:
    both = {"action": "Allow", "source": {"selector": "app == 'web'"}}  # a rule of each family
    made = ruleset(policy("p", ingress=[both, DENY]))

    async def body() -> None:
        table = Nft()
        table.sync(None, made)
        found = table.counted().totals()
        assert found[Key(names.label("default", "p", Direction.INGRESS, 0))] == Count(0, 0)
        assert {key.label for key in found if not key.staged} == {
            "default/p ingress 0",
            "default/p ingress 1",
            "default ingress default",
            "ingress default",
            "ingress unknown link",
            "egress unknown link",
        }

    in_fresh_namespace(body)


def test_a_load_of_many_elements_is_done_by_a_process_of_its_own() -> None:
    members = Members(frozenset(ip_address(0x0A000000 + number) for number in range(30_000)))
    known = Membership({"app == 'web'": members})
    made = compiled(plan([], [policy("p", ingress=[WEB])], endpoints(3, app="db")), known)

    async def body() -> None:
        table = Nft()
        seen: list[int] = []
        kept: Callable[..., str] = table.run
        table.run = lambda commands, *rest: seen.append(len(commands)) or kept(commands, *rest)  # type: ignore[method-assign,func-returns-value]
        assert table.sync(None, made)
        assert sum(seen) < 10_000, "the base chains alone, which close it meanwhile"
        assert not table.sync(None, made)
        assert len(listed()[f"set {S4}"]["elem"]) == 30_000

    in_fresh_namespace(body)
