"""When the removal of routes is worth a condition, and what it says."""

from __future__ import annotations

import pytest

from routed.agent.flapping import TIMES, WINDOW, condition
from routed.kernel.removals import Removal

NOW = 10_000.0


def removals(program: str, *ages: float) -> list[Removal]:
    return [Removal(program, 7, NOW - age - 0.5, NOW - age, 3) for age in ages]


@pytest.mark.parametrize(
    ("held", "flaps"),
    [
        ([], False),
        (removals("x", *range(TIMES - 1)), False),
        (removals("x", *range(TIMES)), True),
        (removals("x", *range(TIMES - 1), WINDOW + 1), False),
        (removals("x", *range(TIMES - 1), WINDOW - 1), True),
        (removals("x", 1, 2) + removals("y", 1, 2), False),
    ],
)
def test_again_and_again_by_one_program(held: list[Removal], flaps: bool) -> None:
    found = condition(held, NOW)
    assert (found.status == "True") is flaps
    assert bool(found.message) is flaps


def test_it_names_who_and_what_to_configure() -> None:
    held = removals("systemd-network", 1, 2, 3) + removals("zebra", 1, 2, 3)
    found = condition(held, NOW)
    one, other = found.message.split("; zebra")
    assert one.startswith(
        "systemd-network (pid 7) removed routes or gateways of this node 3 times in 10 min"
    )
    assert "(9 in all)" in one
    assert "ManageForeignRoutes=no" in one
    assert "KeepConfiguration=yes" in one
    assert "protocol 82" in other
