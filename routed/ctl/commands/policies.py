"""Policies: tried against what is expected of them, and asked about one flow."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from routed.ctl.commands.options import Files, Output, Recursive, Socket
from routed.ctl.help import group, verb
from routed.ctl.invocation import AGENT, Said, connection

app = group()
policy = group("policy", "Policies in files, and what they count.")
app.add_typer(policy)


@verb(
    policy,
    "routectl policy test -f policies/ -f tests/",
    "routectl policy test -R -f .",
)
def test(filename: Files = None, recursive: Recursive = False) -> None:
    """Judge policies in files by what is expected of them: documents of kind PolicyTest beside them
    (docs/policy.md) list who may and may not talk to whom. No service is asked.

    Exit code 0: all is as expected. 1: it is not, and is listed. 2: a file has mistakes.
    """
    from routed.ctl import expecting

    Said.failing = 2
    found = expecting.run(filename or [], recursive=recursive)
    for line in found.differing:
        typer.echo(line)
    typer.echo(f"{found.judged} flows judged, {len(found.differing)} not as expected")
    if found.differing:
        raise typer.Exit(1)


@verb(policy, "routectl policy counters", "routectl policy counters -o json")
def counters(agent: Socket = None, output: Output = "") -> None:
    """What each rule of a policy has counted on this host: the first packets of flows, and every
    packet of those that are denied; of staged ones what they would do."""
    from routed.ctl.local import Local

    Local(agent or AGENT).policy_counters(output)


@verb(
    app,
    "routectl trace web db --port 5432/tcp",
    "routectl trace 203.0.113.7 web --port http",
    "routectl trace web node/host1 --protocol ping",
)
def trace(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A workload, an address, KIND/NAME.")
    ],
    destination: Annotated[str, typer.Argument(metavar="TO", help="Likewise.")],
    port: Annotated[
        str, typer.Option(metavar="PORT[/PROTOCOL]", help="Or the name of one of TO's ports.")
    ] = "",
    protocol: Annotated[
        str, typer.Option(metavar="P", help="ping, icmp/TYPE.CODE, icmpv6, or a number.")
    ] = "",
    source_port: Annotated[int, typer.Option(metavar="N", min=1, max=65_535)] = 40_000,
    policy_default: Annotated[
        str, typer.Option(metavar="Allow|Deny", help="As in the agents' settings.")
    ] = "Allow",
    output: Annotated[str, typer.Option("-o", "--output", metavar="FORM", help="json, yaml.")] = "",
) -> None:
    """What policies say of a flow at both ends: the verdict, and which tier, policy and rule; and
    the way that it takes, by the routes and BGP sessions of both hosts, whose agents are asked."""
    from routed.ctl import tracing, traffic

    if bool(port) == bool(protocol):
        raise typer.BadParameter("say either --port or --protocol")
    if output not in ("", "json", "yaml"):
        raise typer.BadParameter(f"-o {output!r} is neither json nor yaml")
    try:
        what = traffic.port(port) if port else traffic.protocol(protocol)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    defaults: dict[str, Literal["Allow", "Deny"]] = {"Allow": "Allow", "Deny": "Deny"}
    if policy_default not in defaults:
        raise typer.BadParameter(f"--policy-default {policy_default!r} is neither Allow nor Deny")
    tracing.trace(
        connection(),
        (source, destination),
        what,
        default=defaults[policy_default],
        source_port=source_port,
        form=output,
    )
