"""The verbs that change objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routed.ctl.commands.options import (
    Absent,
    DryRun,
    Every,
    Everywhere,
    Fields,
    Files,
    Forced,
    Manager,
    Output,
    Recursive,
    Selector,
    Statement,
    Timeout,
    Validate,
    Words,
    seconds,
)  # fmt: skip
from routed.ctl.help import group, verb
from routed.ctl.invocation import connection

if TYPE_CHECKING:
    from routed.ctl.targets import Target
    from routed.ctl.writing import Write

app = group()
MARKS = "KIND NAME... KEY=VALUE... KEY-..."
Marks = Annotated[list[str] | None, typer.Argument(metavar=MARKS)]
Overwrite = Annotated[bool, typer.Option("--overwrite/--no-overwrite", help="Change what is set.")]
Listed = Annotated[bool, typer.Option("--list", help="Only show them.")]


def _write(
    dry_run: str,
    output: str,
    manager: str = "routectl",
    validate: str = "strict",
    *,
    strict: bool = False,
) -> Write:
    from routed.ctl.documents import validation
    from routed.ctl.output import Output as Form
    from routed.ctl.writing import DRY_RUNS, Write

    if dry_run not in DRY_RUNS:
        raise typer.BadParameter(f"--dry-run {dry_run!r} is none of {', '.join(DRY_RUNS)}")
    return Write(dry_run, Form.of(output), manager, strict, validation(validate))


@verb(app, "routectl create -f pool.yaml", "routectl create -f pool.yaml --dry-run=server -o yaml")
def create(
    filename: Files = None,
    recursive: Recursive = False,
    dry_run: DryRun = "none",
    output: Output = "",
    validate: Validate = "strict",
    field_manager: Manager = "routectl",
) -> None:
    """Create the objects of files; those that exist are refused."""
    from routed.ctl import writing

    files = writing.Files(filename or [], recursive)
    writing.create(connection(), files, _write(dry_run, output, field_manager, validate))


@verb(
    app,
    "routectl apply -f examples/",
    "routectl apply -R -f fabric/",
    "routectl get pool main -o yaml | sed s/60/90/ | routectl apply -f -",
)
def apply(
    filename: Files = None,
    recursive: Recursive = False,
    dry_run: DryRun = "none",
    output: Output = "",
    server_side: Annotated[
        bool, typer.Option("--server-side", help="Fields that others have set are a conflict.")
    ] = False,
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="With --server-side: take them over.")
    ] = False,
    validate: Validate = "strict",
    field_manager: Manager = "routectl",
) -> None:
    """Create or change objects so that they are as the files say."""
    from routed.ctl import writing

    strict = server_side and not force_conflicts
    files = writing.Files(filename or [], recursive)
    writing.apply(
        connection(), files, _write(dry_run, output, field_manager, validate, strict=strict)
    )


@verb(app, "routectl get pool main -o yaml > pool.yaml", "routectl replace -f pool.yaml")
def replace(
    filename: Files = None,
    recursive: Recursive = False,
    dry_run: DryRun = "none",
    output: Output = "",
    validate: Validate = "strict",
    field_manager: Manager = "routectl",
) -> None:
    """Put objects in the place of those that exist, whole."""
    from routed.ctl import writing

    files = writing.Files(filename or [], recursive)
    writing.replace(connection(), files, _write(dry_run, output, field_manager, validate))


@verb(app, "routectl edit pool main", "routectl edit peer/tor1 peer/tor2")
def edit(
    words: Words = None,
    dry_run: DryRun = "none",
    output: Output = "",
    field_manager: Manager = "routectl",
) -> None:
    """Change objects in your editor ($KUBE_EDITOR, $VISUAL, $EDITOR)."""
    from routed.ctl import patching
    from routed.ctl.targets import Selected, chosen

    wanted = _targets(words)
    chosen(wanted, Selected(), every=False)
    patching.edit(connection(), wanted, _write(dry_run, output, field_manager))


@verb(
    app,
    'routectl patch pool main -p \'{"spec":{"disabled":true}}\'',
    'routectl patch node host1 --type json -p \'[{"op":"remove","path":"/metadata/labels/rack"}]\'',
)
def patch(
    words: Words = None,
    text: Annotated[str, typer.Option("-p", "--patch", metavar="PATCH", help="JSON or YAML.")] = "",
    patch_file: Annotated[
        Path | None, typer.Option("--patch-file", metavar="F", help="Instead of -p.")
    ] = None,
    kind_of_patch: Annotated[
        str, typer.Option("--type", metavar="merge|json|strategic", help="How it is meant.")
    ] = "strategic",
    subresource: Annotated[str, typer.Option(metavar="status", help="Of this part.")] = "",
    dry_run: DryRun = "none",
    output: Output = "",
    field_manager: Manager = "routectl",
) -> None:
    """Change fields of objects."""
    from routed.ctl import files, patching
    from routed.ctl.targets import Selected, chosen

    if bool(text) == (patch_file is not None):
        raise typer.BadParameter("say -p PATCH or --patch-file F")
    wanted = _targets(words)
    chosen(wanted, Selected(), every=False)
    change = patching.change_of(files.text(patch_file) if patch_file else text)
    how = _write(dry_run, output, field_manager)
    patching.patch(connection(), wanted, change, kind_of_patch, subresource=subresource, how=how)


@verb(
    app,
    "routectl label node host1 rack=r1",
    "routectl label nodes -l rack=r1 zone=east --overwrite",
    "routectl label node host1 rack-",
)
def label(
    words: Marks = None,
    overwrite: Overwrite = False,
    listed: Listed = False,
    every: Every = False,
    selector: Selector = "",
    field_selector: Fields = "",
    dry_run: DryRun = "none",
    output: Output = "",
    field_manager: Manager = "routectl",
) -> None:
    """Set labels of objects; KEY- takes one away."""
    how = _write(dry_run, output, field_manager)
    _mark("labels", words, selector, field_selector, overwrite, listed, every, how)


@verb(
    app,
    "routectl annotate pool main owner=network-team",
    "routectl annotate pools --all owner-",
)
def annotate(
    words: Marks = None,
    overwrite: Overwrite = False,
    listed: Listed = False,
    every: Every = False,
    selector: Selector = "",
    field_selector: Fields = "",
    dry_run: DryRun = "none",
    output: Output = "",
    field_manager: Manager = "routectl",
) -> None:
    """Set annotations of objects; KEY- takes one away."""
    how = _write(dry_run, output, field_manager)
    _mark("annotations", words, selector, field_selector, overwrite, listed, every, how)


def _mark(
    field: str, words: list[str] | None, labels: str, fields: str, overwrite: bool, listed: bool,
    every: bool, how: Write,
) -> None:  # fmt: skip
    from routed.ctl import patching
    from routed.ctl.targets import Selected, chosen, targets

    objects, marks = patching.split_words(words or [])
    wanted, selected = targets(objects), Selected(labels, fields)
    chosen(wanted, selected, every=every)
    if listed:
        patching.marks_of(connection(), wanted, selected, field)
        return
    if not marks:
        raise typer.BadParameter("say what to set: KEY=VALUE, or KEY- to take it away")
    pairs = patching.pairs_of(marks)
    patching.mark(connection(), wanted, selected, field, pairs, overwrite=overwrite, how=how)


@verb(
    app,
    "routectl delete workload web",
    "routectl delete -f examples/",
    "routectl delete peers --all --dry-run=server",
    'routectl delete node host7 --force --statement "the board is dead, its power is cut"',
)
def delete(
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    field_selector: Fields = "",
    every: Every = False,
    force: Forced = False,
    statement: Statement = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they are gone.")] = True,
    timeout: Timeout = "0",
    ignore_not_found: Absent = False,
    dry_run: DryRun = "none",
    output: Output = "",
    all_namespaces: Everywhere = False,
) -> None:
    """Delete objects by name, selector or file; with --force a node that is off for good."""
    from routed.ctl import writing
    from routed.ctl.targets import NothingFound, Selected

    wanted = _targets(words) if words else []
    if force or statement:
        _delete_nodes(wanted, statement, force=force, alone=not (filename or selector))
        return
    if not wanted and not filename:
        raise NothingFound.of("say KIND NAME..., KIND -l SELECTOR, KIND --all, or -f FILE")
    deletion = writing.Deletion(wait, seconds(timeout), ignore_not_found, every)
    files = writing.Files(filename or [], recursive)
    selected, how = Selected(selector, field_selector), _write(dry_run, output)
    writing.delete(connection(), wanted, files, selected, how, deletion)


def _delete_nodes(wanted: list[Target], statement: str, *, force: bool, alone: bool) -> None:
    from routed.ctl import space

    names = [name for each in wanted for name in each.names if each.kind.plural == "nodes"]
    if not names or not alone or any(each.kind.plural != "nodes" for each in wanted):
        raise typer.BadParameter("--force is for nodes: delete node NAME --force --statement T")
    word = space.Force.of(statement, force=force)
    for name in names:
        connection().run(lambda client, name=name: space.delete_node(client, name, word))  # type: ignore[misc]
        typer.echo(f"node/{name} deleted, what it owned is free")


def _targets(words: list[str] | None) -> list[Target]:
    from routed.ctl.targets import targets

    return targets(words or [])
