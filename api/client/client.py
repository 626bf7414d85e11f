"""An async client: typed objects in and out, the service's errors as our own types.

`watch` has the one shape of all our streams: the full set, an end marker, then changes. It trusts
only the CA of its kubeconfig. Whatever goes wrong on the way is `Unreachable`; whether a write
was carried out is then unknown, and its maker decides anew from what it reads next.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from api.auth import kubeconfig
from api.auth.kubeconfig import Access
from api.client.answers import Unreachable, Unread, WatchEvent, failure, shown, typed
from api.client.transport import Transport
from api.resources.errors import Cause, ConfigError, Incompatible
from api.resources.media import MERGE, STRATEGIC
from api.resources.meta import API_VERSION, Resource
from api.resources.net import IPAddress
from api.resources.questions import QUESTION
from api.resources.registry import KINDS, by_kind
from api.resources.versions import HEADER, VERSION

log = logging.getLogger("routed.client")
R = TypeVar("R", bound=Resource)

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # a watch has a bookmark every ten
BUSY_TRIES = 5  # more, of a request that was refused because there were too many
BUSY_SECONDS = 5.0  # at most between two
CHANGES = ("ADDED", "MODIFIED", "DELETED")
LENIENT = {"fieldValidation": "Warn"}


class Client:
    """One service, one identity. Close it when done.

    `servers` are other replicas of the service: one that does not answer is left for the next, and
    a watch goes on there at the revision that it has reached, without the full set again.

    `program` is what we call ourselves. `judge` says what is against working with a service of a
    version ("": nothing); what such a service shows is not taken in, but `Incompatible` raised.
    What all releases have in common is not judged: `version`, `certificate`.
    """

    def __init__(
        self,
        access: Access,
        servers: Sequence[str] = (),
        *,
        program: str = "routed",
        judge: Callable[[str], str] = lambda version: "",
    ) -> None:
        self.access = access
        self.judge = judge
        self._agent = f"{program}/{VERSION}"
        self._servers = tuple(dict.fromkeys((access.server, *servers)))
        self._http = self._connect(access)
        self._busy: Counter[httpx.AsyncClient] = Counter()
        self._warned: set[str] = set()

    @property
    def server(self) -> str:
        return self.access.server

    @classmethod
    def from_kubeconfig(
        cls, path: Path, server: str | None = None, servers: Sequence[str] = (), **more: Any
    ) -> Client:
        """ConfigError if the file cannot be used; `server` overrides its URL."""
        access = kubeconfig.read(path)
        return cls(replace(access, server=server) if server else access, servers, **more)

    async def use(self, access: Access) -> None:
        """From now on with other credentials. What is under way, watches too, goes on as it
        began, for as long as the service lets it."""
        if len(self._servers) > 1:
            access = replace(access, server=self.server)
        before, self.access, self._http = self._http, access, self._connect(access)
        if not self._busy[before]:
            await before.aclose()

    async def leave(self, server: str) -> bool:
        """`server` did not answer: the next is asked from now on. Whether there is another."""
        if len(self._servers) > 1 and server == self.server:
            at = self._servers.index(server)
            following = self._servers[(at + 1) % len(self._servers)]
            before, self.access = self._http, replace(self.access, server=following)
            self._http = self._connect(self.access)
            if not self._busy[before]:
                await before.aclose()
        return len(self._servers) > 1

    async def close(self) -> None:
        for http in {self._http, *self._busy}:
            await http.aclose()

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator[httpx.AsyncClient]:
        """Those of the present credentials; the last who leaves others closes them."""
        http = self._http
        self._busy[http] += 1
        try:
            yield http
        finally:
            self._busy[http] -= 1
            if not self._busy[http]:
                del self._busy[http]
                if http is not self._http:
                    await http.aclose()

    def _connect(self, access: Access) -> httpx.AsyncClient:
        bearer = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        return httpx.AsyncClient(
            base_url=f"{access.server}/apis/{API_VERSION}",
            headers={"User-Agent": self._agent, **bearer},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=Transport(context_of(access)),
            trust_env=False,
        )

    def _judge(self, response: httpx.Response) -> None:
        if why := self.judge(response.headers.get(HEADER, "")):
            raise Incompatible(f"cannot work with the service at {self.server}: {why}")

    async def version(self) -> str:
        """Of the service; "" if it does not say."""
        response = await self._send("GET", f"{self.server}/version", judged=False)
        try:
            return str(response.json()["gitVersion"]).partition("-routed.")[2]
        except (ValueError, KeyError, TypeError) as error:
            raise Unreachable(f"{self.server} answered GET /version without a version") from error

    async def get(self, model: type[R], name: str) -> R:
        return typed(model, await self._call("GET", f"/{_plural(model)}/{name}"))

    async def list(self, model: type[R], *, labels: str = "", fields: str = "") -> list[R]:
        query = {"labelSelector": labels, "fieldSelector": fields}
        document = await self._call("GET", f"/{_plural(model)}", params=query)
        return [typed(model, item) for item in document["items"]]

    async def create(self, held: R, *, strict: bool = True) -> R:
        """What a service of another release does not know of it is refused, or, if it is not
        `strict`, left out."""
        query = {} if strict else LENIENT
        path = f"/{_plural(type(held))}"
        return typed(type(held), await self._call("POST", path, json=held.wire(), params=query))

    async def patch(
        self,
        model: type[R],
        name: str,
        change: Mapping[str, Any],
        *,
        status: bool = False,
        judged: bool = True,
    ) -> R:
        """Change these fields and no other; with `status` of the status, where conditions that
        `change` does not name stay as well. Fields that the service does not know are left out."""
        path = f"/{_plural(model)}/{name}{'/status' if status else ''}"
        headers = {"Content-Type": STRATEGIC if status else MERGE}
        document = await self._call(
            "PATCH", path, json=change, headers=headers, params=LENIENT, judged=judged
        )
        return typed(model, document)

    async def delete(
        self, model: type[Resource], name: str, *, uid: str = "", statement: str = ""
    ) -> None:
        """`statement`: an operator's, that the node of a block is off for good."""
        options: dict[str, Any] = {"preconditions": {"uid": uid}} if uid else {}
        options |= {"statement": statement} if statement else {}
        await self._call("DELETE", f"/{_plural(model)}/{name}", json=options)

    async def bootstrap_token(self, node: str, seconds: int | None = None) -> str:
        """A token with which `node` can join, once; `seconds` is for how long."""
        wanted = {} if seconds is None else {"ttlSeconds": seconds}
        made = await self._call("POST", f"/nodes/{node}/bootstrap", json=wanted)
        return str(made["token"])

    async def certificate(self, node: str, request: str) -> bytes:
        """The certificate of `node` for a request in PEM."""
        made = await self._call(
            "POST", f"/nodes/{node}/certificate", json={"request": request}, judged=False
        )
        return str(made["certificate"]).encode()

    async def heartbeat(self, node: str) -> float:
        """Say that `node` lives; in how many seconds to say so again."""
        return float((await self._call("POST", f"/nodes/{node}/heartbeat"))["seconds"])

    async def way(
        self, node: str, to: IPAddress, source: IPAddress | None = None
    ) -> dict[str, Any]:
        """What the agent of `node` says of its way to an address; NoAnswer."""
        query = {"to": str(to)} | ({"from": str(source)} if source is not None else {})
        found: dict[str, Any] = (await self._call("GET", f"/nodes/{node}/way", params=query))["way"]
        return found

    async def answer(self, node: str, number: str, way: Mapping[str, Any]) -> None:
        """To a question that `watch` has shown."""
        await self._call("POST", f"/nodes/{node}/answer", json={"id": number, "way": way})

    async def user_certificate(self, user: str, request: str, role: str = "") -> bytes:
        """A certificate of `user` for a request in PEM: in `role`, and those before end; or ("")
        the next one of who asks."""
        wanted = {"request": request} | ({"role": role} if role else {})
        made = await self._call("POST", f"/users/{user}/certificate", json=wanted)
        return str(made["certificate"]).encode()

    async def credentials(self, path: str, wanted: Mapping[str, str]) -> str:
        """A new kubeconfig with a token, as text, for ``nodes/NAME`` or ``users/NAME``; the ones
        before stop to work."""
        response = await self._send("POST", f"/{path}/credentials", json=wanted)
        return response.text

    async def raw(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """A call below the group's root with documents as they are: what `routectl` uses. Unknown
        fields are refused, unless `validation` is Warn or Ignore: then they are left out."""
        return await self._call(method, path, **options)

    async def watch(
        self, plural: str, *, field_selector: str = "", label_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        """BEGIN, the present objects as ADDED, END, then changes until the connection ends and no
        other replica goes on with them.

        Raises Unreachable when it ends, IntentError if the service refuses.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "sendInitialEvents": "true",
            "fieldSelector": field_selector,
            "labelSelector": label_selector,
        }
        reached, tries = "", 0
        while True:
            server = self.server
            try:
                # closed here, where it was opened, if whoever watches has seen enough
                async with aclosing(self._lines(plural, query)) as lines:
                    async for kind, held in lines:
                        tries = 0
                        if not isinstance(held, str):
                            reached = _revision(held) if reached else ""
                            yield WatchEvent(kind, held)
                        elif kind == "QUESTION":
                            yield WatchEvent(kind, text=held)
                        elif kind != "BOOKMARK":
                            yield WatchEvent(kind)
                        else:
                            if not reached:
                                yield WatchEvent("END")
                            reached = held
            except Unreachable:
                tries += 1
                another = await self.leave(server)
                if not another or not reached or tries > len(self._servers):
                    raise
                query = {**query, "resourceVersion": reached}
                query.pop("sendInitialEvents", None)

    async def _lines(
        self, plural: str, query: dict[str, str]
    ) -> AsyncGenerator[tuple[str, Resource | Unread | str], None]:
        """One connection: type and object of each line, or the revision of a bookmark."""
        model = KINDS[plural].model
        try:
            async with self.stream("GET", f"/{plural}", params=query) as got:
                if "sendInitialEvents" in query:
                    yield "BEGIN", ""
                async for line in got.aiter_lines():
                    document = json.loads(line)
                    kind, held = document["type"], document["object"]
                    if kind == "BOOKMARK":
                        marks = held["metadata"].get("annotations", {})
                        yield kind, str(held["metadata"]["resourceVersion"])
                        if QUESTION in marks:
                            yield "QUESTION", str(marks[QUESTION])
                        continue
                    if kind == "ERROR":
                        raise Unreachable(f"the watch of {plural} ended: {held.get('message')}")
                    if kind in CHANGES:  # else something new, which we did not ask for
                        yield kind, shown(model, held)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unreachable(f"cannot watch {plural} at {self.server}: {_why(error)}") from error
        raise Unreachable(f"the service at {self.server} ended the watch of {plural}")

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """An answer that is read as it comes, below the group's root; a refusal is raised, and what
        goes wrong on the way is httpx's."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        async with (
            self._connections() as http,
            http.stream(method, path, timeout=timeout, **options) as got,
        ):
            if got.status_code != 200:
                await got.aread()
                raise failure(got)
            self._judge(got)
            yield got

    async def _call(
        self, method: str, path: str, *, validation: str = "Strict", **options: Any
    ) -> dict[str, Any]:
        if method in ("POST", "PUT", "PATCH"):
            options["params"] = {"fieldValidation": validation, **options.get("params", {})}
        response = await self._send(method, path, **options)
        try:
            document: dict[str, Any] = response.json()
        except ValueError as error:
            raise Unreachable(f"{self.server} answered {method} {path} without JSON") from error
        return document

    async def _send(
        self, method: str, path: str, *, judged: bool = True, **options: Any
    ) -> httpx.Response:
        tries = busy = 0
        while True:
            server, tries = self.server, tries + 1
            try:
                async with self._connections() as http:
                    response = await http.request(method, path, **options)
                # read as it is: what it came by names it, a cycle that only the collector would end
                response.stream = httpx.ByteStream(response.content)
                if response.status_code != 429 or busy == BUSY_TRIES:
                    break
                tries, busy = 0, busy + 1
                await asyncio.sleep(retry_after(response))  # nothing of it was done
            except httpx.HTTPError as error:
                another = await self.leave(server)
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if another and tries < len(self._servers) and (unsent or method == "GET"):
                    continue
                raise Unreachable(f"cannot reach the service at {server}: {_why(error)}") from error
        if response.status_code >= 400:
            raise failure(response)
        for text in response.headers.get_list("warning"):
            if text not in self._warned:
                self._warned.add(text)
                log.warning("the service leaves out what it does not know: %s %s", path, text)
        if judged:
            self._judge(response)
        return response


def context_of(access: Access) -> ssl.SSLContext:
    """TLS that trusts the CA of `access` alone, and shows its certificate if it has one;
    ConfigError if they cannot be used."""
    try:
        context = ssl.create_default_context(cadata=access.ca.decode())
        if access.certificate:
            with _memory(access.certificate + b"\n" + access.key) as path:
                context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        problem = f"its certificates cannot be used: {error}"
        raise ConfigError(f"kubeconfig of {access.user}", [Cause("", problem)]) from error
    return context


@contextmanager
def _memory(data: bytes) -> Iterator[str]:
    """A path that has `data` for the moment: OpenSSL takes a key from files alone."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def retry_after(response: httpx.Response) -> float:
    """Seconds, and up to half as much again: who was refused together does not come back so."""
    said = response.headers.get("retry-after", "")
    seconds = min(float(said) if said.isdigit() else 1.0, BUSY_SECONDS)
    return seconds * random.uniform(1.0, 1.5)  # noqa: S311 - jitter


def _revision(held: Resource | Unread) -> str:
    return held.revision if isinstance(held, Unread) else held.metadata.resource_version


def _plural(model: type[Resource]) -> str:
    kind = by_kind(model.KIND)
    assert kind is not None
    return kind.plural


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
