"""Which policies an endpoint passes, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources.policy import NetworkPolicy, Tier
from policies.model import Direction, Endpoint, Needs, Plan, Step
from policies.plan import Order, plan

WEB = Endpoint("web.h", {"app": "web"}, link="rt1")
DB = Endpoint("db.h", {"app": "db"}, link="rt2")


def tier(name: str, **spec: Any) -> Tier:
    return Tier.model_validate({"metadata": {"name": name}, "spec": spec})


def policy(name: str, **spec: Any) -> NetworkPolicy:
    return NetworkPolicy.model_validate({"metadata": {"name": name}, "spec": spec})


def passed(plan: Plan, endpoint: Endpoint, direction: Direction = Direction.INGRESS) -> list[str]:
    signature = plan.endpoints[endpoint.name].of(direction)
    return [f"{step.tier}/{name}" for step in signature for name in step.policies]


def test_tiers_and_policies_go_by_order_and_then_name() -> None:
    tiers = [tier("z", order=1), tier("b"), tier("a"), tier("y", order=1)]
    policies = [
        policy("p5", tier="a"),
        policy("p4", tier="z", order=2),
        policy("p3", tier="z"),
        policy("p2", tier="z", order=2),
        policy("p1", tier="y"),
        policy("p0", tier="b"),
        policy("p9", order=-1),  # of tier default, which is not there: with those without order
    ]
    found = passed(plan(tiers, policies, [WEB]), WEB)
    assert found == ["y/p1", "z/p2", "z/p4", "z/p3", "a/p5", "b/p0", "default/p9"]


def test_a_tier_that_is_not_there_denies() -> None:
    policies = [policy("p", tier="open"), policy("q")]
    made = plan([tier("open", defaultAction="Pass")], policies, [WEB])
    assert {name: one.default for name, one in made.tiers.items()} == {
        "open": "Pass",
        "default": "Deny",
    }


def test_what_is_for_nobody_here_is_in_no_plan() -> None:
    """So that agents whom a policy does not concern compile nothing anew when it changes."""
    used, other = policy("p", tier="open"), policy("q", selector="app == 'db'", tier="closed")
    made = plan([tier("open"), tier("closed")], [used, other], [WEB])
    assert (set(made.policies), set(made.tiers)) == ({"p"}, {"open"})
    assert made == plan([tier("open")], [used], [WEB])


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"ingress": [{"action": "Allow"}]}, True, False),
        ({"egress": [{"action": "Allow"}]}, False, True),
        ({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}, True, True),
        ({"types": ["Egress"]}, False, True),
        ({"types": ["Egress", "Ingress"], "egress": [{"action": "Allow"}]}, True, True),
    ],
)
def test_directions_that_a_policy_is_for(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    made = plan([], [policy("p", **spec)], [WEB])
    assert bool(passed(made, WEB)) is ingress
    assert bool(passed(made, WEB, Direction.EGRESS)) is egress


def test_only_those_selected_pass_a_policy_and_the_same_labels_are_one_signature() -> None:
    second = Endpoint("web2.h", {"app": "web"}, link="rt3")
    made = plan([], [policy("p", selector="app == 'web'"), policy("q")], [WEB, DB, second])
    assert passed(made, WEB) == ["default/p", "default/q"]
    assert passed(made, DB) == ["default/q"]
    assert made.links(Direction.INGRESS) == {
        (Step("default", ("p", "q")),): frozenset({"rt1", "rt3"}),
        (Step("default", ("q",)),): frozenset({"rt2"}),
    }
    assert made.links(Direction.EGRESS) == {(): frozenset({"rt1", "rt2", "rt3"})}


def test_a_tier_of_staged_policies_decides_nothing() -> None:
    made = plan([], [policy("p", staged=True), policy("q", selector="app == 'db'")], [WEB, DB])
    (web,), (db,) = (made.endpoints[one.name].ingress for one in (WEB, DB))
    assert web.policies == ("p",), "it keeps its place"
    assert (made.enforced(web), made.enforced(db)) == (False, True)


def test_what_has_to_be_known_is_of_policies_that_somebody_here_passes() -> None:
    rule = {
        "action": "Allow",
        "protocol": "TCP",
        "source": {"selector": "role == 'x'", "ports": [80, "1:9", "http"]},
        "destination": {"notSelector": "has(y)", "notPorts": ["ssh"]},
    }
    other = {"action": "Allow", "source": {"selector": "z == 'z'"}}
    policies = [
        policy("p", selector="app == 'web'", ingress=[rule]),
        policy("q", selector="app == 'none'", ingress=[other]),
    ]
    assert plan([], policies, [WEB, DB]).needs() == Needs(
        frozenset({"role == 'x'", "has(y)"}), frozenset({("http", "role == 'x'"), ("ssh", "")})
    )
    assert plan([], policies, [DB]).needs() == Needs()


def test_a_plan_is_of_those_that_are_there_whoever_was_placed_before() -> None:
    policies = [policy("p", selector="app == 'web'")]
    order = Order([], policies)
    both, one = plan([], policies, [WEB, DB]), plan([], policies, [DB])
    assert order.plan([WEB, DB]) == both
    assert order.plan([DB]) == one


def test_labels_that_were_here_once_are_not_remembered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("policies.plan.PLACED_MOST", 10)
    order = Order([], [])
    for number in range(25):
        order.place(Endpoint("job", {"job": str(number)}))
    assert len(order._placed) <= 10
