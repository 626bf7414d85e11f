"""create, apply, replace, diff and delete: files and names in, one line out for each object.

`apply` is server-side apply by the manager ``routectl``: what the file says is set, what an earlier
apply had set and the file no longer says is taken away, and what others have set (labels, an
operator's `cordon`) stays. As with kubectl's own apply, fields of others are taken over silently;
with ``--server-side`` that is a conflict, unless ``--force-conflicts``.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from api.client import Client
from api.resources.errors import IntentError, NotFound
from api.resources.media import APPLY
from api.resources.registry import Kind
from routed.ctl import documents
from routed.ctl.connection import Connection
from routed.ctl.output import Output
from routed.ctl.progress import progress, say
from routed.ctl.reading import Awaited, until
from routed.ctl.tables import PLAIN_TABLE, Shown, said, shown, unmanaged
from routed.ctl.targets import NothingFound, Selected, Target, find

Document = dict[str, Any]
MANAGER = "routectl"
NONE, CLIENT, SERVER = DRY_RUNS = ("none", "client", "server")
_NOTES = {NONE: "", CLIENT: " (dry run)", SERVER: " (server dry run)"}


@dataclass(frozen=True, slots=True)
class Write:
    """How changes are made and said. `strict`: fields of others are a conflict, not taken over.
    `validation`: what becomes of unknown fields, in the service's word."""

    dry: str = NONE
    output: Output = PLAIN_TABLE
    manager: str = MANAGER
    strict: bool = False
    validation: str = "Strict"

    @property
    def query(self) -> dict[str, str]:
        dry = {} if self.dry == NONE else {"dryRun": "All"}
        return {"fieldManager": self.manager, **dry}

    def said(self, kind: Kind, name: str, verb: str) -> str:
        return f"{said(kind, name)} {verb}{_NOTES[self.dry]}"


Change = Callable[[Client, Kind, Document], Awaitable[tuple[str, Document]]]


class Told:
    """What was done, said at once in a line each, or at the end as `-o` wants it."""

    def __init__(self, how: Write) -> None:
        self.how = how
        self.made: list[tuple[Kind, list[Document]]] = []

    def add(self, kind: Kind, document: Document, verb: str) -> None:
        self.made.append((kind, [document]))
        if not self.how.output.form:
            say(self.how.said(kind, document["metadata"]["name"], verb))

    def end(self) -> None:
        if self.how.output.form and self.made:
            typer.echo(shown(Shown(self.how.output), self.made, single=len(self.made) == 1))


def create(connection: Connection, files: Files, how: Write) -> None:
    """Those that exist are refused."""

    async def change(client: Client, kind: Kind, document: Document) -> tuple[str, Document]:
        made = await client.raw(
            "POST", f"/{kind.plural}", json=document, params=how.query, validation=how.validation
        )
        return "created", made

    _each(connection, files, how, change, "creating")


def apply(connection: Connection, files: Files, how: Write) -> None:
    async def change(client: Client, kind: Kind, document: Document) -> tuple[str, Document]:
        held, made = await applied(client, kind, document, how)
        if held is None:
            return "created", made
        return "unchanged" if content(held) == content(made) else "configured", made

    _each(connection, files, how, change, "applying")


def replace(connection: Connection, files: Files, how: Write) -> None:
    """Objects as the files have them, whole; one that has changed since the file was read from the
    service (resourceVersion) is refused."""

    async def change(client: Client, kind: Kind, document: Document) -> tuple[str, Document]:
        path = f"/{kind.plural}/{document['metadata']['name']}"
        version = document["metadata"].get("resourceVersion")
        if not version:
            version = (await client.raw("GET", path))["metadata"]["resourceVersion"]
        metadata = {**document["metadata"], "resourceVersion": version}
        wanted = {**document, "metadata": metadata}
        made = await client.raw(
            "PUT", path, json=wanted, params=how.query, validation=how.validation
        )
        return "replaced", made

    _each(connection, files, how, change, "replacing")


@dataclass(frozen=True, slots=True)
class Files:
    """Where objects are read from."""

    paths: Sequence[Path]
    recursive: bool = False

    def read(self, validation: str = "Strict") -> list[tuple[Kind, Document]]:
        """Checked; of what is left out of them the user is told, if that is to be warned of."""
        unknown: list[str] | None = None if validation == "Strict" else []
        found = documents.read(self.paths, unknown, recursive=self.recursive)
        for text in (unknown or []) if validation == "Warn" else []:
            typer.echo(f"Warning: {text}", err=True)
        return found


def _each(connection: Connection, files: Files, how: Write, change: Change, title: str) -> None:
    """All of the files is read before anything is sent."""
    wanted = files.read(how.validation)
    told = Told(how)
    if how.dry == CLIENT:
        verbs = {"applying": "applied", "creating": "created", "replacing": "replaced"}
        for kind, document in wanted:
            told.add(kind, document, verbs[title])
        told.end()
        return

    async def work(client: Client) -> None:
        with progress(title, len(wanted)) as done:
            for kind, document in wanted:
                verb, made = await change(client, kind, document)
                told.add(kind, made, verb)
                done(said(kind, made["metadata"]["name"]))

    try:
        connection.run(work)
    finally:
        told.end()


