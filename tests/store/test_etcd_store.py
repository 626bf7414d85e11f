"""What is etcd's own: members that die, stand still or lose the lead, and whom it lets in."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aetcd import rpc
from support.etcd import Cluster, cluster, program
from support.stores import Backend

from api.auth import ca
from api.resources.errors import ConfigError, StorageError
from api.resources.versions import VERSION
from api.store import Compacted, Event, Store, StoreConflict
from api.store.etcd.connection import Connection
from api.store.etcd.place import EtcdPlace, Tls
from api.store.etcd.store import EtcdStore

SECONDS = 40.0


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("three"), 3) as made:
        yield made


def with_stores(
    loop: asyncio.Runner, places: Sequence[EtcdPlace], body: Callable[..., Awaitable[None]]
) -> None:
    """`body` with a store of each place."""

    async def whole() -> None:
        stores = [EtcdStore(place) for place in places]
        try:
            await asyncio.wait_for(body(*stores), SECONDS)
        finally:
            for store in stores:
                await store.close()

    loop.run(whole())


def kill(found: Cluster, victim: str) -> Callable[[], None]:
    """What ends the fault."""
    member = found.leader() if victim == "leader" else found.members[0]
    member.kill()
    return member.start


def stop(found: Cluster, victim: str) -> Callable[[], None]:
    member = found.leader() if victim == "leader" else found.members[0]
    member.send(signal.SIGSTOP)
    return lambda: member.send(signal.SIGCONT)


@pytest.mark.parametrize("victim", ["leader", "first"])
@pytest.mark.parametrize("fault", [kill, stop])
def test_a_member_that_fails_loses_nothing(
    three: Cluster, loop: asyncio.Runner, fault: Callable[..., Callable[[], None]], victim: str
) -> None:
    """Two processes write and read while a member dies or stands still: what was acknowledged is
    there, once; every change is read in order; work goes on before the member is back."""

    async def body(one: EtcdStore, two: EtcdStore) -> None:
        acknowledged: set[str] = set()
        unknown: set[str] = set()
        start, _ = await two.scan("/")
        seen: list[Event] = []
        writing, after_fault = True, 0

        async def write(store: EtcdStore, label: str) -> None:
            nonlocal after_fault
            number = 0
            while writing:
                number += 1
                key = f"/{label}/{number}"
                try:
                    await store.commit({key: 0}, {key: b"x"})
                except StorageError:
                    unknown.add(key)
                else:
                    acknowledged.add(key)
                    after_fault += broken

        async def read() -> None:
            after = start
            while writing:
                await two.changed(after)
                try:
                    after, events, _ = await two.since(after)
                except StorageError:
                    continue
                seen.extend(events)

        broken = False
        tasks = [asyncio.create_task(write(s, n)) for s, n in ((one, "one"), (two, "two"))]
        tasks.append(asyncio.create_task(read()))
        while len(acknowledged) < 50:
            await asyncio.sleep(0.01)
        mend = await asyncio.to_thread(fault, three, victim)
        broken = True
        try:
            goal = after_fault + 200
            while after_fault < goal:
                await asyncio.sleep(0.01)
        finally:
            mend()
        await asyncio.to_thread(three.wait)
        writing = False
        await one.commit({}, {"/end": b""})
        await asyncio.gather(*tasks)
        _, items = await one.scan("/")
        present = {item.key for item in items}
        assert acknowledged <= present
        assert present - acknowledged - {"/end"} <= unknown
        assert len(unknown) <= 8
        told = [event.key for event in seen]
        assert len(told) == len(set(told))
        revisions = [event.revision for event in seen]
        assert revisions == sorted(set(revisions))
        last = max(revisions)
        assert set(told) == {item.key for item in items if item.revision <= last}

    with_stores(loop, [three.place(f"/{fault.__name__}-{victim}")] * 2, body)


def test_without_a_majority_nothing_is_said_to_be_done(
    three: Cluster, loop: asyncio.Runner
) -> None:
    async def body(store: EtcdStore) -> None:
        made = await store.commit({"/a": 0}, {"/a": b"x"})
        for member in three.members[:2]:
            member.send(signal.SIGSTOP)
        try:
            with pytest.raises(StorageError, match="cannot write to the store, etcd at"):
                await store.commit({"/b": 0}, {"/b": b"x"})
            with pytest.raises(StorageError, match="cannot read the store, etcd at"):
                await store.since(made["/a"])
        finally:
            for member in three.members[:2]:
                member.send(signal.SIGCONT)
        await asyncio.to_thread(three.wait)
        # it may have been applied by now: whoever decides anew finds that out by comparison
        _, items = await store.scan("/")
        held = {item.key: item.revision for item in items}
        try:
            await store.commit({"/b": held.get("/b", 0)}, {"/b": b"mine"})
        except StoreConflict:
            assert "/b" not in held
        events = (await store.since(made["/a"])).events
        assert events[-1].key == "/b"

    with_stores(loop, [three.place("/minority")], body)


def test_others_in_the_same_etcd_do_not_hide_or_delay_anything(
    single_etcd: Cluster, loop: asyncio.Runner
) -> None:
    """Their changes move etcd's revision, and their compaction goes beyond our last change."""

    async def body(ours: EtcdStore, late: EtcdStore, theirs: EtcdStore) -> None:
        before, _ = await ours.scan("/")
        made = await ours.commit({}, {"/a": b"1"})
        revision, _ = await ours.scan("/")
        await ours.since(before)  # its watch delivers
        for number in range(50):
            await theirs.commit({}, {"/x": b"%d" % number})
        connection = Connection(ours.place)
        request = rpc.RangeRequest(key=b"x")
        at = (await connection.read(lambda member: member.kv.Range, request)).header.revision
        await connection.write(lambda m: m.kv.Compact, rpc.CompactionRequest(revision=at))
        await connection.close()
        assert (await ours.scan("/"))[0] == revision, "nothing of ours has changed"
        assert await late.since(revision) == (revision, [], False)
        made = await ours.commit({"/a": made["/a"]}, {"/a": b"2"})
        for store in (ours, late):
            found = await store.since(revision)
            assert [(e.value, e.previous) for e in found.events] == [(b"2", b"1")]

    places = [replace(single_etcd.place(), prefix=p) for p in ("/ours", "/ours", "/theirs")]
    with_stores(loop, places, body)


