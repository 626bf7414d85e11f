"""Every case of the catalogue: the reference evaluator and what is compiled agree with the verdicts
that were written by hand from docs/policy.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.catalogue import Case, cases
from support.oracles import Evaluated, compared
from support.tables import Table

CASES = cases()
BY_NAME = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.close()


def test_there_are_enough_cases_and_each_is_there_once() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 230
    assert {verdict for case in CASES for _, _, verdict in case.packets} == {
        "allow",
        "deny",
        "reject",
    }


@BY_NAME
def test_the_reference_evaluator_agrees(case: Case) -> None:
    found = {text: Evaluated(case.scene, sent) for text, sent, _ in case.packets}
    assert {text: one.verdict for text, one in found.items()} == {
        text: verdict for text, _, verdict in case.packets
    }
    assert {text: found[text].logged for text in case.logs} == case.logs
    assert {text: found[text].staged for text in case.staged} == case.staged


@pytest.mark.root
@BY_NAME
def test_what_is_compiled_agrees(case: Case, table: Table) -> None:
    disagreement = compared(case, table.put(case.scene))
    assert not disagreement, disagreement
