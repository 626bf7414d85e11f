"""The verbs that change nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from routed.ctl.commands.options import (
    Absent,
    Every,
    Everywhere,
    Fields,
    Files,
    Header,
    Manager,
    Output,
    Recursive,
    Selector,
    Timeout,
    Words,
    seconds,
)  # fmt: skip
from routed.ctl.help import group, verb
from routed.ctl.invocation import connection

app = group()


@verb(
    app,
    "routectl get nodes",
    "routectl get workloads -o wide -l app=web",
    "routectl get pool/main peer/tor1 -o yaml",
    "routectl get blocks --field-selector spec.node=host1 --sort-by .spec.cidr",
    "routectl get workloads -w",
    "routectl get workloads -o custom-columns=NAME:.metadata.name,IP:.status.addresses",
    "routectl get nodes -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
)
def get(
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    output: Output = "",
    selector: Selector = "",
    field_selector: Fields = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with changes.")] = False,
    watch_only: Annotated[bool, typer.Option("--watch-only", help="Changes alone.")] = False,
    output_watch_events: Annotated[
        bool, typer.Option("--output-watch-events", help="With the event's type.")
    ] = False,
    sort_by: Annotated[str, typer.Option(metavar="PATH", help="Such as .metadata.name.")] = "",
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="A column with all labels.")
    ] = False,
    label_columns: Annotated[
        list[str] | None, typer.Option("-L", metavar="KEY", help="A column with a label.")
    ] = None,
    no_headers: Header = False,
    ignore_not_found: Absent = False,
    show_managed_fields: Annotated[
        bool, typer.Option("--show-managed-fields", help="Who has set which field.")
    ] = False,
    all_namespaces: Everywhere = False,
) -> None:
    """Show objects."""
    from routed.ctl import reading
    from routed.ctl.output import Output as Form
    from routed.ctl.tables import Shown
    from routed.ctl.targets import Selected, named, targets

    wanted = named(filename or [], recursive) if filename else targets(words or [])
    columns = tuple(key for part in label_columns or [] for key in part.split(","))
    how = Shown(Form.of(output), not no_headers, columns, show_labels, show_managed_fields)
    listing = reading.Listing(watch, watch_only, output_watch_events, ignore_not_found, sort_by)
    reading.get(connection(), wanted, Selected(selector, field_selector), how, listing)


@verb(app, "routectl describe node host1", "routectl describe workloads -l app=web")
def describe(
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_namespaces: Everywhere = False,
) -> None:
    """Show objects in full, for people."""
    from routed.ctl import describing
    from routed.ctl.targets import Selected, named, targets

    wanted = named(filename or [], recursive) if filename else targets(words or [])
    describing.describe(connection(), wanted, Selected(selector))


@verb(
    app,
    "routectl wait node/host1 --for condition=Ready --timeout 60s",
    "routectl wait workload web --for jsonpath='{.status.phase}'=Ready",
    "routectl wait block 10-65-0-0-26 --for delete",
)
def wait(
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    awaited: Annotated[
        str,
        typer.Option(
            "--for", metavar="WHAT", help="condition=T[=S], jsonpath=P[=V], create, delete."
        ),
    ] = "",
    timeout: Timeout = "30s",
    selector: Selector = "",
    field_selector: Fields = "",
    every: Every = False,
    all_namespaces: Everywhere = False,
) -> None:
    """Wait until something is true of objects; exit code 1 if it does not become so in time."""
    from routed.ctl import reading
    from routed.ctl.targets import Selected, chosen, named, targets

    wanted = named(filename or [], recursive) if filename else targets(words or [])
    selected = Selected(selector, field_selector)
    chosen(wanted, selected, every=every)
    reading.wait(connection(), wanted, selected, reading.Awaited.of(awaited), seconds(timeout))


@verb(app, "routectl diff -f examples/", "routectl get pool main -o yaml | routectl diff -f -")
def diff(
    filename: Files = None,
    recursive: Recursive = False,
    field_manager: Manager = "routectl",
) -> None:
    """Show what `apply` would change; exit code 1 if that is anything."""
    from routed.ctl import writing

    how = writing.Write(writing.SERVER, manager=field_manager)
    if writing.diff(connection(), writing.Files(filename or [], recursive), how):
        raise typer.Exit(1)


@verb(app, "routectl explain ippool", "routectl explain workload.spec --recursive")
def explain(
    path: Annotated[str, typer.Argument(metavar="KIND[.FIELD...]")],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="All fields of fields, without a word.")
    ] = False,
) -> None:
    """Say what a kind or a field of it is for."""
    from routed.ctl.explaining import explained

    typer.echo(explained(path, recursive=recursive))


@verb(app, "routectl api-resources", "routectl api-resources -o name", name="api-resources")
def api_resources(output: Output = "", no_headers: Header = False) -> None:
    """List the kinds."""
    from routed.ctl.explaining import resources

    typer.echo(resources(output, header=not no_headers))


@verb(app, "routectl version", "routectl version --client")
def version(
    client: Annotated[bool, typer.Option("--client", help="Of this program alone.")] = False,
) -> None:
    """Print the versions of this program and of the service."""
    from routed.ctl import about

    typer.echo(about.version(None if client else connection()))


@verb(app, "routectl cluster-info", name="cluster-info")
def cluster_info() -> None:
    """Say where the service is, whether it is ready, and the pin of its CA, for `login`."""
    from routed.ctl import about

    typer.echo(about.cluster(connection()))
