"""Nodes and the addresses that they own."""

from __future__ import annotations

from typing import Annotated

import typer

from routed.ctl.commands.options import Forced, Selector, Socket, Statement, Timeout, seconds
from routed.ctl.help import group, verb
from routed.ctl.invocation import AGENT, Said, connection

app = group()
ipam = group("ipam", "Pools, blocks and addresses.")
app.add_typer(ipam)
Nodes = Annotated[list[str] | None, typer.Argument(metavar="NODE...")]


@verb(app, "routectl cordon host7", "routectl cordon -l rack=r1")
def cordon(nodes: Nodes = None, selector: Selector = "") -> None:
    """Have nothing more attached on a node."""
    from routed.ctl import space

    space.cordoned(connection(), nodes or [], selector, on=True)


@verb(app, "routectl uncordon host7")
def uncordon(nodes: Nodes = None, selector: Selector = "") -> None:
    """Let a node attach again."""
    from routed.ctl import space

    space.cordoned(connection(), nodes or [], selector, on=False)


@verb(app, "routectl drain host7", "routectl drain -l rack=r1 --timeout 15m")
def drain(nodes: Nodes = None, selector: Selector = "", timeout: Timeout = "5m") -> None:
    """Empty a node: delete what was declared for it, wait until it has given its blocks back."""
    from routed.ctl import space

    space.drained(connection(), nodes or [], selector, seconds(timeout))


@verb(ipam, "routectl ipam show", "routectl ipam show --map")
def show(
    heat: Annotated[bool, typer.Option("--map", help="A cell a block, darker the fuller.")] = False,
) -> None:
    """Pools, their blocks, who owns them, and how full they are."""
    from routed.ctl import space

    typer.echo(connection().run(lambda client: space.show(client, heat=heat)))


@verb(ipam, "routectl ipam check", "routectl ipam check --fix", "routectl ipam check -o json")
def check(
    fix: Annotated[bool, typer.Option("--fix", help="Delete what nobody can be using.")] = False,
    agent: Socket = None,
    output: Annotated[str, typer.Option("-o", "--output", help="json.")] = "",
) -> None:
    """Whether pools, blocks, nodes, workloads and what agents say agree; on a host also whether its
    attachments, routes and announcements do, and the switches' tables as it receives them.

    Exit code 0: all agrees. 1: it does not, and is listed. 2: it could not be looked at.
    """
    from routed.ctl import checking
    from routed.ctl.local import Local

    if output not in ("", "json"):
        raise typer.BadParameter(f"-o {output!r} is not json")
    Said.failing = 2
    socket = agent or (AGENT if AGENT.exists() else None)
    here = Local(socket).addresses if socket else None
    found = connection().run(lambda client: checking.checked(client, here, fix=fix))
    typer.echo(found.document() if output == "json" else found.text())
    if not found.agrees:
        raise typer.Exit(1)


@verb(
    ipam,
    "routectl ipam release 10.65.0.0/26",
    'routectl ipam release 10.65.0.7 --force --statement "host7 was scrapped"',
)
def release(
    what: Annotated[str, typer.Argument(metavar="BLOCK|ADDRESS")],
    force: Forced = False,
    statement: Statement = "",
) -> None:
    """Ask a block's owner for it; with --force take it from a node that is off for good."""
    from routed.ctl import space

    word = space.Force.of(statement, force=force)
    typer.echo(connection().run(lambda client: space.release(client, what, word)))
