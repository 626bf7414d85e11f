"""`routed lab up|down|status|demo`."""

from __future__ import annotations

import signal
import types
from typing import Annotated

import typer

from routed.lab.lab import Lab, lab_of
from routed.lab.switch import TorDaemon
from routed.lab.topology import Family

app = typer.Typer(
    name="routed lab",
    help="A fabric of network namespaces on one machine, running the real programs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Name = Annotated[str, typer.Option(help="Begins every namespace of the lab.")]
Hosts = Annotated[int, typer.Option(help="Hosts with agent and speaker.")]
Tors = Annotated[int, typer.Option(help="Top-of-rack switches.")]
FamilyOf = Annotated[Family, typer.Option("--family", help="Of IP, on every link.")]
Daemon = Annotated[TorDaemon, typer.Option("--tor-daemon", help="What routes on the switches.")]


@app.command()
def up(
    name: Name = "lab",
    hosts: Hosts = 2,
    tors: Tors = 2,
    tor_daemon: Daemon = TorDaemon.BIRD,
    family: FamilyOf = Family.BOTH,
) -> None:
    """Build it and leave it running."""
    lab = Lab(name, hosts, tors, tor_daemon, family)
    if lab.exists:
        typer.echo(f"lab {name} is up already; see: routed lab status --name {name}")
        return
    try:
        lab.up()
    except BaseException:
        lab.down()
        raise
    typer.echo(_summary(lab))


@app.command()
def down(name: Name = "lab") -> None:
    """Stop every process of it and remove everything."""
    removed = Lab(name).down()
    typer.echo(f"lab {name}: removed {len(removed)} namespaces")


@app.command()
def status(name: Name = "lab") -> None:
    """What runs, which sessions are up, what the switches know."""
    lab = lab_of(name)
    typer.echo(_summary(lab))
    for namespace in lab.tor_namespaces:
        known = lab.tor_prefixes(namespace)
        typer.echo(f"{namespace}: {len(known)} BGP prefixes")


@app.command()
def demo(name: Name = "demo") -> None:
    """Show the main job from attach to detach, then remove everything."""
    from routed.lab.demo import Demo

    def leave(number: int, frame: types.FrameType | None) -> None:
        raise SystemExit(128 + number)

    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, leave)  # SIGINT too: a shell's background job has it ignored
    Demo(name).run()


@app.command()
def hollow(
    agents: Annotated[int, typer.Option(min=1, max=20_000, help="Agents without a host.")] = 100,
    workloads: Annotated[int, typer.Option(min=0, max=1000, help="Of each agent.")] = 10,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Of the agents.")] = 1,
    quiet: Annotated[float, typer.Option(min=1, help="Seconds in which nothing happens.")] = 20.0,
) -> None:
    """Show what a control plane does with many agents: they join, rest, and come back to it."""
    import tempfile
    from pathlib import Path

    from routed.lab.hollow.run import HollowLab, shown

    with tempfile.TemporaryDirectory(prefix="routed-hollow-") as text:
        lab = HollowLab(Path(text), agents, workloads, processes)
        try:
            shown(lab, quiet, typer.echo)
        finally:
            lab.down()


def _summary(lab: Lab) -> str:
    lines = [
        f"lab {lab.top.name}: {len(lab.top.hosts)} hosts, {len(lab.top.tors)} ToRs"
        f" with {lab.tor_daemon}"
    ]
    lines.append(f"  control plane  {_running(lab.server.pid)}  in {lab.top.management}")
    for host in lab.top.hosts:
        agent, speaker = lab.agents[host.name], lab.speakers[host.name]
        lines.append(
            f"  {host.name:<14} agent {_running(agent.pid)}, speaker {_running(speaker.pid)}, "
            f"socket {lab.socket(host.name)}"
        )
    lines.append(
        f"  use it: nsenter --net=/run/netns/{lab.top.management} "
        f"routectl --kubeconfig {lab.admin} get nodes"
    )
    return "\n".join(lines)


def _running(pid: int | None) -> str:
    return f"pid {pid}" if pid else "not running"


def main(arguments: list[str]) -> None:
    """Entry point of `routed lab`."""
    app(arguments, prog_name="routed lab")
