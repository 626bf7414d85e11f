"""Policies at a fleet of hollow agents: whom a change concerns has it in his table, and who is not
concerned is told nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from policies.compile import names
from routed.lab.hollow.policed import ALL, OTHER_PORT, PORT, Policed, Seen

AGENTS, WORKLOADS, APPS = 8, 4, 16
LAST = f"h{AGENTS - 1}"

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policed]:
    lab = Policed(tmp_path_factory.mktemp("policed"), AGENTS, WORKLOADS, APPS, processes=2)
    try:
        lab.up()
        lab.join(lab.invite())
        lab.police()
        lab.declare()
        yield lab
    finally:
        lab.down()


def right(fleet: Policed) -> bool:
    """Whether sets of members have in all tables what the service shows of workloads."""
    tables, everybody = fleet.tables(), fleet.addresses("tier=shared")
    followed = {app: fleet.followers(app) for app in range(APPS)}
    wanted = {(node, names.selector(ALL, 4)): everybody for node in fleet.nodes}
    for app, nodes in followed.items():
        addresses = fleet.addresses(f"app=a{app}")
        wanted |= {(node, names.selector(fleet.selector(app), 4)): addresses for node in nodes}
    return {key: tables.get(key, set()) for key in wanted} == wanted


def test_a_label_is_told_to_those_who_follow_it_and_to_nobody_else(fleet: Policed) -> None:
    before, after = fleet.app["h0"], 5
    gone, come = fleet.followers(before), fleet.followers(after)
    others = set(fleet.nodes) - gone - come - {"h0", LAST}
    assert min(map(len, (gone - come, come - gone, others))) > 0
    fleet.settle()
    told = dict(fleet.hosts.told)
    fleet.relabel_some("h0", after, Seen())
    # of this all are told: so whatever they were told before has come
    fleet.relabel_all(LAST, True, Seen())
    since = {node: fleet.hosts.told[node] - told[node] - 1 for node in fleet.nodes}
    assert {node: since[node] for node in others} == dict.fromkeys(others, 0)
    concerned = (gone | come) - {"h0", LAST}
    assert {node: since[node] for node in concerned} == {
        node: (node in gone) + (node in come) for node in concerned
    }
    assert right(fleet)


def test_a_policy_is_compiled_by_whom_it_concerns(fleet: Policed) -> None:
    for number, port in enumerate((OTHER_PORT, PORT)):
        seen, since = Seen(), len(fleet.hosts.altered)
        fleet.edit(3, port, seen)
        nodes = {node for node in fleet.nodes if 3 in fleet.apps_of(node)}
        assert len(seen.seconds) == len(nodes) < AGENTS
        seen = Seen()
        fleet.edit_all(port, seen)
        assert len(seen.seconds) == AGENTS
        chains = [(node, name) for _, node, name, _, _ in fleet.hosts.altered[since:]]
        assert {node for node, name in chains if name == "ingress-policy-p3"} == nodes, number
    assert right(fleet)


def test_a_workload_that_comes_is_everywhere_and_goes_from_everywhere(fleet: Policed) -> None:
    come, go = Seen(), Seen()
    fleet.come_and_go("h2", 1, come, go)
    assert len(come.seconds) == len(go.seconds) == AGENTS
    assert right(fleet)
