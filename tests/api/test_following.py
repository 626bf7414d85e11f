"""Selections over HTTP: nodes that follow, services that end and come back, readers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.etcd import cluster
from support.service import Service, process, replica, running_service, tls_socket

from api.auth import bootstrap, kubeconfig
from api.auth.kubeconfig import Access
from api.client import Client, Selections, Subject, Told, join
from api.client.selections import DELTA, LOST, SYNCED, WHOLE
from api.resources.errors import Forbidden, Invalid
from api.service.run import GRACE_SECONDS
from api.service.selections import NODE_STREAMS_MOST, STREAMS_MOST
from routed.lab.processes import free_port, wait_for

SECONDS = 20.0  # for what must come
WEB: Subject = "app == 'web'"
NET: Subject = "has(outside)"
HTTP: Subject = ("http", WEB)


def node(admin: httpx.Client, name: str = "h1") -> Access:
    """The credentials of a node that is there."""
    assert admin.post("/nodes", json={"metadata": {"name": name}, "spec": {}}).status_code == 201
    token = admin.post(f"/nodes/{name}/bootstrap").json()["token"]
    return asyncio.run(join(bootstrap.parse(token), name))


def put(admin: httpx.Client, name: str, address: str, app: str = "web", of: str = "h1") -> None:
    """A workload with that address, as its node reports it."""
    labels = {"app": app}
    ports = [{"name": "http", "protocol": "TCP", "port": 80}]
    spec = {"node": "h1", "origin": "Node", "ports": ports}
    status = {"phase": "Ready", "addresses": [address]}
    body = {"metadata": {"name": f"{name}.h1", "labels": labels}, "spec": spec, "status": status}
    made = admin.post("/workloads", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["status"]["addresses"] == [address]


def relabel(admin: httpx.Client, name: str, app: str) -> None:
    change = {"metadata": {"labels": {"app": app}}}
    headers = {"content-type": "application/merge-patch+json"}
    answer = admin.patch(f"/workloads/{name}.h1", content=json.dumps(change), headers=headers)
    assert answer.status_code == 200, answer.text


class Follower:
    """Follows, and has what it was told."""

    def __init__(self, client: Client, *needed: Subject, **known: Any) -> None:
        self.selections = Selections(client, **known)
        self.selections.need(needed)
        self.told: list[Told] = []
        self.has: dict[Subject, set[object]] = {}
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for one in self.selections.follow():
            entries = {*one.add.addresses, *one.add.nets, *one.add.ports}
            gone = {*one.remove.addresses, *one.remove.nets, *one.remove.ports}
            if one.type == WHOLE:
                self.has[one.of] = entries
            elif one.type == DELTA:
                assert gone <= self.has[one.of]
                self.has[one.of] = (self.has[one.of] | entries) - gone
            self.told.append(one)
            self._more.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not true():
                self._more.clear()
                await self._more.wait()

    async def synced(self, since: int = 0) -> list[Told]:
        """Until it is, behind the first `since` that it was told; what it was told from there on,
        but for that it is."""
        await self.until(lambda: SYNCED in [one.type for one in self.told[since:]])
        return [one for one in self.told[since:] if one.type != SYNCED]

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def short(told: list[Told]) -> list[tuple[str, Subject]]:
    return [(one.type, one.of) for one in told]


Body = Callable[[Client], Awaitable[None]]


def with_client(access: Access, body: Body, servers: tuple[str, ...] = ()) -> None:
    async def whole() -> None:
        client = Client(access, servers)
        try:
            await body(client)
        finally:
            await client.close()

    asyncio.run(whole())


def test_a_node_follows_what_others_are_and_is_told_of_a_new_need_alone(tmp_path: Path) -> None:
    with running_service(tmp_path) as service, service.http() as admin:
        access = node(admin)
        put(admin, "a", "10.0.0.1")
        body = {"metadata": {"name": "n", "labels": {"outside": ""}}, "spec": {}}
        body["spec"] = {"nets": ["192.0.2.0/24", "2001:db8::/32"]}
        assert admin.post("/networksets", json=body).status_code == 201

        async def follow(client: Client) -> None:
            follower = Follower(client, WEB)
            assert short(await follower.synced()) == [(WHOLE, WEB)]
            assert follower.has == {WEB: {ip_address("10.0.0.1")}}
            await asyncio.to_thread(put, admin, "b", "10.0.0.2")
            await follower.until(lambda: len(follower.has[WEB]) == 2)
            await asyncio.to_thread(relabel, admin, "a", "db")
            await follower.until(lambda: follower.has[WEB] == {ip_address("10.0.0.2")})
            assert short(await follower.synced()) == [(WHOLE, WEB), (DELTA, WEB), (DELTA, WEB)]
            since = len(follower.told)
            follower.selections.need({WEB, NET, HTTP})
            assert set(short(await follower.synced(since))) == {(WHOLE, HTTP), (WHOLE, NET)}
            assert follower.has[NET] == {ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")}
            assert follower.has[HTTP] == {(ip_address("10.0.0.2"), 6, 80)}
            for needed, told in (((), []), ({HTTP}, [(WHOLE, HTTP)])):
                since = len(follower.told)
                follower.selections.need(needed)  # type: ignore[arg-type]
                assert short(await follower.synced(since)) == told
            await follower.end()

        with_client(access, follow)


def test_after_a_restart_only_what_has_changed_is_told(tmp_path: Path) -> None:
    """Whichever end was restarted: a reader that was begun anew says which versions it has."""
    port = free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(tmp_path)]
    words += ["--listen", f"127.0.0.1:{port}"]
    admin_file = tmp_path / "admin.kubeconfig"

    def server() -> contextlib.AbstractContextManager[int]:
        return process(words, admin_file, port, tmp_path / "log")

    with contextlib.ExitStack() as running:
        service = Service(tmp_path, admin_file, running.enter_context(server()))
        with service.http() as admin:
            access = node(admin)
            put(admin, "a", "10.0.0.1")

        async def body(client: Client) -> None:
            follower = Follower(client, WEB, HTTP)
            await follower.synced()
            since = len(follower.told)
            os.kill(service.pid, signal.SIGKILL)
            await follower.until(lambda: LOST in [one.type for one in follower.told])
            await asyncio.to_thread(running.enter_context, server())
            assert {one.type for one in await follower.synced(since)} == {LOST}, "nothing else"
            with service.http() as admin:
                await asyncio.to_thread(put, admin, "b", "10.0.0.2")
            await follower.until(lambda: len(follower.has[WEB]) == len(follower.has[HTTP]) == 2)
            assert WHOLE not in [one.type for one in follower.told[since:]]
            versions = {one.of: one.version for one in follower.told if one.version}
            await follower.end()
            back = Follower(client, WEB, HTTP, known={**versions, WEB: ""})
            assert short(await back.synced()) == [(WHOLE, WEB)]
            await back.end()

        with_client(access, body)


def test_another_replica_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    with (
        cluster(tmp_path) as etcd,
        replica(tmp_path / "a", etcd.url) as first,
        replica(tmp_path / "b", etcd.url, tmp_path / "a") as second,
        first.http() as admin,
        second.http() as other,
    ):
        access = node(admin)
        for number in range(30):
            put(admin, f"w{number}", f"10.0.0.{number}", "web" if number % 2 else "db")

        async def body(client: Client) -> None:
            follower = Follower(client, WEB, "app == 'db'")
            await follower.synced()
            since = len(follower.told)
            os.kill(first.pid, signal.SIGKILL)
            await follower.until(lambda: LOST in [one.type for one in follower.told])
            assert short(await follower.synced(since)) == [(LOST, "")]
            since = len(follower.told)
            await asyncio.to_thread(relabel, other, "w0", "web")
            await follower.until(lambda: len(follower.has["app == 'db'"]) == 14)
            await follower.until(lambda: len(follower.has[WEB]) == 16)
            assert {one.type for one in follower.told[since:]} <= {DELTA, SYNCED}
            assert client.server == kubeconfig.read(second.admin).server
            await follower.end()

        with_client(access, body, (kubeconfig.read(second.admin).server,))


def test_a_selector_that_cannot_be_read_is_refused_with_its_place_and_column(
    service: Service,
) -> None:
    access = kubeconfig.read(service.admin)

    async def body(client: Client) -> None:
        follower = Follower(client, "app = 'web'")
        with pytest.raises(Invalid, match=r"selectors\[0\].selector: .*column 5"):
            await asyncio.wait_for(follower.task, SECONDS)
        assert follower.told == []

    with_client(access, body)


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ({"timeoutSeconds": "-1"}, {}, 400),
        ({"watch": "1"}, {}, 400),
        ({}, [], 400),
        ({}, {"selectors": [{"selector": "x" * (1 << 20)}]}, 413),
        ({}, {"selectors": [{}]}, 422),
        ({"timeoutSeconds": "1"}, {"selectors": [{"selector": "all()"}]}, 200),
    ],
)
def test_what_cannot_be_read_is_refused(
    service: Service, query: dict[str, str], body: Any, code: int
) -> None:
    with service.http() as admin:
        answer = admin.post("/selections", params=query, json=body)
    assert answer.status_code == code, answer.text[:200]
    media = "application/x-ndjson" if code == 200 else "application/json"
    assert answer.headers["content-type"] == media


@pytest.mark.parametrize(("role", "most"), [("", NODE_STREAMS_MOST), ("viewer", STREAMS_MOST)])
def test_nobody_has_more_streams_than_he_can_need_and_others_do_not_suffer(
    service: Service, role: str, most: int
) -> None:
    """Whoever has as many is refused one more until one has ended, and nothing else."""
    with service.http() as admin, contextlib.ExitStack() as streams:
        access = node(admin, f"many{role}")
        if role:
            path = service.directory / "viewer.kubeconfig"
            path.write_text(admin.post("/users/v/credentials", json={"role": role}).text)
            access = kubeconfig.read(path)
        http = streams.enter_context(service.http(access))
        reading: list[Iterator[str]] = []

        def follow() -> contextlib.ExitStack:
            opened = contextlib.ExitStack()
            one = opened.enter_context(http.stream("POST", "/selections", json={}))
            assert one.status_code == 200
            lines = one.iter_lines()  # who lets go of it has read all that he wants
            assert json.loads(next(lines))["type"] == "BOOKMARK"
            reading.append(lines)
            return streams.enter_context(opened)

        opened = [follow() for _ in range(most)]
        refused = http.post("/selections", json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["reason"] == "TooManyRequests"
        assert f"{most} streams of" in refused.json()["message"]
        assert http.get("/nodes", params={"fieldSelector": f"metadata.name=many{role}"}).is_success
        ended = admin.post("/selections", json={}, params={"timeoutSeconds": "1"})
        assert json.loads(ended.text.splitlines()[0])["type"] == "BOOKMARK"
        opened[0].close()
        wait_for("room for one more", lambda: answered(http) == 200)
    assert "selections" not in (service.directory / "audit.log").read_text(), "nothing is written"


def answered(http: httpx.Client) -> int:
    """How a stream that ends by itself is answered."""
    return http.post("/selections", json={}, params={"timeoutSeconds": "1"}).status_code


def test_a_node_that_is_deleted_is_told_nothing_more(service: Service) -> None:
    with service.http() as admin:
        access = node(admin, "gone")
        with service.http(access) as http, http.stream("POST", "/selections", json={}) as opened:
            lines = opened.iter_lines()
            assert json.loads(next(lines))["type"] == "BOOKMARK"
            assert admin.delete("/nodes/gone").status_code == 200
            assert list(lines) == []


def test_a_service_that_stops_ends_its_streams_at_once(tmp_path: Path) -> None:
    with running_service(tmp_path) as service, service.http() as admin:
        ended = []
        with contextlib.ExitStack() as streams:
            for _ in range(5):
                one = streams.enter_context(admin.stream("POST", "/selections", json={}))
                ended.append(one.iter_lines())
                next(ended[-1])
            before = time.monotonic()
            os.kill(service.pid, signal.SIGTERM)
            for lines in ended:
                assert {json.loads(line)["type"] for line in lines} <= {"BOOKMARK"}
            assert time.monotonic() - before < GRACE_SECONDS
    assert "Traceback" not in (service.directory / "log").read_text()


def test_a_reader_that_does_not_read_is_left_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Big changes, of which one reader takes none; it gets what was sent, and the end."""
    count, nets = 20, [f"10.{a}.{b}.0/24" for a in range(40) for b in range(250)]
    with (
        running_service(tmp_path) as service,
        service.http() as admin,
        contextlib.ExitStack() as streams,
    ):
        access = kubeconfig.read(service.admin)
        many = [{"selector": f"{NET} || x == '{number}'"} for number in range(16)]
        body = json.dumps({"selectors": many})
        slow = streams.enter_context(tls_socket(access))
        slow.sendall((
            "POST /apis/routed.dev/v1/selections HTTP/1.1\r\nhost: a\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"authorization: Bearer {access.token}\r\n\r\n{body}"
        ).encode())  # fmt: skip
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        made = {"metadata": {"name": "n", "labels": {"outside": ""}}, "spec": {"nets": []}}
        held = admin.post("/networksets", json=made).json()

        async def follow(client: Client) -> None:
            follower = Follower(client, NET)
            await follower.synced()
            for number in range(count):
                held["spec"]["nets"] = nets if number % 2 else nets[:1]
                answer = await asyncio.to_thread(admin.put, "/networksets/n", json=held)
                assert answer.status_code == 200, answer.text
                held["metadata"] = answer.json()["metadata"]
                size = len(nets) if number % 2 else 1
                await follower.until(lambda size=size: len(follower.has[NET]) == size)  # type: ignore[misc]
            assert LOST not in [one.type for one in follower.told]
            await follower.end()

        with_client(access, follow)
        came, deadline = 0, time.monotonic() + SECONDS
        slow.settimeout(SECONDS)
        while got := slow.recv(1 << 20):
            came += len(got)
            assert time.monotonic() < deadline, "it goes on"
        assert came < len(many) * count * sum(map(len, nets)), "all was kept for it"


def test_who_may_not_is_told_so_and_the_service_is_asked_again(service: Service) -> None:
    """A right may come: it is no mistake of what is asked."""
    with service.http() as admin:
        rules = [{"kinds": ["*"], "verbs": ["*"]}]
        role = {"metadata": {"name": "some"}, "spec": {"rules": rules}}
        assert admin.post("/roles", json=role).status_code == 201
        made = admin.post("/users/somebody/credentials", json={"role": "some"})
    path = service.directory / "somebody.kubeconfig"
    path.write_text(made.text)

    async def body(client: Client) -> None:
        follower = Follower(client, WEB)
        await follower.until(lambda: short(follower.told) == [(LOST, ""), (LOST, "")])
        assert isinstance(follower.told[0].why, Forbidden)
        await follower.end()

    with_client(kubeconfig.read(path), body)
