"""patch, label, annotate and edit: changes of objects that are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from api.client import Client
from api.resources.errors import Cause, ConfigError, Conflict, IntentError, RoutedError
from api.resources.media import JSON_PATCH, MERGE, STRATEGIC
from api.resources.registry import Kind
from routed.ctl import environment
from routed.ctl.connection import Connection
from routed.ctl.tables import said, unmanaged
from routed.ctl.targets import Selected, Target, find, one
from routed.ctl.writing import Told, Write, content

Document = dict[str, Any]
MEDIA = {"strategic": STRATEGIC, "merge": MERGE, "json": JSON_PATCH}
TRIES = 5
HEAD = """\
# Save and leave the editor to have this changed; an empty or unchanged file changes nothing.
"""


class EditorFailed(RoutedError):
    """The editor did not do its work."""


def change_of(text: str) -> Any:
    """A patch, in JSON or YAML; ConfigError."""
    try:
        change = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = f"is neither JSON nor YAML: {' '.join(str(error).split())}"
        raise ConfigError("the patch", [Cause("", problem)]) from error
    if not isinstance(change, dict | list):
        raise ConfigError("the patch", [Cause("", "must be an object, or a list of operations")])
    return change


def patch(
    connection: Connection, wanted: Sequence[Target], change: Any, kind_of_patch: str, *,
    subresource: str, how: Write,
) -> None:  # fmt: skip
    if kind_of_patch not in MEDIA:
        problem = f"{kind_of_patch!r} is none of {', '.join(MEDIA)}"
        raise ConfigError("--type", [Cause("", problem)])
    if subresource not in ("", "status"):
        raise ConfigError("--subresource", [Cause("", f"{subresource!r} is not status")])
    told = Told(how)

    async def work(client: Client) -> None:
        for each in wanted:
            for name in each.names:
                held = await one(client, each.kind, name)
                path = f"/{each.kind.plural}/{held['metadata']['name']}"
                made = await _patched(
                    client, f"{path}/{subresource}".rstrip("/"), change, kind_of_patch, how
                )
                same = content(made) == content(held)
                told.add(each.kind, made, "patched (no change)" if same else "patched")

    connection.run(work)
    told.end()


async def _patched(client: Client, path: str, change: Any, form: str, how: Write) -> Document:
    headers = {"content-type": MEDIA[form]}
    return await client.raw(
        "PATCH", path, content=json.dumps(change), params=how.query, headers=headers
    )


def _version(document: Document) -> str:
    return str(document["metadata"]["resourceVersion"])


_REMOVED = re.compile(r"[^=]+-\Z")


def pairs_of(words: Sequence[str]) -> dict[str, str | None]:
    """``KEY=VALUE`` sets, ``KEY-`` takes away (None); ConfigError."""
    made: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if _REMOVED.match(word):
            key, entry = word[:-1], None
        elif key and equals:
            entry = value
        else:
            raise ConfigError("the command line", [Cause("", f"{word!r} is not KEY=VALUE or KEY-")])
        if made.get(key, entry) != entry:
            raise ConfigError("the command line", [Cause("", f"{key} is said twice")])
        made[key] = entry
    return made


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names objects, and what follows it."""
    at = next((n for n, word in enumerate(words) if "=" in word or word.endswith("-")), len(words))
    return list(words[:at]), list(words[at:])


def mark(
    connection: Connection, wanted: Sequence[Target], selected: Selected, field: str,
    pairs: dict[str, str | None], *, overwrite: bool, how: Write,
) -> None:  # fmt: skip
    """Set and take away labels or annotations (`field`)."""
    verb = "labeled" if field == "labels" else "annotated"
    told = Told(how)

    async def work(client: Client) -> None:
        for each in wanted:
            for held in await find(client, each, selected):
                made = await _marked(client, each.kind, held, field, pairs, overwrite, how)
                same = made["metadata"].get(field) == held["metadata"].get(field)
                told.add(each.kind, made, f"not {verb}" if same else verb)

    connection.run(work)
    told.end()


