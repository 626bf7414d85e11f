"""A ruleset depends on the plan and members alone, whatever the compiler has compiled before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compiled import DENY, KNOWN, WEB, endpoints, policy
from support.worlds import after, worlds

from api.resources.net import parse_cidr
from policies.compile.compiler import Compiler, compiled
from policies.model import Members, Membership
from policies.plan import plan

NETS = Membership({"app == 'web'": Members(nets=frozenset([parse_cidr("10.0.0.0/8")]))})
FIRST: dict[str, Any] = {"ingress": [WEB, DENY], "egress": [WEB]}


@pytest.mark.parametrize(
    ("spec", "known", "default"),
    [
        ({**FIRST, "ingress": [DENY]}, KNOWN, "Allow"),
        ({**FIRST, "egress": [DENY]}, KNOWN, "Allow"),
        ({**FIRST, "ingress": [WEB, {**DENY, "reject": False}]}, KNOWN, "Allow"),
        ({**FIRST, "ingress": [{**WEB, "action": "Pass"}, DENY]}, KNOWN, "Allow"),
        ({**FIRST, "types": ["Ingress", "Egress"], "ingress": []}, KNOWN, "Allow"),
        ({**FIRST, "staged": True}, KNOWN, "Allow"),
        ({**FIRST, "tier": "other"}, KNOWN, "Allow"),
        (FIRST, NETS, "Allow"),
        (FIRST, Membership(), "Allow"),
        (FIRST, KNOWN, "Deny"),
    ],
)
def test_what_is_edited_is_compiled_anew(
    spec: dict[str, Any], known: Membership, default: Any
) -> None:
    compiler, some = Compiler(), endpoints(2, app="db")
    first = plan([], [policy("p", **FIRST)], some)
    edited = plan([], [policy("p", **spec)], some, default)
    before = compiler.compile(first, KNOWN)
    now = compiler.compile(edited, known)
    assert now == compiled(edited, known) != before
    assert compiler.compile(first, KNOWN) == before


def test_where_the_node_denies_so_it_does_before_any_workload_is_known() -> None:
    made = compiled(plan([], [], [], "Deny"), Membership())
    for direction in ("ingress", "egress"):
        assert f"goto {direction}-links" in made.chains[f"policy-{direction}"].rules[-1]
        assert "drop" in made.chains[f"{direction}-links"].rules[-1]
    assert not compiled(plan([], [], []), Membership())


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_was_compiled_before_is_no_matter(data: st.DataObject) -> None:
    compiler = Compiler()
    world = data.draw(worlds())
    for _ in range(data.draw(st.integers(2, 6))):
        made = compiler.compile(world.plan(), world.known)
        assert made == compiled(world.plan(), world.known)
        world = data.draw(after(world))


def test_policies_that_are_no_more_are_not_remembered() -> None:
    compiler = Compiler()
    for number in range(5):
        held = [policy(f"p{number}", ingress=[WEB])]
        compiler.compile(plan([], held, endpoints(1)), KNOWN)
    assert {name for name, _ in compiler._made} == {"p4"}
