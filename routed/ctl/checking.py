"""`routectl ipam check`: whether everybody's truth about addresses is one.

From anywhere: the store with itself, and what every node's agent has found. On a host also what
that one has, asked of its agent and its kernel, and what the switches tell it of all others.

Attaches and detaches go on meanwhile, and the parts are not read at one instant. So what differs
is looked at again a moment later, and counts if it differs still.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from api.client import Client
from api.ipam import check, local, table
from api.ipam.check import Finding
from api.resources import BGPPeer, IPBlock, IPPool, IPReservation, Node, Workload
from api.resources.errors import NotFound
from api.resources.meta import Resource
from routed.ctl.progress import progress
from routed.ctl.space import unsaid

AGAIN_SECONDS = 3.0  # a report follows its attachment within one
LINES_MOST = 200  # of text
MENDED = " (garbage: --fix takes it away)"
FINDINGS_MOST = 10_000  # of JSON

Here = Callable[[], local.Local]  # asks the host that this runs on


@dataclass(slots=True)
class Result:
    """`gone` was garbage and is no more; `notes` say what could not be compared."""

    nodes: int
    here: str = ""
    found: list[Finding] = field(default_factory=list)
    gone: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return not self.found

    def text(self) -> str:
        lines = [f"{one}; {'taken away' if one.annotation else 'deleted'}" for one in self.gone]
        lines += [f"{one}{MENDED if one.garbage else ''}" for one in self.found]
        more = len(lines) - LINES_MOST
        lines = lines[:LINES_MOST] + ([f"and {more} more: -o json has them"] if more > 0 else [])
        if self.agrees:
            also = f", and node {self.here} with them" if self.here else ""
            lines.append(f"pools, blocks, nodes and workloads agree{also}")
        return "\n".join([*lines, *self.notes])

    def document(self) -> str:
        return json.dumps(
            {
                "agrees": self.agrees,
                "nodes": self.nodes,
                "here": self.here or None,
                "findings": [_said(one) for one in self.found[:FINDINGS_MOST]],
                "deleted": [_said(one) for one in self.gone[:FINDINGS_MOST]],
                "more": max(0, len(self.found) - FINDINGS_MOST),
                "notes": self.notes,
            },
            indent=4,
        )


def _said(one: Finding) -> dict[str, object]:
    return {
        "kind": one.plural,
        "name": one.name,
        "message": one.message,
        "garbage": one.garbage,
    }


async def checked(client: Client, here: Here | None, *, fix: bool) -> Result:
    """What differs, twice; and of it what was garbage and, with `fix`, is gone."""
    result = await _look(client, here)
    if result.found:
        await asyncio.sleep(AGAIN_SECONDS)
        before, result = {one.identity for one in result.found}, await _look(client, here)
        result.found = [one for one in result.found if one.identity in before]
    for one in result.found if fix else ():
        if one.garbage:
            with contextlib.suppress(NotFound):  # it went by itself
                await _delete(client, one)
            result.gone.append(one)
    result.found = [one for one in result.found if one not in result.gone]
    return result


async def _look(client: Client, here: Here | None) -> Result:
    """What is read of the host comes first: what is new there is known to the service later."""
    own = await asyncio.to_thread(here) if here else None
    kinds: tuple[type[Resource], ...] = (Workload, IPBlock, Node, IPPool, IPReservation)
    listed: list[Any] = []
    with progress("reading", len(kinds)) as done:
        for model in kinds:
            listed.append(await client.list(model))
            done(model.KIND)
    workloads, blocks, nodes, pools, reservations = listed
    held = check.Held(
        workloads=workloads, blocks=blocks, nodes=nodes, pools=pools, reservations=reservations
    )
    result = Result(len(held.nodes), own.node if own else "", check.findings(held))
    if own is None:
        return result
    result.found += local.findings(own, held.pools, held.blocks, held.workloads)
    result.found += table.findings(own.node, own.tables, held, await client.list(BGPPeer))
    if not own.tables:
        result.notes.append(f"node {own.node} hears no switch: its tables are not compared")
    for peer in table.silent(own.tables):
        result.notes.append(f"{peer} shows {own.node} nothing of the pools: it is not compared")
    return result


async def _delete(client: Client, one: Finding) -> None:
    if one.annotation:
        await unsaid(client, one.name)
    else:
        await client.raw("DELETE", f"/{one.plural}/{one.name}")
