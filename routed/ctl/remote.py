"""The verbs that go to the service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from api.auth.ca import write_secret
from api.client import Client, Unread
from api.resources.errors import (
    Cause,
    ConfigError,
    IntentError,
    NotFound,
)
from api.resources.meta import API_VERSION
from api.resources.registry import KINDS, Kind, by_name
from routed.ctl import checking, documents, space
from routed.ctl.applying import applied, checked
from routed.ctl.tables import aligned, described, formatted, said, table

T = TypeVar("T")
Document = dict[str, Any]


class Remote:
    """One invocation's dealings with the service."""

    def __init__(self, kubeconfig: Path, server: str | None) -> None:
        self.path = kubeconfig
        self.server = server

    def _run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async def whole() -> T:
            client = Client.from_kubeconfig(self.path, self.server)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(whole())

    def get(
        self, kind_name: str, names: Sequence[str], output: str, selector: str, *, watch: bool
    ) -> None:
        kind = _kind(kind_name)
        if output not in ("", "wide", "yaml", "json", "name"):
            raise ConfigError("-o", [Cause("", f"{output!r} is none of wide, yaml, json, name")])

        async def work(client: Client) -> None:
            if watch:
                await _watch(client, kind, names, output, selector)
                return
            found = await _find(client, kind, names, selector)
            if not found and not output.startswith(("json", "yaml")):
                typer.echo(f"No {kind.plural} found.", err=True)
                return
            typer.echo(formatted(kind, found, output, single=len(names) == 1))

        self._run(work)

    def describe(self, kind_name: str, names: Sequence[str]) -> None:
        kind = _kind(kind_name)

        async def work(client: Client) -> None:
            for document in await _find(client, kind, names, ""):
                typer.echo(described(document, await _events(client, kind, document)))

        self._run(work)

    def apply(self, files: Sequence[Path], validate: str) -> None:
        validation = documents.validation(validate)
        wanted = checked(files, validation)

        async def work(client: Client) -> None:
            for kind, document in wanted:
                done = await applied(client, kind, document, validation)
                typer.echo(f"{_said(kind, document)} {done}")

        self._run(work)

    def create(self, files: Sequence[Path], validate: str) -> None:
        validation = documents.validation(validate)
        wanted = checked(files, validation)

        async def work(client: Client) -> None:
            for kind, document in wanted:
                path = f"/{kind.plural}"
                await client.raw("POST", path, json=document, validation=validation)
                typer.echo(f"{_said(kind, document)} created")

        self._run(work)

    def delete(
        self, kind_name: str | None, names: Sequence[str], files: Sequence[Path], selector: str
    ) -> None:
        targets: list[tuple[Kind, str]] = []
        if files:
            targets = [(k, d["metadata"]["name"]) for k, d in reversed(documents.read(files))]
        kind = _kind(kind_name) if kind_name else None
        if kind is not None:
            targets += [(kind, name) for name in names]
        if not targets and not (selector and kind is not None):
            raise ConfigError(
                "delete", [Cause("", "say KIND NAME..., KIND -l SELECTOR, or -f FILE")]
            )

        async def work(client: Client) -> None:
            if selector and kind is not None:
                found = await _find(client, kind, [], selector)
                targets.extend((kind, d["metadata"]["name"]) for d in found)
            refused: list[IntentError] = []
            for one, name in targets:
                try:
                    await client.raw("DELETE", f"/{one.plural}/{name}")
                except IntentError as error:
                    refused.append(error)  # the others go nevertheless, as with kubectl
                else:
                    typer.echo(f"{said(one, name)} deleted")
            for one_refused in refused[:-1]:
                typer.echo(f"Error: {one_refused}", err=True)
            if refused:
                raise refused[-1]

        self._run(work)

    def attach(self, name: str, spec: Document, labels: dict[str, str], output: str) -> None:
        kind = KINDS["workloads"]
        document = {
            "apiVersion": API_VERSION,
            "kind": "Workload",
            "metadata": {"name": name, "labels": labels},
            "spec": {**spec, "origin": "API"},
        }
        made = self._run(lambda client: client.raw("POST", "/workloads", json=document))
        if output:
            typer.echo(formatted(kind, [made], output, single=True))
        else:
            typer.echo(f"{said(kind, name)} created on node {spec['node']}")

    def bootstrap(self, node: str, seconds: int, to: Path | None) -> None:
        _secret(self._run(lambda client: client.bootstrap_token(node, seconds)) + "\n", to)

    def kubeconfig(self, path: str, wanted: dict[str, str], to: Path | None) -> None:
        _secret(self._run(lambda client: client.credentials(path, wanted)), to)

    def revoke(self, path: str) -> None:
        self._run(lambda client: client.raw("DELETE", f"/{path}/credentials"))
        typer.echo(f"{path} has no credentials any more")

    def users(self) -> None:
        listed = self._run(lambda client: client.raw("GET", "/users"))["items"]
        rows = [[one["user"], one["role"], str(one["tokens"])] for one in listed]
        typer.echo(aligned([["USER", "ROLE", "TOKENS"], *rows]))

    def ipam_show(self, *, heat: bool) -> None:
        typer.echo(self._run(lambda client: space.show(client, heat=heat)))

    def ipam_check(self, here: checking.Here | None, *, fix: bool, output: str) -> bool:
        """Whether all agrees (after mending what was to be mended), also with this host."""
        found = self._run(lambda client: checking.checked(client, here, fix=fix))
        typer.echo(found.document() if output == "json" else found.text())
        return found.agrees

    def ipam_release(self, what: str, force: space.Force) -> None:
        typer.echo(self._run(lambda client: space.release(client, what, force)))

    def delete_node(self, names: Sequence[str], force: space.Force) -> None:
        for name in names:
            self._run(lambda client, name=name: space.delete_node(client, name, force))  # type: ignore[misc]
            typer.echo(f"node/{name} deleted, what it owned is free")

    def cordon(self, name: str, *, on: bool) -> None:
        self._run(lambda client: space.cordon(client, name, on=on))
        typer.echo(f"node/{name} {'cordoned' if on else 'uncordoned'}")

    def drain(self, name: str, timeout: float) -> None:
        self._run(lambda client: space.drain(client, name, timeout))
        typer.echo(f"node/{name} drained: it owns nothing")


