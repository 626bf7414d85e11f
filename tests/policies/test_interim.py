"""What holds while many rules are on their way into a table that somebody has flushed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.catalogue import Case, cases
from support.compiled import policy
from support.netns import in_fresh_namespace, run
from support.oracles import Evaluated, Interpreted
from support.tables import Table, compiled

from api.resources.errors import ApplyError
from policies import base
from policies.compile.compiler import compiled as whole
from policies.compile.interim import interim
from policies.compile.ruleset import Ruleset
from policies.model import Endpoint, Membership
from policies.nft import BULK, Nft
from policies.plan import plan

pytestmark = pytest.mark.root
CASES = cases()


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_nothing_passes_that_policies_do_not_let_pass(case: Case, table: Table) -> None:
    rules = compiled(case.scene)
    if not rules:
        pytest.skip("there is nothing to load")
    held = table.apply(interim(rules))
    for text, sent, _ in case.packets:
        if not sent.is_odd:
            said, done = Evaluated(case.scene, sent), Interpreted(case.scene, held, sent)
            if said.verdict != "allow":
                assert done.verdict != "allow", text
            elif said.passing:
                assert done.verdict == "allow", text


def many(groups: int = 20, policies: int = 300) -> Ruleset:
    """More than is loaded in one go, for all links but those of nobody's applications."""
    rules = [
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [n + 1]}} for n in range(20)
    ]
    some = [policy(f"p{n}", selector=f"has(n{n % groups})", ingress=rules) for n in range(policies)]
    ends = [
        Endpoint(f"w{n}", {"app": "a", **{f"n{g}": "x" for g in range(n + 1)}}, link=f"rt{n}")
        for n in range(groups)
    ]
    free = [Endpoint(f"free{n}", {"of": "nobody"}, link=f"rtf{n}") for n in range(3)]
    return whole(plan([], some, [*ends, *free]), Membership())


def test_who_is_free_stays_so_and_everybody_elses_flows_do_not_begin() -> None:
    rules = many()
    held = interim(rules)
    free = frozenset({"rtf0", "rtf1", "rtf2"})
    last = {
        name: [
            text.partition(" comment")[0]
            for text in one.rules
            if "@links" in text or "drop" in text
        ]
        for name, one in held.chains.items()
    }
    (links,) = (name for name, one in held.sets.items() if one.elements == free)
    assert last["policy-ingress"] == [f"oifname @{links} accept", "counter drop"]
    *asked, end = last["policy-egress"]
    assert set(asked) == {f"iifname @{name} accept" for name in held.sets}, "all may send"
    assert end == "counter drop"
    assert last.keys() == {"policy-ingress", "policy-egress", "policy-tohost"}


def test_a_table_that_is_gone_is_closed_before_it_is_filled() -> None:
    async def body() -> None:
        table, rules = Nft(), many()
        assert len("\n".join(base.commands(None, None, rules))) > BULK
        table.sync(None, rules)
        run("nft", "flush", "ruleset")
        load, seen = table._load, list[list[str]]()

        def looked(commands: str) -> None:
            chain = run("nft", "list", "chain", "inet", "routed", "policy-ingress").splitlines()
            seen.append([line.strip().partition(" comment")[0] for line in chain])
            load(commands)

        table._load = looked  # type: ignore[method-assign]
        assert table.sync(None, rules)
        ((*_, free, drop, _, _),) = seen
        assert free.startswith("oifname @links-")
        assert free.endswith(" accept")
        assert drop == "counter packets 0 bytes 0 drop"
        assert not table.sync(None, rules)
        assert len(seen) == 1, "what was made is known to be there"
        assert not base.commands(table._table(), None, rules)

        run("nft", "flush", "ruleset")

        def refused(commands: str) -> None:
            raise ApplyError("table inet routed", "change", 95)

        table._load = refused  # type: ignore[method-assign]
        with pytest.raises(ApplyError):
            table.sync(None, rules)
        assert "routed" not in run("nft", "list", "tables"), "as it was found"

    in_fresh_namespace(body)
