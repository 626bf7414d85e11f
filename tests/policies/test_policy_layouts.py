"""How policies are laid out: every layout loads, and what changes touches nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from support.compiled import (
    DENY,
    KNOWN,
    S4,
    S6,
    TABLE,
    WEB,
    changed,
    endpoints,
    handles,
    listed,
    policy,
    ruleset,
)
from support.netns import in_fresh_namespace

from api.resources.net import IPNetwork
from policies.compile import changes, dispatch, transaction
from policies.compile.compiler import Compiler, compiled
from policies.compile.ruleset import Ruleset, chain
from policies.model import Endpoint, Members, Membership
from policies.nft import Nft
from policies.plan import Order, plan

pytestmark = pytest.mark.root
DEPTHS = range(1, dispatch.DEEPEST + 1)


@pytest.mark.parametrize("groups", [1, 16, 17, 70])
def test_many_groups_are_asked_for_by_bits(groups: int) -> None:
    """Each link goes, by the sets that it is in, to the chain of its own endpoint and no other."""
    policies = [
        policy(f"p{number}", selector=f"n == '{number}'", ingress=[WEB], egress=[WEB])
        for number in range(groups)
    ]
    some = [Endpoint(f"w{n}", {"n": f"{n}"}, link=f"rt{n}") for n in range(groups)]
    made = compiled(plan([], policies, some), KNOWN)
    bits = dispatch.depth(groups)
    assert (bits > 0) is (groups > 16)

    async def body() -> None:
        assert Nft().sync(None, made)
        chains = {name: texts for name, texts in listed().items() if name.startswith("rules of ")}
        for number, one in enumerate(some):
            name, asked = "ingress-links", 0
            while "links" in name:
                asked += len(chains[f"rules of {name}"])
                name = next(
                    target
                    for said, _, _ in chains[f"rules of {name}"]
                    if (target := _taken(json.loads(said), one.link, made))
                )
            tier = chains[f"rules of {name}"][0][0]
            assert f"ingress-policy-p{number}" in str(chains[f"rules of {_jump(tier)}"])
            assert asked < 16 + 3 * bits + 16

    in_fresh_namespace(body)


def _jump(said: str) -> str:
    target: str = next(part["jump"]["target"] for part in json.loads(said) if "jump" in part)
    return target


def _taken(parts: list[dict[str, Any]], link: str, made: Ruleset) -> str:
    """Where a rule of the dispatch sends packets of that link, "" if nowhere."""
    for part in parts:
        if "match" in part:
            if link not in made.sets[part["match"]["right"].removeprefix("@")].elements:
                return ""
        elif "goto" in part:
            target: str = part["goto"]["target"]
            return target
    return ""


def test_the_deepest_layout_is_one_that_the_kernel_takes() -> None:
    """As if there were thousands of groups: all bits, then tier, policy and what denies."""
    made = ruleset(policy("p", ingress=[DENY], egress=[DENY]))
    deep = dict(made.chains)
    for direction in ("ingress", "egress"):
        way = [f"{direction}-links", *(f"{direction}-links-{'1' * n}" for n in DEPTHS)]
        leaf = made.chains[way[0]]
        for name, onward in pairwise(way):
            deep[name] = chain([(f"goto {onward}", "x")])
        deep[way[-1]] = leaf

    async def body() -> None:
        assert Nft().sync(None, replace(made, chains=deep))

    in_fresh_namespace(body)


def test_a_workload_that_comes_or_goes_is_one_element() -> None:
    order = Order([], [policy("p", ingress=[WEB, DENY], egress=[WEB])])
    some, more = endpoints(3, app="db"), Endpoint("w9", {"app": "db"}, link="rt9")
    now = order.plan(some)
    compiler = Compiler()
    before = compiler.compile(now, KNOWN)
    with_it = changes.joined(before, order.place(more))
    assert with_it == compiler.compile(order.plan([*some, more]), KNOWN)
    assert changes.parted(with_it, order.place(more)) == before
    (name,) = (name for name in before.sets if name.startswith("links-"))
    assert transaction.commands(TABLE, before, with_it) == [
        f'add element {TABLE} {name} {{ "rt9" }}'
    ]
    assert transaction.commands(TABLE, with_it, before) == [
        f'delete element {TABLE} {name} {{ "rt9" }}'
    ]
    assert changes.joined(before, order.place(Endpoint("w8", {}))) is not None
    lonely = compiler.compile(order.plan(some[:1]), KNOWN)
    assert changes.parted(lonely, order.place(some[0])) is None, "its chains go too"

    async def body() -> None:
        table = Nft()
        table.sync(None, before)
        rules = handles()
        for wanted in (with_it, before):
            assert table.sync(None, wanted, trusted=True)
            assert handles() == rules
            assert not Nft().sync(None, wanted)

    in_fresh_namespace(body)


def test_an_edit_touches_the_chains_of_its_policy_alone() -> None:
    first, other = (
        policy("first", ingress=[WEB, DENY]),
        policy("other", ingress=[WEB], egress=[WEB]),
    )
    edited = policy("first", ingress=[{**WEB, "protocol": "UDP"}, DENY])
    passing = policy("other", ingress=[{**WEB, "action": "Pass"}], egress=[WEB])

    async def body() -> None:
        table = Nft()
        table.sync(None, ruleset(first, other))
        before = handles()
        assert table.sync(None, ruleset(edited, other), trusted=True)
        now = handles()
        assert changed(before, now) == {"ingress-policy-first"}
        assert table.sync(None, ruleset(edited, passing), trusted=True)
        tiers = {name for name in now if name.startswith("ingress-tier-")}
        assert changed(now, handles()) == {"ingress-policy-other", *tiers}

    in_fresh_namespace(body)


def test_members_come_and_go_by_element() -> None:
    made = ruleset(policy("p", ingress=[WEB, DENY]))
    one, six = ip_address("10.0.0.1"), ip_address("fd00::1")
    more = changes.moved(made, "app == 'web'", add=[one, six])
    assert transaction.commands(TABLE, made, more) == [
        f"add element {TABLE} {S4} {{ 10.0.0.1 }}",
        f"add element {TABLE} {S6} {{ fd00::1 }}",
    ]
    assert changes.moved(more, "app == 'web'", gone=[six, one]) == made


def test_prefixes_take_each_others_place_also_where_they_overlap() -> None:
    texts = ("10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "0.0.0.0/0", "10.64.0.0/10 10.192.0.0/10")
    all_of_them = [frozenset(map(ip_network, text.split())) for text in texts]

    def made(nets: frozenset[IPNetwork]) -> Ruleset:
        known = Membership({"app == 'web'": Members(nets=nets)})
        return compiled(plan([], [policy("p", ingress=[WEB])], endpoints(2)), known)

    async def body() -> None:
        table = Nft()
        table.sync(None, made(all_of_them[0]))
        rules = handles()
        for one in all_of_them:
            for other in all_of_them:
                table.sync(None, made(one), trusted=True)
                table.sync(None, made(other), trusted=True)
                assert not Nft().sync(None, made(other))
        assert handles() == rules

    in_fresh_namespace(body)