def test_a_newer_schema_is_refused_with_who_wrote_it(
    single_etcd: Cluster, loop: asyncio.Runner
) -> None:
    place = single_etcd.place("/newer")

    async def body(store: EtcdStore, later: EtcdStore) -> None:
        await store.scan("")
        kept = await store._read_store(store._connection)
        assert json.loads(kept.value)["program"] == VERSION
        newer = json.dumps({**json.loads(kept.value), "version": 2, "program": "0.7.2"})
        put = rpc.PutRequest(key=kept.key, value=newer.encode())
        connection = Connection(place)
        await connection.write(lambda member: member.kv.Put, put)
        await connection.close()
        with pytest.raises(ConfigError, match=r"has schema 2, written by routed 0\.7\.2; this "):
            await later.scan("")

    with_stores(loop, [place, place], body)


def test_who_stood_still_for_long_is_told_so(single_etcd: Cluster, loop: asyncio.Runner) -> None:
    async def body(store: EtcdStore) -> None:
        other = EtcdStore(single_etcd.place("/still"))
        first = await store.commit({}, {"/a": b"1"})
        connection, following = store._connection, store._following
        assert connection is not None
        assert following is not None
        following._task.cancel()  # as a process that is stopped
        for number in range(5):
            made = await other.commit({}, {"/a": b"%d" % number})
        await other.compact(made["/a"])
        store._following = None
        with pytest.raises(Compacted):
            await store.since(first["/a"])
        assert [item.value for item in (await store.scan("/"))[1]] == [b"4"]
        await other.close()

    with_stores(loop, [single_etcd.place("/still")], body)


def test_a_full_etcd_is_a_full_store(tmp_path: Path, loop: asyncio.Runner) -> None:
    async def body(store: EtcdStore) -> None:
        with pytest.raises(StorageError, match="space") as caught:
            for number in range(100):
                await store.commit({}, {f"/{number}": b"x" * 1_000_000})
        assert caught.value.status == 507

    with cluster(tmp_path, 1, "--quota-backend-bytes", "20000000") as found:
        with_stores(loop, [found.place()], body)


def test_too_much_at_once_is_refused_whole(single_etcd: Cluster, loop: asyncio.Runner) -> None:
    async def body(store: EtcdStore) -> None:
        with pytest.raises(StorageError, match="200 keys"):
            await store.commit({}, {f"/{n}": b"" for n in range(200)})
        with pytest.raises(StorageError, match="too large"):
            await store.commit({}, {"/a": b"x" * 1_600_000})
        assert (await store.scan("/"))[1] == []

    with_stores(loop, [single_etcd.place("/much")], body)


def test_an_etcd_that_is_not_there_is_named(loop: asyncio.Runner) -> None:
    async def body(store: EtcdStore) -> None:
        with pytest.raises(StorageError, match=r"cannot read the store, etcd at 127.0.0.1:1: "):
            await store.scan("/")

    with_stores(loop, [EtcdPlace(("127.0.0.1:1",))], body)


