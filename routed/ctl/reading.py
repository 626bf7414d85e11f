"""get, describe, wait and what they share: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import typer

from api.client import Client, Unreachable
from api.resources.errors import Cause, ConfigError, NotFound, RoutedError
from api.resources.registry import Kind
from routed.ctl import jsonpath
from routed.ctl.connection import Connection
from routed.ctl.progress import progress, say
from routed.ctl.tables import Shown, ordered, said, shown
from routed.ctl.targets import NothingFound, Selected, Target, find

Document = dict[str, Any]
RETRY_SECONDS = 0.5
CREATED = "created"


class TimedOut(RoutedError):
    """What was waited for has not come."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a list is come by: `only` changes, not what is there; `absent` objects are no error."""

    watch: bool = False
    only: bool = False
    events: bool = False
    absent: bool = False
    sort: str = ""


def get(
    connection: Connection,
    wanted: Sequence[Target],
    selected: Selected,
    how: Shown,
    listing: Listing,
) -> None:
    """Print objects; of a watch, each as it changes, until it ends."""
    if listing.watch or listing.only:
        if len(wanted) > 1 or len(wanted[0].names) > 1:
            problem = "watches are of one kind: all of it, selected ones, or one NAME"
            raise ConfigError("-w", [Cause("", problem)])
        connection.run(lambda client: _watch(client, wanted[0], selected, how, listing))
        return

    async def work(client: Client) -> list[tuple[Kind, list[Document]]]:
        return [(each.kind, await _found(client, each, selected, listing)) for each in wanted]

    found = connection.run(work)
    if not any(documents for _, documents in found) and how.output.form not in ("json", "yaml"):
        if not listing.absent:
            names = ", ".join(each.kind.plural for each in wanted)
            typer.echo(f"No {names} found.", err=True)
        return
    single = len(wanted) == 1 and len(wanted[0].names) == 1
    typer.echo(shown(how, found, single=single))


async def _found(
    client: Client, target: Target, selected: Selected, listing: Listing
) -> list[Document]:
    if listing.absent and target.names:
        found = []
        for name in target.names:
            try:
                found += await find(client, Target(target.kind, (name,)))
            except NotFound:
                continue
    else:
        found = await find(client, target, selected)
    return ordered(found, listing.sort) if listing.sort else found


async def _watch(
    client: Client, target: Target, selected: Selected, how: Shown, listing: Listing
) -> None:
    fields = ",".join(filter(None, (selected.fields, *_named(target))))
    begun, header = not listing.only, how.header
    kind = target.kind
    async for event in client.watch(
        kind.plural, label_selector=selected.labels, field_selector=fields
    ):
        begun = begun or event.type == "END"
        if event.object is None or not begun:
            continue
        document = event.document
        before = f"{event.type:<8} " if listing.events else ""
        if how.output.tabular:
            lines = _headed(how, header).table(kind, [document]).splitlines()
            blank = f"{'EVENT':<8} " if before else ""
            texts = [f"{before if line is lines[-1] else blank}{line}" for line in lines]
            typer.echo("\n".join(texts))
            header = False
        else:
            typer.echo(before + how.text(kind, [document], single=True))


def _headed(how: Shown, header: bool) -> Shown:
    return Shown(how.output, header, how.labels, how.all_labels, how.managed)


def _named(target: Target) -> list[str]:
    return [f"metadata.name={name}" for name in target.names]


@dataclass(frozen=True, slots=True)
class Awaited:
    """What `wait --for` names; `holds` is asked of an object, or of None where there is none."""

    text: str
    holds: Callable[[Document | None], bool]

    @classmethod
    def of(cls, text: str) -> Awaited:
        """``delete``, ``create``, ``condition=TYPE[=STATUS]``, ``jsonpath=PATH[=VALUE]``."""
        form, _, rest = text.partition("=")
        if text == "delete":
            return cls("deleted", lambda document: document is None)
        if text == "create":
            return cls(CREATED, lambda document: document is not None)
        if form == "condition" and rest:
            name, _, status = rest.partition("=")
            return cls("condition met", lambda document: _condition(document, name, status))
        if form == "jsonpath" and rest:
            where, value = _split(rest)
            steps = jsonpath.path(where)
            return cls("condition met", lambda document: _at(document, steps, value))
        problem = f"{text!r} is none of delete, create, condition=TYPE[=STATUS], jsonpath=PATH[=V]"
        raise ConfigError("--for", [Cause("", problem)])


def _split(rest: str) -> tuple[str, str]:
    """Path and value of ``{.a[?(@.b=="c")].d}=VALUE``; the path may have = in it."""
    if rest.startswith("{") and "}" in rest:
        inside, _, after = rest.rpartition("}")
        return f"{inside}}}", after.removeprefix("=")
    where, _, value = rest.partition("=")
    return where, value


def _condition(document: Document | None, name: str, status: str) -> bool:
    held = ((document or {}).get("status") or {}).get("conditions") or []
    wanted = (status or "True").lower()
    return any(c["type"].lower() == name.lower() and c["status"].lower() == wanted for c in held)


def _at(document: Document | None, steps: jsonpath.Path, value: str) -> bool:
    reached = jsonpath.found(steps, document or {})
    return any(jsonpath.said(one) == value for one in reached) if value else bool(reached)


def wait(
    connection: Connection,
    wanted: Sequence[Target],
    selected: Selected,
    awaited: Awaited,
    seconds: float,
) -> None:
    """Until it holds of every object, each of which is said; TimedOut names those left."""

    async def work(client: Client) -> None:
        pairs: list[tuple[Kind, str]] = []
        for each in wanted:
            names = each.names or [
                d["metadata"]["name"] for d in await find(client, each, selected)
            ]
            pairs += [(each.kind, name) for name in names]
        if not pairs:
            raise NothingFound.of("there is no such object")
        await until(client, pairs, awaited, seconds)

    connection.run(work)


async def until(
    client: Client,
    pairs: Sequence[tuple[Kind, str]],
    awaited: Awaited,
    seconds: float,
    *,
    quiet: bool = False,
) -> None:
    """`seconds` is for all of them; without end if it is 0. Unless `quiet`, each is said."""
    left = list(pairs)
    try:
        with progress("waiting", len(pairs)) as done:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                for kind, name in pairs:
                    await _until(client, kind, name, awaited)
                    left.remove((kind, name))
                    done(said(kind, name))
                    if not quiet:
                        say(f"{said(kind, name)} {awaited.text}")
    except TimeoutError:
        names = ", ".join(said(kind, name) for kind, name in left)
        raise TimedOut(f"cannot wait longer than {seconds:g} s for {names}") from None


async def _until(client: Client, kind: Kind, name: str, awaited: Awaited) -> None:
    """A watch that ends is opened anew: replicas restart, and there is a time limit."""
    while True:
        document, known = None, False
        try:
            fields = f"metadata.name={name}"
            async with aclosing(client.watch(kind.plural, field_selector=fields)) as events:
                async for event in events:
                    if event.type == "BEGIN":
                        document, known = None, False
                    elif event.object is not None:
                        document = None if event.type == "DELETED" else event.document
                    known = known or event.type == "END"
                    if known and awaited.holds(document):
                        return
                    if known and document is None and awaited.text != CREATED:
                        raise NotFound(f'{kind.plural} "{name}" not found', kind=kind.kind)
        except Unreachable:
            await asyncio.sleep(RETRY_SECONDS)
