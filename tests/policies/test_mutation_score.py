"""How good the catalogue is: of the mistakes of support/mutators.py, each made in what is compiled
of every case, at least 95 in a hundred are noticed; those that are not are named."""

from __future__ import annotations

import pytest
from support.catalogue import Case, cases
from support.mutators import MUTATORS, Mutator
from support.oracles import compared
from support.rulesets import Unknown
from support.tables import Table, compiled

from api.resources.errors import ApplyError
from policies.compile.ruleset import Ruleset

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
KILLED, REFUSED, ALIVE, ABSENT = "killed", "refused by nft", "alive", "nowhere"


def test_the_catalogue_notices_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    made = [(case, compiled(case.scene)) for case in cases()]
    fates = {name: _fate(table, made, mutator) for name, mutator in MUTATORS.items()}
    table.close()
    killed = sum(fate == KILLED for fate in fates.values())
    alive = [name for name, fate in fates.items() if fate == ALIVE]
    score = 100 * killed / (killed + len(alive))
    with capsys.disabled():
        print(f"\nmutation score {score:.1f} % ({killed} of {killed + len(alive)})", end="")
        for fate in (ALIVE, REFUSED, ABSENT):
            names = [name for name, one in fates.items() if one == fate]
            print(f"\n{fate}: {'; '.join(names) or 'none'}", end="")
    assert score >= 95, alive
    assert sum(fate in (REFUSED, ABSENT) for fate in fates.values()) <= len(fates) / 10


def _fate(table: Table, made: list[tuple[Case, Ruleset]], mutator: Mutator) -> str:
    """What became of a mutant of the compiler, of which `made` is what the true one made."""
    fate = ABSENT
    for case, ruleset in made:
        mutant = mutator(ruleset)
        if mutant == ruleset:
            continue
        try:
            noticed = compared(case, table.apply(mutant, trusted=True))
        except ApplyError:
            fate = REFUSED if fate == ABSENT else fate
            continue
        except (AssertionError, Unknown):
            return KILLED
        if noticed:
            return KILLED
        fate = ALIVE
    return fate
