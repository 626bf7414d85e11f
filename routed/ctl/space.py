"""`routectl ipam`, drain: how addresses are used, what nodes own of them, taking it back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from api.client import Client
from api.ipam.space import block_name
from api.resources import IPBlock, IPPool, Node, Workload
from api.resources.errors import Cause, ConfigError, Conflict, NotFound
from api.resources.ippool import FORCE_RELEASE
from api.resources.media import MERGE
from api.resources.net import parse_address, parse_cidr
from api.resources.workload import Origin
from routed.ctl.connection import Connection
from routed.ctl.progress import progress, say
from routed.ctl.tables import aligned
from routed.ctl.targets import NothingFound

COLUMNS = 64  # of the map
LINES = 16
POLL_SECONDS = 0.5
FORCED_TRIES = 10


@dataclass(frozen=True, slots=True)
class Force:
    """An operator's word that a node is off for good; "" is none."""

    statement: str = ""

    @classmethod
    def of(cls, statement: str, *, force: bool) -> Force:
        """ConfigError for the one without the other."""
        if force != bool(statement.strip()):
            said = "--force needs --statement TEXT, which says why the node cannot come back"
            raise ConfigError("the command line", [Cause("", said)])
        return cls(statement.strip())


async def show(client: Client, *, heat: bool) -> str:
    """The tree: a pool, its blocks, their nodes and how full they are; or a map of each pool."""
    pools, blocks = await client.list(IPPool), await client.list(IPBlock)
    if heat:
        return "\n\n".join(_map(pool, _of(pool, blocks)) for pool in pools)
    rows = [["POOL / BLOCK", "NODE", "SIZE", "USED", "COOLING", "FREE"]]
    for pool in pools:
        inside = _of(pool, blocks)
        used = sum(block.status.assigned for block in inside)
        cooling = sum(block.status.cooling for block in inside)
        title = f"{pool.metadata.name} {pool.spec.cidr}{_state(pool)}"
        rows.append([title, "", *_numbers(pool.spec.cidr.num_addresses, used, cooling)])
        for place, block in enumerate(inside):
            branch = "└─" if place == len(inside) - 1 else "├─"
            size = 1 << (pool.spec.cidr.max_prefixlen - pool.spec.block_size)
            back = " (wanted back)" if block.metadata.deletion_timestamp else ""
            status = block.status
            counts = _numbers(size, status.assigned, status.cooling)
            rows.append([f"{branch} {block.spec.cidr}", f"{block.spec.node}{back}", *counts])
    return aligned(rows)


def _of(pool: IPPool, blocks: Sequence[IPBlock]) -> list[IPBlock]:
    inside = [b for b in blocks if b.spec.pool == pool.metadata.name and b.spec.cidr is not None]
    return sorted(inside, key=lambda b: int(b.spec.cidr.network_address))  # type: ignore[union-attr]


def _state(pool: IPPool) -> str:
    return " (disabled)" if pool.spec.disabled else ""


def _numbers(size: int, used: int, cooling: int) -> list[str]:
    return [str(size), str(used), str(cooling), str(size - used - cooling)]