def test_a_store_of_a_newer_program_is_refused(backend: Backend) -> None:
    if backend.etcd is None:
        pytest.skip("SQLite's is in test_sqlite_store")
    place = backend.etcd.place(f"/{backend.place}")

    async def body(_: Store) -> None:
        connection = Connection(place)
        put = rpc.PutRequest(key=f"{place.prefix}/store".encode(), value=b'{"base":0,"version":9}')
        await connection.write(lambda member: member.kv.Put, put)
        await connection.close()
        with pytest.raises(ConfigError, match="schema 9"):
            await backend.open().scan("/")

    backend.run(body)


# -- TLS, certificates of clients, users -----------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """An etcd that wants a certificate of who connects, and whose users have passwords."""
    directory = tmp_path_factory.mktemp("guarded")
    program()
    ca.ensure(directory, ["127.0.0.1"])
    _client_certificate(directory)
    flags = [
        "--cert-file",
        str(directory / "server.crt"),
        "--key-file",
        str(directory / "server.key"),
    ]
    flags += ["--client-cert-auth", "--trusted-ca-file", str(directory / "ca.crt")]
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / "client.crt", directory / "client.key")
    with cluster(directory, 1, *flags, tls=context) as found:
        yield found, directory


def _client_certificate(directory: Path) -> None:
    """With openssl: no CN, which etcd would take for a user."""
    asked = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    asked += ["-keyout", "client.key", "-out", "client.csr", "-subj", "/O=routed"]
    subprocess.run(asked, cwd=directory, check=True, capture_output=True)
    made = ["openssl", "x509", "-req", "-in", "client.csr", "-CA", "ca.crt", "-CAkey", "ca.key"]
    made += ["-set_serial", "7", "-out", "client.crt", "-days", "2"]
    subprocess.run(made, cwd=directory, check=True, capture_output=True)


def test_tls_with_a_certificate_and_a_password(
    guarded: tuple[Cluster, Path], loop: asyncio.Runner
) -> None:
    found, directory = guarded
    tls = Tls(directory / "ca.crt", directory / "client.crt", directory / "client.key")
    password = directory / "password"
    password.write_text("opensesame\n")
    password.chmod(0o600)
    plain = EtcdPlace(found.endpoints, "/routed", tls)
    place = replace(plain, user="routed", password_file=password)

    async def administer() -> None:
        connection = Connection(plain)
        kind = rpc.Permission.READWRITE
        permission = rpc.Permission(permType=kind, key=b"/routed/", range_end=b"/routed0")
        for call, request in (
            ("RoleAdd", rpc.AuthRoleAddRequest(name="routed")),
            ("RoleGrantPermission",
             rpc.AuthRoleGrantPermissionRequest(name="routed", perm=permission)),
            ("UserAdd", rpc.AuthUserAddRequest(name="root", password="r")),
            ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root")),
            ("UserAdd", rpc.AuthUserAddRequest(name="routed", password="opensesame")),
            ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="routed", role="routed")),
            ("AuthEnable", rpc.AuthEnableRequest()),
        ):  # fmt: skip
            await connection.write(lambda m, c=call: getattr(m.auth, c), request)  # type: ignore[misc]
        await connection.close()

    async def works(store: EtcdStore) -> None:
        after, _ = await store.scan("/")
        waiting = asyncio.create_task(store.changed(after))
        await store.commit({"/a": 0}, {"/a": b"x"})
        await waiting
        assert [e.key for e in (await store.since(after)).events] == ["/a"]
        assert store._connection is not None
        store._connection._token = "ended"  # as after five minutes without a request
        await store.commit({}, {"/b": b"x"})
        await store.compact((await store.scan("/"))[0])

    loop.run(administer())
    with_stores(loop, [place], works)

    async def refused(place: EtcdPlace, said: str) -> None:
        store = EtcdStore(place)
        try:
            with pytest.raises((StorageError, ConfigError), match=said):
                await store.scan("/")
        finally:
            await store.close()

    wrong = directory / "wrong"
    wrong.write_text("sesame")
    wrong.chmod(0o600)
    loop.run(refused(replace(place, password_file=wrong), "authentication failed"))
    loop.run(refused(plain, "permission denied|user name is empty"))
    loop.run(refused(replace(place, prefix="/other"), "permission denied"))
    loop.run(refused(replace(place, tls=Tls(directory / "ca.crt")), "cannot read the store"))
    loop.run(refused(replace(place, tls=None), "cannot read the store"))
    loop.run(refused(replace(place, tls=Tls()), "cannot read the store"))
    wrong.chmod(0o644)
    loop.run(refused(replace(place, password_file=wrong), "chmod 600"))
    loop.run(refused(replace(place, tls=Tls(directory / "none")), "storeCA: cannot read"))
