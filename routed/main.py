"""`routed`: server, store, agent, join, speaker, up, lab, doctor, healthcheck.

Each imports what it needs when it runs.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from api.resources.errors import ConfigError, RoutedError

app = typer.Typer(
    name="routed",
    help="Routable addresses for workloads on your own hosts, announced to your switches by BGP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="F", help="YAML file; flags override it.")
]
RunDir = Annotated[Path | None, typer.Option(help="Sockets and records (default /run/routed).")]
StateDir = Annotated[
    Path | None, typer.Option(help="What outlives a reboot (default /var/lib/routed).")
]


@app.command()
def server(
    config: Config = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Database, CA, admin.kubeconfig (default /var/lib/routed).")
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="TLS, always.")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="sqlite:///PATH (default in --data-dir) or etcd://HOST:PORT,HOST:PORT."),
    ] = None,
    advertise: Annotated[
        list[str] | None, typer.Option(help="Name or address for the certificate; repeatable.")
    ] = None,
) -> None:
    """The control plane: IPAM, declared state, the API that agents and kubectl speak."""
    from api.service import Rate, Rates, run
    from routed.settings import ServerSettings, load

    settings = load(
        ServerSettings,
        config,
        {"data_dir": data_dir, "listen": listen, "store": store, "advertise": advertise},
    )
    run(
        settings.data_dir,
        settings.listen,
        settings.place,
        settings.advertise,
        certificate_seconds=settings.certificate_seconds,
        user_certificate_seconds=settings.user_certificate_seconds,
        audit_log=settings.audit_log,
        rates=Rates(
            Rate(settings.requests_per_second, settings.request_burst),
            Rate(settings.stranger_requests_per_second, settings.stranger_request_burst),
        ),
    )


@app.command(
    name="store",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def keep(context: typer.Context) -> None:
    """The control plane's store: backup, restore, migrate."""
    from routed.store import app as store_app

    store_app(context.args, prog_name="routed store")


@app.command()
def agent(
    config: Config = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="The control plane.")] = None,
    node: Annotated[str | None, typer.Option(help="This host's Node (default: hostname).")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="This node's credentials.")] = None,
    run_dir: RunDir = None,
    state_dir: StateDir = None,
) -> None:
    """The per-host agent: attaches workloads, writes routes, has them announced."""
    from routed.agent.run import run
    from routed.settings import AgentSettings, load

    overrides: dict[str, Any] = {
        "server": server,
        "node": node,
        "kubeconfig": kubeconfig,
        "run_dir": run_dir,
        "state_dir": state_dir,
    }
    run(load(AgentSettings, config, overrides))


@app.command()
def join(
    config: Config = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Default: the one in the token.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="This host's Node (default: hostname).")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Written (default /etc/routed/node.kubeconfig).")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="F", help="Mode 0600 (default: stdin).")
    ] = None,
) -> None:
    """Make this host a node: exchange a bootstrap token for credentials of its own.

    On the control plane: routectl token create --node host1 | ssh host1 routed join --node host1
    """
    from routed.join import run
    from routed.settings import AgentSettings, load

    overrides: dict[str, Any] = {"server": server, "node": node, "kubeconfig": kubeconfig}
    path = None if token_file is None or str(token_file) == "-" else token_file
    typer.echo(run(load(AgentSettings, config, overrides), path))


@app.command()
def speaker(config: Config = None, run_dir: RunDir = None, state_dir: StateDir = None) -> None:
    """ExaBGP and what keeps it; a process of its own that no restart of the agent touches."""
    from bgp.speaker import SpeakerSettings, run
    from routed.settings import AgentSettings, load

    places = {"speaker_run_dir": run_dir, "speaker_state_dir": state_dir}
    settings = load(AgentSettings, config, places)
    run(SpeakerSettings(run_dir=settings.speaker_run, state_dir=settings.speaker_state))


@app.command()
def up(
    config: Config = None,
    data_dir: Annotated[Path | None, typer.Option(help="The control plane's data.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT")] = None,
    node: Annotated[str | None, typer.Option(help="This host's Node.")] = None,
    run_dir: RunDir = None,
    state_dir: StateDir = None,
) -> None:
    """One host, everything on it: server, agent and speaker with the embedded store."""
    from routed.settings import AgentSettings, ServerSettings, load
    from routed.up import run

    servers = load(ServerSettings, None, {"data_dir": data_dir, "listen": listen})
    agents = load(AgentSettings, config, {"node": node, "run_dir": run_dir, "state_dir": state_dir})
    run(servers, agents)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def lab(context: typer.Context) -> None:
    """A fabric of network namespaces running the real programs: up, down, status, demo."""
    from routed.lab.command import main as lab_main

    lab_main(context.args)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


@app.command()
def doctor(
    config: Config = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="This node's credentials.")] = None,
    run_dir: RunDir = None,
    state_dir: StateDir = None,
    ipvlan: Annotated[
        bool, typer.Option("--ipvlan", help="Only: whether modes ipvlan-l3 and -l3s will.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.TEXT,
) -> None:
    """Whether attaching will work on this host (exit code 0) or not (1), and what to fix."""
    from routed.doctor.command import run
    from routed.settings import AgentSettings, load

    overrides = {"kubeconfig": kubeconfig, "run_dir": run_dir, "state_dir": state_dir}
    settings = load(AgentSettings, config, overrides)
    raise typer.Exit(run(settings, output.value, only_ipvlan=ipvlan))


@app.command()
def healthcheck() -> None:
    """Whether the programs of ours that run in this container answer: 0 if all do, else 1."""
    from routed.health import run

    def parsed(role: str, words: list[str]) -> dict[str, Any]:
        group: Any = typer.main.get_command(app)
        found: dict[str, Any] = group.commands[role].make_context(role, words).params
        return found

    raise typer.Exit(run(parsed))


def main() -> None:
    """Entry point. ConfigError: exit code 2; another error of ours: 1; both on stderr."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="ts=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        app()
    except ConfigError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    except RoutedError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
