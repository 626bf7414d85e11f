"""`ipam check` counts what differs at both of its looks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api.client import Client
from api.ipam.check import Finding
from routed.ctl import checking
from routed.ctl.checking import Result, checked

ALARM = Finding("nodes", "h1", "found: AddressConflict: seen at a", about="found: AddressConflict")


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        pytest.param([ALARM], [ALARM], 1, id="the same"),
        pytest.param([ALARM], [], 0, id="for a moment"),
        pytest.param(
            [ALARM],
            [Finding("nodes", "h1", f"{ALARM.message}, b", about=ALARM.about)],
            1,
            id="more is known of it",
        ),
        pytest.param(
            [Finding("workloads", "w", "is attached, and not reported")],
            [Finding("workloads", "w", "is reported, and not attached")],
            0,
            id="it comes and goes",
        ),
    ],
)
def test_it(
    monkeypatch: pytest.MonkeyPatch, first: list[Finding], second: list[Finding], counts: int
) -> None:
    looks = iter((Result(1, found=first), Result(1, found=second)))

    async def look(*_: Any) -> Result:
        return next(looks)

    monkeypatch.setattr(checking, "_look", look)
    monkeypatch.setattr(checking, "AGAIN_SECONDS", 0.0)
    found = asyncio.run(checked(cast(Client, None), None, fix=False)).found
    assert found == second[:counts], "in the words of the second look"