def _map(pool: IPPool, inside: Sequence[IPBlock]) -> str:
    """A cell for a block, or for several where there are many: how much of it is used or cools."""
    bits = pool.spec.cidr.max_prefixlen - pool.spec.block_size
    count = 1 << (pool.spec.block_size - pool.spec.cidr.prefixlen)
    each = max(1, -(-count // (COLUMNS * LINES)))
    first = int(pool.spec.cidr.network_address) >> bits
    taken: dict[int, int] = {}
    for block in inside:
        number = (int(block.spec.cidr.network_address) >> bits) - first  # type: ignore[union-attr]
        used = block.status.assigned + block.status.cooling
        taken[number // each] = taken.get(number // each, 0) + used
    cells = -(-count // each)
    text = "".join(
        "·" if n not in taken else "░▒▓█"[min(3, 4 * taken[n] // (each << bits))]
        for n in range(cells)
    )
    blocks = "one block" if each == 1 else f"{each} blocks"
    head = f"{pool.metadata.name} {pool.spec.cidr}{_state(pool)}: {len(inside)} of {count} blocks "
    head += f"owned; a cell is {blocks}, · not owned, ░▒▓█ used by quarters"
    return "\n".join([head, *(text[n : n + COLUMNS] for n in range(0, cells, COLUMNS))])


async def release(client: Client, what: str, force: Force) -> str:
    """Ask the owner of a block, named by name, CIDR or an address in it, to give it back; with the
    operator's statement take it."""
    block = await _block(client, what)
    name, node = block.metadata.name, block.spec.node
    if not force.statement:
        if FORCE_RELEASE in block.metadata.annotations:
            await unsaid(client, name)
        await client.delete(IPBlock, name)
        return f"ipblock/{name}: node {node} is asked for it; it goes back when nothing uses it"
    await _taken(client, block, force)
    return f"ipblock/{name} taken from node {node}"


async def _taken(client: Client, block: IPBlock, force: Force) -> None:
    """In one request, so that no statement is left behind where nothing was taken; as this owner
    has it, which the uid says."""
    name, uid = block.metadata.name, block.metadata.uid
    await client.delete(IPBlock, name, uid=uid, statement=force.statement)


async def unsaid(client: Client, name: str) -> None:
    """Take back a statement that nobody has acted upon: a deletion would take the block."""
    change = {"metadata": {"annotations": {FORCE_RELEASE: None}}}
    await _merged(client, f"/ipblocks/{name}", change)


async def _block(client: Client, what: str) -> IPBlock:
    """By name, CIDR, or an address in it. NotFound."""
    try:
        return await client.get(IPBlock, block_name(parse_cidr(what)) if "/" in what else what)
    except ValueError as error:
        raise ConfigError("the command line", [Cause("", str(error))]) from error
    except NotFound:
        try:
            address = parse_address(what)
        except ValueError:
            raise NotFound(f"cannot find block {what}", kind="IPBlock", name=what) from None
    for block in await client.list(IPBlock):
        cidr = block.spec.cidr
        if cidr is not None and cidr.version == address.version and address in cidr:
            return block
    raise NotFound(f"cannot find a block with {address}: no node owns it", kind="IPBlock")


async def delete_node(client: Client, name: str, force: Force) -> None:
    """Delete a Node that is off for good: what it owns is taken first. It is cordoned before, and
    its blocks are taken again where it claimed one meanwhile: an agent that is not off after all
    keeps a low-water mark of addresses, until it hears of it."""
    await cordon(client, name, on=True)
    for left in reversed(range(FORCED_TRIES)):
        for block in await client.list(IPBlock, fields=f"spec.node={name}"):
            with contextlib.suppress(NotFound, Conflict):  # it went back, or was claimed again
                await _taken(client, block, force)
        try:
            await client.delete(Node, name)
            break
        except Conflict:
            if not left:
                raise
            await asyncio.sleep(POLL_SECONDS)
    for workload in await client.list(Workload, fields=f"spec.node={name}"):
        await client.delete(Workload, workload.metadata.name)


async def cordon(client: Client, name: str, *, on: bool) -> None:
    """Have nothing more attached on a node, or again."""
    await _merged(client, f"/nodes/{name}", {"spec": {"unschedulable": on}})


def cordoned(connection: Connection, names: Sequence[str], selector: str, *, on: bool) -> None:
    async def work(client: Client) -> None:
        for name in await _nodes(client, names, selector):
            await cordon(client, name, on=on)
            typer.echo(f"node/{name} {'cordoned' if on else 'uncordoned'}")

    connection.run(work)


def drained(connection: Connection, names: Sequence[str], selector: str, seconds: float) -> None:
    """One node after the other, `seconds` for each."""

    async def work(client: Client) -> None:
        for name in await _nodes(client, names, selector):
            await drain(client, name, seconds)
            typer.echo(f"node/{name} drained: it owns nothing")

    connection.run(work)


async def _nodes(client: Client, names: Sequence[str], selector: str) -> list[str]:
    """Those named, or those selected; NothingFound."""
    if not names and not selector:
        raise NothingFound.of("say NODE..., or -l SELECTOR")
    if names:
        return list(names)
    found = await client.list(Node, labels=selector)
    if not found:
        raise NothingFound.of(f"no node has labels {selector}")
    return [node.metadata.name for node in found]


async def drain(client: Client, name: str, seconds: float) -> None:
    """Empty a node: nothing more is attached, what was declared for it is deleted, its blocks go
    back as they become empty. Returns when it owns none; Conflict says what is left after `seconds`
    (0: it is waited for without end)."""
    await cordon(client, name, on=True)
    declared = [
        workload.metadata.name
        for workload in await client.list(Workload, fields=f"spec.node={name}")
        if workload.spec.origin is Origin.API
    ]
    with progress("deleting", len(declared)) as done:
        for one in declared:
            await client.delete(Workload, one)
            say(f"workload/{one} deleted")
            done(one)
    said: set[str] = set()
    deadline = asyncio.get_running_loop().time() + seconds if seconds > 0 else math.inf
    first = await client.list(IPBlock, fields=f"spec.node={name}")
    owned = {block.metadata.name for block in first}
    with progress(f"draining {name}", len(owned)) as done:
        while True:
            left = await client.list(Workload, fields=f"spec.node={name}")
            born = {w.metadata.name for w in left if w.spec.origin is Origin.NODE}
            for one in sorted(born - said):
                say(f"workload/{one} has to be detached on the node")
            said |= born
            blocks = await client.list(IPBlock, fields=f"spec.node={name}")
            names = {block.metadata.name for block in blocks}
            for one in owned - names:
                done(one)
            owned &= names
            if not blocks:
                return
            if asyncio.get_running_loop().time() >= deadline:
                listed = ", ".join(block.metadata.name for block in blocks[:3])
                raise Conflict(
                    f"cannot drain node {name} in {seconds:.0f} s: {len(left)} workload(s) are "
                    f"left, {len(blocks)} block(s) have not come back ({listed}); it goes on by "
                    "itself"
                )
            await asyncio.sleep(POLL_SECONDS)


async def _merged(client: Client, path: str, change: dict[str, Any]) -> None:
    merge = {"content-type": MERGE}
    await client.raw("PATCH", path, content=json.dumps(change), headers=merge)
