"""What concerns this host: its workloads, its sessions, its state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from routed.ctl.commands.options import Output, Socket, bits, labels, published
from routed.ctl.help import group, verb
from routed.ctl.invocation import AGENT, connection

app = group()
bgp = group("bgp", "BGP as this host's speaker sees it.")
app.add_typer(bgp)


@verb(
    app,
    "routectl attach web --netns web",
    "routectl attach db --netns /run/netns/db --pool fixed --lease db",
    "routectl attach web --netns web --node host1 --label app=web",
    "routectl attach web-two --netns web --ifname eth1 --no-default-route --route 10.70.0.0/16",
    "routectl attach web --netns web --ingress-rate 100M --egress-rate 50M",
    "routectl attach web --netns web --publish 8080:80 --publish 192.0.2.1:53:53/udp",
)
def attach(
    name: Annotated[str, typer.Argument(help="A DNS label.")],
    netns: Annotated[
        str, typer.Option(help="Name under /run/netns, or a path; modes host and tap have none.")
    ] = "",
    pool: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    ip: Annotated[list[str] | None, typer.Option(help="Exactly this address; repeatable.")] = None,
    lease: Annotated[str, typer.Option(help="The address of this AddressLease.")] = "",
    family: Annotated[
        list[str] | None, typer.Option(help="IPv4, IPv6; repeatable for one address of each.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="veth, ipvlan-l3, ipvlan-l3s, tap, host, none, shared.")
    ] = "veth",
    ifname: Annotated[str, typer.Option(help="Inside the namespace.")] = "eth0",
    label: Annotated[list[str] | None, typer.Option(help="K=V; repeatable.")] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--publish",
            metavar="[IP:]HOSTPORT:PORT[/udp]",
            help="Reach it at this port of its node; repeatable.",
        ),
    ] = None,
    ingress: Annotated[
        str,
        typer.Option("--ingress-rate", metavar="RATE", help="It is sent at most this, as 100M."),
    ] = "",
    egress: Annotated[
        str, typer.Option("--egress-rate", metavar="RATE", help="It sends no more than.")
    ] = "",
    default_route: Annotated[
        bool, typer.Option("--default-route/--no-default-route", help="Or another interface's.")
    ] = True,
    route: Annotated[
        list[str] | None,
        typer.Option(help="With --no-default-route: a prefix beyond it; repeatable."),
    ] = None,
    shared_with: Annotated[
        str, typer.Option(help="Mode shared: the workload whose namespace it is in.")
    ] = "",
    node: Annotated[str | None, typer.Option(help="Through the service, on this node.")] = None,
    agent: Socket = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is announced.")] = False,
    output: Output = "",
) -> None:
    """Give a namespace an interface and an address of its own."""
    marks = labels(label or [])
    wanted: dict[str, Any] = {
        "netns": netns,
        "ifName": ifname,
        "mode": mode,
        "pools": pool or [],
        "addresses": ip or [],
        "ipFamilies": family or [],
        "lease": lease,
        **({"sharedWith": shared_with} if shared_with else {}),
        "ports": [published(text) for text in publish or []],
    }
    rates = {"ingressRate": ingress, "egressRate": egress}
    limits = {name: bits(rate, name) for name, rate in rates.items() if rate}
    if not default_route or route:
        wanted |= {"defaultRoute": default_route, "routes": route or []}
    if limits:
        wanted["bandwidth"] = limits
    if node is not None:
        from routed.ctl import declaring

        declaring.attach(connection(), name, {"node": node, **wanted}, marks, output)
        return
    from routed.ctl.local import Local

    request = {"name": name, **wanted, "labels": marks}
    Local(agent or AGENT).attach(request, output, wait=wait)


@verb(app, "routectl detach web", "routectl detach web --node host1")
def detach(
    name: str,
    node: Annotated[str | None, typer.Option(help="Through the service.")] = None,
    agent: Socket = None,
) -> None:
    """Take a workload's interface away; its address cools down."""
    if node is not None:
        from routed.ctl import declaring

        declaring.detach(connection(), name)
        return
    from routed.ctl.local import Local

    Local(agent or AGENT).detach(name)


@verb(bgp, "routectl bgp status", "routectl bgp status -o json")
def status(agent: Socket = None, output: Output = "") -> None:
    """The sessions of this host."""
    from routed.ctl.local import Local

    Local(agent or AGENT).bgp_status(output)


@verb(
    bgp, "routectl bgp routes", "routectl bgp routes --peer tor1", "routectl bgp routes --announced"
)
def routes(
    peer: Annotated[str, typer.Option(metavar="PEER", help="Of this BGPPeer alone.")] = "",
    announced: Annotated[bool, typer.Option("--announced", help="What this host says.")] = False,
    agent: Socket = None,
    output: Output = "",
) -> None:
    """What the switches have told this host, and what of it is used."""
    from routed.ctl.local import Local

    Local(agent or AGENT).bgp_routes(output, peer=peer, announced=announced)


@verb(
    app, "routectl diags", "routectl diags --to /tmp/host1.tar.gz --config /etc/routed/agent.yaml"
)
def diags(
    to: Annotated[
        Path | None, typer.Option("--to", help="Default: routed-diags-HOST-TIME.tar.gz here.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="F", help="The agent's settings.")
    ] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log to take along; repeatable.")] = None,
) -> None:
    """Pack what somebody who helps would ask for into one archive, without secrets."""
    from datetime import datetime

    from routed.ctl import diags as archive
    from routed.settings import AgentSettings, load

    settings = load(AgentSettings, config, {})
    path = to or Path(f"routed-diags-{settings.node}-{datetime.now():%Y%m%d-%H%M%S}.tar.gz")
    parts = archive.collect(settings, config, connection(), log or [])
    try:
        archive.write(path, parts)
    except OSError as error:
        raise typer.BadParameter(f"--to {path}: cannot write it: {error.strerror}") from error
    typer.echo(f"{path}: {len(parts)} parts; look at it before you give it away")