async def applied(
    client: Client, kind: Kind, document: Document, how: Write
) -> tuple[Document | None, Document]:
    """The object as it was (None: it was not there) and as it is."""
    path = f"/{kind.plural}/{document['metadata']['name']}"
    held: Document | None = None
    try:
        held = await client.raw("GET", path)
    except NotFound:
        if kind.plural == "ipblocks":  # a claim: the service chooses what it becomes
            made = await client.raw(
                "POST",
                f"/{kind.plural}",
                json=document,
                params=how.query,
                validation=how.validation,
            )
            return None, made
    wanted = {k: v for k, v in document.items() if k != "status"}
    wanted["metadata"] = {
        k: v for k, v in document["metadata"].items() if k in ("name", "labels", "annotations")
    }
    return held, await client.raw(
        "PATCH",
        path,
        content=json.dumps(wanted),
        params={**how.query, "force": "false" if how.strict else "true"},
        headers={"content-type": APPLY},
        validation=how.validation,
    )


def content(document: Document) -> Document:
    """What a user would call the object: not who said it, nor at which revision."""
    held = unmanaged(document)
    metadata = {k: v for k, v in held["metadata"].items() if k not in _VERSIONS}
    return {**held, "metadata": metadata}


_VERSIONS = ("resourceVersion", "generation")


def diff(connection: Connection, files: Files, how: Write) -> bool:
    """Print what `apply` would change; whether that is anything."""
    wanted = files.read()

    async def work(client: Client) -> str:
        text = ""
        with progress("comparing", len(wanted)) as done:
            for kind, document in wanted:
                held, made = await applied(client, kind, document, how)
                name = said(kind, document["metadata"]["name"])
                pair = (_lines(held), _lines(made))
                text += "".join(difflib.unified_diff(*pair, f"live/{name}", f"applied/{name}"))
                done(name)
        return text

    found = connection.run(work)
    typer.echo(found, nl=False)
    return bool(found)


def _lines(document: Document | None) -> list[str]:
    if document is None:
        return []
    held = content(document)
    born = ("uid", "creationTimestamp")
    held["metadata"] = {k: v for k, v in held["metadata"].items() if k not in born}
    held.pop("status", None)
    return str(yaml.safe_dump(held, sort_keys=False)).splitlines(keepends=True)


@dataclass(frozen=True, slots=True)
class Deletion:
    """How objects are deleted: `wait` until they are gone, for `seconds` at most (0: as long as it
    takes); `absent` ones are no error; `every` object of the kinds if none is named."""

    wait: bool = True
    seconds: float = 0.0
    absent: bool = False
    every: bool = False


def delete(
    connection: Connection,
    wanted: Sequence[Target],
    files: Files,
    selected: Selected,
    how: Write,
    deletion: Deletion,
) -> None:
    """One that is refused does not keep the others, as with kubectl; the last refusal is raised."""
    pairs = (
        [(k, str(d["metadata"]["name"])) for k, d in reversed(files.read())] if files.paths else []
    )
    pairs += [(each.kind, name) for each in wanted for name in each.names]
    unnamed = [each for each in wanted if not each.names]
    if unnamed and not (selected or deletion.every):
        raise NothingFound.of("say KIND NAME..., KIND -l SELECTOR, KIND --all, or -f FILE")

    async def work(client: Client) -> None:
        for each in unnamed:
            found = await find(client, each, selected)
            pairs.extend((each.kind, document["metadata"]["name"]) for document in found)
        gone, refused = await _gone(client, pairs, how, deletion)
        if deletion.wait and how.dry == NONE:
            await _left(client, gone, deletion.seconds)
        for one_refused in refused[:-1]:
            typer.echo(f"Error: {one_refused}", err=True)
        if refused:
            raise refused[-1]

    connection.run(work)


async def _gone(
    client: Client, pairs: Sequence[tuple[Kind, str]], how: Write, deletion: Deletion
) -> tuple[list[tuple[Kind, str]], list[IntentError]]:
    gone: list[tuple[Kind, str]] = []
    refused: list[IntentError] = []
    dry = {} if how.dry == NONE else {"dryRun": "All"}
    with progress("deleting", len(pairs)) as done:
        for kind, name in pairs:
            try:
                if how.dry != CLIENT:
                    await client.raw("DELETE", f"/{kind.plural}/{name}", params=dry)
            except IntentError as error:
                if not (deletion.absent and isinstance(error, NotFound)):
                    refused.append(error)
            else:
                gone.append((kind, name))
                short = how.output.form == "name"
                say(said(kind, name) if short else how.said(kind, name, "deleted"))
            done(said(kind, name))
    return gone, refused


async def _left(client: Client, gone: Sequence[tuple[Kind, str]], seconds: float) -> None:
    """Wait for those whose owner has to give them back first."""
    left = []
    for kind, name in gone:
        with contextlib.suppress(NotFound):
            held = await client.raw("GET", f"/{kind.plural}/{name}")
            if "deletionTimestamp" in held["metadata"]:
                left.append((kind, name))
    if left:
        await until(client, left, Awaited.of("delete"), seconds, quiet=True)