async def _marked(
    client: Client, kind: Kind, held: Document, field: str, pairs: dict[str, str | None],
    overwrite: bool, how: Write,
) -> Document:  # fmt: skip
    """Decided on the object as it is, and again if others have changed it meanwhile."""
    path = f"/{kind.plural}/{held['metadata']['name']}"
    for left in reversed(range(TRIES)):
        present = held["metadata"].get(field) or {}
        for key, value in pairs.items():
            if value is not None and present.get(key, value) != value and not overwrite:
                raise Conflict(
                    f"cannot set {key} of {said(kind, held['metadata']['name'])}: it is "
                    f"{present[key]!r} already; --overwrite changes it"
                )
        change = {"metadata": {field: pairs, "resourceVersion": _version(held)}}
        try:
            return await _patched(client, path, change, "merge", how)
        except Conflict:
            if not left:
                raise
            held = await client.raw("GET", path)
    raise AssertionError


def marks_of(
    connection: Connection, wanted: Sequence[Target], selected: Selected, field: str
) -> None:
    """Print labels or annotations."""

    async def work(client: Client) -> None:
        for each in wanted:
            found = await find(client, each, selected)
            for held in found:
                if len(found) > 1:
                    typer.echo(f"Listing {field} for {said(each.kind, held['metadata']['name'])}:")
                space = " " * (len(found) > 1)
                for key, value in sorted((held["metadata"].get(field) or {}).items()):
                    typer.echo(f"{space}{key}={value}")

    connection.run(work)


def edit(connection: Connection, wanted: Sequence[Target], how: Write) -> None:
    """One object after the other in the user's editor. What was written wrong is shown in it again;
    what is given up is kept in a file."""
    told = Told(how)

    async def work(client: Client) -> None:
        for each in wanted:
            for name in each.names:
                held = unmanaged(await one(client, each.kind, name))
                made = await _edited(client, each.kind, held, how)
                if made is None:
                    typer.echo(f"{said(each.kind, name)} not changed")
                else:
                    told.add(each.kind, made, "edited")

    connection.run(work)
    told.end()


async def _edited(client: Client, kind: Kind, held: Document, how: Write) -> Document | None:
    """What became of it; None: it stays as it is."""
    whole = yaml.safe_dump(held, sort_keys=False)
    text, problem = whole, ""
    while True:
        notes = "".join(f"# {line}\n" for line in problem.splitlines())
        said_now = _in_editor(HEAD + notes + text, kind.singular)
        after = "".join(ln for ln in said_now.splitlines(keepends=True) if not ln.startswith("#"))
        if not after.strip() or after == whole:
            return None
        if problem and after == text:
            raise _given_up(problem, after, kind)
        text = after
        try:
            wanted = yaml.safe_load(text)
            if not isinstance(wanted, dict):
                raise ValueError("it must be an object")
        except (yaml.YAMLError, ValueError) as error:
            problem = f"it is no object in YAML: {error}"
            continue
        change = difference(held, wanted)
        if not change:
            return None
        try:
            path = f"/{kind.plural}/{held['metadata']['name']}"
            return await _patched(client, path, change, "merge", how)
        except IntentError as error:
            problem = str(error)


def _in_editor(text: str, name: str) -> str:
    words = environment.editor()
    with tempfile.TemporaryDirectory(prefix="routectl-") as directory:  # 0700
        path = Path(directory) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*words, str(path)], check=False)
        except OSError as error:
            said_why = f"cannot run the editor {words[0]}: {error.strerror}; set $EDITOR"
            raise EditorFailed(said_why) from error
        if done.returncode != 0:
            raise EditorFailed(f"cannot edit: {words[0]} ended with {done.returncode}")
        return path.read_text(encoding="utf-8")


def _given_up(problem: str, text: str, kind: Kind) -> EditorFailed:
    descriptor, name = tempfile.mkstemp(prefix=f"routectl-{kind.singular}-", suffix=".yaml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return EditorFailed(f"cannot edit: {problem}\nwhat you wrote is in {name}")


def difference(before: Any, after: Any) -> Document:
    """The merge patch (RFC 7386) that makes `after` of `before`, two objects. Pure."""
    change: Document = {key: None for key in before if key not in after}
    for key, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            if inner := difference(before[key], value):
                change[key] = inner
        elif key not in before or before[key] != value:
            change[key] = value
    return change
