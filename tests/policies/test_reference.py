"""docs/policy.md, "The walk" and after it: order, tiers, Pass, defaults, staged and unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.declared import packet, world

from policies.reference import By, Decision, Verdict, World, judge, walk

WEB, DB, OUT = "10.0.0.1", "10.0.0.2", "203.0.113.7"
WORKLOADS = """
kind: Workload
metadata: {name: web, labels: {app: web}}
spec: {node: h1, ports: [{name: http, port: 80}]}
status: {addresses: [10.0.0.1, "fd00::1"]}
---
kind: Workload
metadata: {name: db, labels: {app: db}}
spec: {node: h2}
status: {addresses: [10.0.0.2, "fd00::2"]}
"""


def policy(name: str, spec: str, rules: str = "", direction: str = "ingress") -> str:
    parts = ", ".join(filter(None, [spec, f"{direction}: [{rules}]" if rules else ""]))
    return f"---\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{parts}}}\n"


def tier(name: str, spec: str) -> str:
    return f"---\nkind: Tier\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def made(*documents: str) -> World:
    return world(WORKLOADS + "".join(documents))


def ingress(held: World, source: str = OUT, what: str = "TCP/80") -> Decision:
    decision = judge(held, packet(source, WEB, what)).ingress
    assert decision is not None
    return decision


def test_nothing_selects_so_everything_is_allowed() -> None:
    found = judge(made(), packet(WEB, DB))
    assert found.verdict is Verdict.ALLOW
    assert found.egress == found.ingress == Decision(Verdict.ALLOW, By.NODE)


def test_the_nodes_default_can_be_to_deny() -> None:
    held = replace(made(), default="Deny")
    assert ingress(held) == Decision(Verdict.DENY, By.NODE)
    assert judge(held, packet(WEB, OUT)).egress == Decision(Verdict.DENY, By.NODE)


def test_who_is_outside_has_no_say() -> None:
    found = judge(made(), packet(OUT, "203.0.113.8"))
    assert (found.egress, found.ingress, found.verdict) == (None, None, Verdict.ALLOW)
    assert judge(made(), packet(OUT, WEB)).egress is None
    assert judge(made(), packet(WEB, OUT)).ingress is None


def test_both_ends_have_to_allow_it() -> None:
    deny = "{action: Deny}"
    out = made(policy("p", "selector: app == 'web'", deny, "egress"))
    assert judge(out, packet(WEB, DB)).verdict is Verdict.DENY
    assert judge(out, packet(DB, WEB)).verdict is Verdict.ALLOW
    into = made(policy("p", "selector: app == 'db'", deny))
    found = judge(into, packet(WEB, DB))
    assert found.egress is not None and found.egress.verdict is Verdict.ALLOW
    assert found.verdict is Verdict.DENY
    assert found.decision == Decision(Verdict.DENY, By.RULE, "default", "p", 0)


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ("types: [Ingress]", {"Ingress"}),
        ("types: [Egress]", {"Egress"}),
        ("types: [Egress, Ingress]", {"Ingress", "Egress"}),
        ("ingress: [{action: Log}]", {"Ingress"}),
        ("egress: [{action: Log}]", {"Egress"}),
        ("ingress: [{action: Log}], egress: [{action: Log}]", {"Ingress", "Egress"}),
        ("order: 1", {"Ingress"}),
        ("types: [Ingress, Egress], egress: [{action: Log}]", {"Ingress", "Egress"}),
        ("types: [Egress], selector: app == 'db'", set()),
        ("types: [Egress], selector: ''", {"Egress"}),
    ],
)
def test_which_directions_a_policy_is_for(spec: str, selected: set[str]) -> None:
    held = made(policy("p", spec))
    for direction, sent in (("Egress", packet(WEB, OUT)), ("Ingress", packet(OUT, WEB))):
        found = judge(held, sent).decision
        assert found is not None
        assert (found.by is By.TIER) is (direction in selected), direction


def test_the_first_rule_that_fits_acts() -> None:
    held = made(
        policy(
            "p",
            "",
            "{action: Allow, protocol: UDP}, {action: Deny, protocol: TCP, "
            "destination: {ports: [80]}}, {action: Allow}",
        )
    )
    assert ingress(held, what="UDP/80").rule == 0
    assert ingress(held) == Decision(Verdict.DENY, By.RULE, "default", "p", 1)
    assert ingress(held, what="TCP/81") == Decision(Verdict.ALLOW, By.RULE, "default", "p", 2)


def test_no_rule_fits_so_the_tier_denies() -> None:
    held = made(policy("p", "", "{action: Allow, protocol: UDP}"))
    assert ingress(held) == Decision(Verdict.DENY, By.TIER, "default")


def test_a_deny_may_answer() -> None:
    held = made(policy("p", "", "{action: Deny, reject: true}"))
    assert ingress(held).verdict is Verdict.REJECT


def test_log_goes_on_and_is_told() -> None:
    held = made(
        policy("a", "order: 1", "{action: Log}, {action: Log, protocol: UDP}"),
        policy("b", "order: 2", "{action: Log}, {action: Allow}"),
    )
    expected = Decision(Verdict.ALLOW, By.RULE, "default", "b", 1, (("a", 0), ("b", 0)))
    assert ingress(held) == expected


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ("order: 1", "order: 2", "zz"),
        ("order: 2", "order: 1", "aa"),
        ("order: 1", "order: 1", "aa"),
        ("order: 5", "", "zz"),
        ("", "order: 5", "aa"),
        ("", "", "aa"),
        ("order: -1", "order: 0", "zz"),
        ("order: 1.5", "order: 1.25", "aa"),
    ],
)
def test_policies_and_tiers_in_order_then_by_name(first: str, second: str, wins: str) -> None:
    rules = "{action: Allow}"
    policies = made(policy("zz", first, rules), policy("aa", second, rules))
    assert ingress(policies).policy == wins
    tiers = made(
        tier("zz", first),
        tier("aa", second),
        policy("in-zz", "tier: zz", rules),
        policy("in-aa", "tier: aa", rules),
    )
    assert ingress(tiers).tier == wins


def test_names_compare_by_code_points() -> None:
    rules = "{action: Allow}"
    assert ingress(made(policy("a2", "", rules), policy("a10", "", rules))).policy == "a10"


def test_pass_skips_the_rest_of_the_tier() -> None:
    held = made(
        tier("first", "order: 1"),
        tier("second", "order: 2"),
        policy("a", "tier: first, order: 1", "{action: Pass, protocol: TCP}, {action: Deny}"),
        policy("b", "tier: first, order: 2", "{action: Deny}"),
        policy("c", "tier: second", "{action: Allow}"),
    )
    assert ingress(held) == Decision(Verdict.ALLOW, By.RULE, "second", "c", 0)
    assert ingress(held, what="UDP/1").policy == "a"


def test_all_passed_so_the_nodes_default_decides() -> None:
    held = made(policy("a", "", "{action: Pass}"))
    assert ingress(held) == Decision(Verdict.ALLOW, By.NODE)
    assert ingress(replace(held, default="Deny")) == Decision(Verdict.DENY, By.NODE)


def test_a_tiers_default_may_be_to_pass() -> None:
    held = made(
        tier("first", "order: 1, defaultAction: Pass"),
        policy("a", "tier: first", "{action: Allow, protocol: UDP}"),
        policy("b", "", "{action: Deny}"),
    )
    assert ingress(held, what="UDP/1").tier == "first"
    assert ingress(held) == Decision(Verdict.DENY, By.RULE, "default", "b", 0)


def test_a_tier_without_a_policy_that_selects_is_not_walked() -> None:
    held = made(
        tier("first", "order: 1"),
        policy("a", "tier: first, selector: app == 'db'", "{action: Deny}"),
        policy("b", "tier: first, staged: true", "{action: Deny}"),
        policy("c", "tier: first", "{action: Deny}", "egress"),
    )
    assert ingress(held).by is By.NODE


def test_the_default_tier_is_there_and_may_be_written() -> None:
    one = policy("a", "", "{action: Allow, protocol: UDP}")
    assert ingress(made(one)) == Decision(Verdict.DENY, By.TIER, "default")
    assert ingress(made(one, tier("default", "defaultAction: Pass"))).by is By.NODE


def test_the_default_tier_has_no_order() -> None:
    rules = "{action: Allow}"
    held = made(
        tier("zz", "order: 1000000"),
        policy("a", "", rules),
        policy("b", "tier: zz", rules),
    )
    assert ingress(held).tier == "zz"


def test_a_tier_that_nobody_heard_of_denies() -> None:
    held = made(policy("a", "tier: gone", "{action: Allow, protocol: UDP}"))
    assert ingress(held) == Decision(Verdict.DENY, By.TIER, "gone")


def test_staged_policies_decide_nothing() -> None:
    held = made(policy("a", "staged: true", "{action: Deny}"))
    found = judge(held, packet(OUT, WEB))
    assert found.ingress == Decision(Verdict.ALLOW, By.NODE)
    assert found.staged_ingress == Decision(Verdict.DENY, By.RULE, "default", "a", 0)
    assert found.staged_egress is None
    sent = judge(made(policy("a", "staged: true", "{action: Deny}", "egress")), packet(WEB, OUT))
    assert sent.staged_egress is not None and sent.verdict is Verdict.ALLOW


def test_a_tier_of_staged_policies_alone_would_deny() -> None:
    held = made(policy("a", "staged: true", "{action: Allow, protocol: UDP}"))
    found = judge(held, packet(OUT, WEB))
    assert found.staged_ingress == Decision(Verdict.DENY, By.TIER, "default")
    assert judge(held, packet(OUT, WEB, "UDP/1")).staged_ingress is None


def test_what_others_deny_is_not_the_staged_ones_doing() -> None:
    held = made(
        policy("a", "staged: true, order: 1", "{action: Allow, protocol: UDP}"),
        policy("b", "order: 2", "{action: Deny, protocol: TCP}"),
    )
    assert judge(held, packet(OUT, WEB)).staged_ingress is None, "b's rule"
    assert judge(held, packet(OUT, WEB, "47")).staged_ingress is None, "b's tier"


def test_staged_policies_are_tried_out_together() -> None:
    held = made(
        policy("a", "staged: true", "{action: Allow, protocol: UDP}"),
        policy("b", "staged: true", "{action: Allow, protocol: TCP}"),
    )
    assert judge(held, packet(OUT, WEB)).staged_ingress is None
    assert judge(held, packet(OUT, WEB, "47")).staged_ingress is not None


def test_the_second_walk_logs_nothing() -> None:
    held = made(policy("a", "staged: true", "{action: Log}, {action: Deny}"))
    found = judge(held, packet(OUT, WEB)).staged_ingress
    assert found == Decision(Verdict.DENY, By.RULE, "default", "a", 1)


SELECTOR = "app == 'x'"


@pytest.mark.parametrize(
    ("rule", "what", "expected"),
    [
        ("{action: Allow, source: {selector: S}}", "TCP/80", None),
        ("{action: Allow, source: {notSelector: S}}", "TCP/80", None),
        ("{action: Log, source: {selector: S}}", "TCP/80", None),
        ("{action: Deny, source: {selector: S}}", "TCP/80", Verdict.DENY),
        ("{action: Deny, source: {notSelector: S}}", "TCP/80", Verdict.DENY),
        ("{action: Deny, reject: true, source: {selector: S}}", "TCP/80", Verdict.REJECT),
        ("{action: Pass, source: {selector: S}}", "TCP/80", Verdict.DENY),
        ("{action: Deny, protocol: UDP, source: {selector: S}}", "TCP/80", None),
        ("{action: Pass, protocol: UDP, source: {selector: S}}", "TCP/80", None),
        ("{action: Deny, source: {selector: S, nets: [192.0.2.0/24]}}", "TCP/80", None),
        ("{action: Allow, protocol: TCP, destination: {ports: [p]}}", "TCP/80", None),
        ("{action: Allow, protocol: TCP, destination: {ports: [80, p]}}", "TCP/80", None),
        ("{action: Allow, protocol: TCP, destination: {notPorts: [p]}}", "TCP/80", None),
        ("{action: Deny, protocol: TCP, destination: {ports: [p]}}", "TCP/80", Verdict.DENY),
        ("{action: Deny, protocol: TCP, destination: {notPorts: [p]}}", "TCP/80", Verdict.DENY),
        ("{action: Deny, protocol: UDP, destination: {ports: [p]}}", "TCP/80", None),
    ],
)
def test_what_nobody_told_the_members_of_fails_closed(
    rule: str, what: str, expected: Verdict | None
) -> None:
    """None: on with the next rule."""
    text = rule.replace(": S", f': "{SELECTOR}"')
    held = made(policy("a", "", f"{text}, {{action: Allow}}"))
    held = replace(held, unknown=frozenset([SELECTOR]), unknown_ports=frozenset([("p", "")]))
    found = ingress(held, what=what)
    if expected is None:
        assert (found.verdict, found.rule, found.logged) == (Verdict.ALLOW, 1, ())
    else:
        assert (found.verdict, found.rule) == (expected, 0)


def test_members_that_are_known_are_none_of_this() -> None:
    held = made(policy("a", "", f'{{action: Deny, source: {{selector: "{SELECTOR}"}}}}'))
    assert walk(held, {}, "Ingress", packet(OUT, WEB)).by is By.TIER