def _secret(text: str, to: Path | None) -> None:
    """To a file that only its owner reads, or to whoever reads our output."""
    if to is None:
        typer.echo(text, nl=False)
        return
    try:
        write_secret(to, text.encode())
    except OSError as error:
        raise ConfigError(str(to), [Cause("", f"cannot write it: {error.strerror}")]) from error
    typer.echo(f"{to}, mode 0600")


def _kind(name: str) -> Kind:
    kind = by_name(name)
    if kind is None:
        known = ", ".join(KINDS)
        raise ConfigError("the command line", [Cause("", f"{name!r} is no kind; known: {known}")])
    return kind


def _said(kind: Kind, document: Document) -> str:
    return said(kind, document["metadata"]["name"])


async def _find(client: Client, kind: Kind, names: Sequence[str], selector: str) -> list[Document]:
    if names:
        return [await _one(client, kind, name) for name in names]
    query = {"labelSelector": selector}
    listed = await client.raw("GET", f"/{kind.plural}", params=query)
    found: list[Document] = listed["items"]
    return found


async def _one(client: Client, kind: Kind, name: str) -> Document:
    try:
        return await client.raw("GET", f"/{kind.plural}/{name}")
    except NotFound as error:
        if kind.plural != "workloads" or "." in name:
            raise
        listed = await client.raw("GET", "/workloads")
        names = [d["metadata"]["name"] for d in listed["items"]]
        born = [n for n in names if n.startswith(f"{name}.")]
        if not born:
            raise
        hint = f"attached on its node, it is called {' or '.join(born)}"
        raise NotFound(f"{error}; {hint}", kind=kind.kind, name=name) from error


async def _events(client: Client, kind: Kind, document: Document) -> list[Document]:
    """What has become of an object; a service that is older than events says nothing of it."""
    name, uid = (document["metadata"][field] for field in ("name", "uid"))
    of = f"involvedObject.kind={kind.kind},involvedObject.name={name},involvedObject.uid={uid}"
    try:
        path = f"{client.server}/api/v1/events"
        listed = await client.raw("GET", path, params={"fieldSelector": of})
    except NotFound:
        return []
    found: list[Document] = listed["items"]
    return found


async def _watch(
    client: Client, kind: Kind, names: Sequence[str], output: str, selector: str
) -> None:
    header = output in ("", "wide")
    fields = f"metadata.name={names[0]}" if names else ""
    async for event in client.watch(kind.plural, label_selector=selector, field_selector=fields):
        if event.object is None:
            continue
        held = event.object
        document = held.document if isinstance(held, Unread) else held.wire()
        if output in ("", "wide"):
            typer.echo(table(kind, [document], wide=output == "wide", header=header))
            header = False
        else:
            typer.echo(formatted(kind, [document], output, single=True))
