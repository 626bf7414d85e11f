"""All checks in their order, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import typer

from routed.doctor import host, ipvlan, nat, network, ports
from routed.doctor.findings import Finding, documents, exit_code
from routed.settings import AgentSettings


def checks(settings: AgentSettings) -> Iterator[Finding]:
    """Every finding, as it comes."""
    yield from host.rights()
    yield from host.kernel()
    yield from host.sysctls(settings)
    yield from host.firewalls()
    yield from host.saved_rules()
    yield from host.managers()
    yield from host.links(settings)
    yield from ports.taken(settings)
    yield from network.directories(settings)
    yield from network.secrets(settings)
    yield from network.service(settings)
    yield from network.addresses(settings)
    yield from nat.addresses(settings)
    yield from network.switches(settings)
    yield from network.programs(settings)


def run(settings: AgentSettings, output: str, *, only_ipvlan: bool = False) -> int:
    """Print the findings ("text" or "json"); the exit code. `only_ipvlan`: whether attaching by the
    modes of ipvlan will work."""
    found: list[Finding] = []
    for one in ipvlan.checks(settings) if only_ipvlan else checks(settings):
        found.append(one)
        if output == "text":
            typer.echo(f"{one.verdict:<8}{one.check}: {one.found}")
            if one.remedy:
                typer.echo(f"        -> {one.remedy}")
    code = exit_code(found)
    if output == "json":
        typer.echo(json.dumps({"attachable": code == 0, "findings": documents(found)}, indent=2))
    else:
        typer.echo("attaching will work" if code == 0 else "attaching will not work")
    return code
