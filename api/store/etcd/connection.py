"""Calls to whichever member of the cluster answers.

One member is spoken to at a time; one that does not answer is left for the next. Reads are tried
again until READ_SECONDS are over, which an election of a leader does not take. A write is sent
once: after an error nobody knows whether it will be applied, and only who decides anew, on what
he reads then, may send another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from aetcd import rpc

from api.resources.errors import Cause, ConfigError, StorageError
from api.store.etcd.place import EtcdPlace, Tls

T = TypeVar("T")

TRY_SECONDS = 2.0  # for one answer to a read
READ_SECONDS = 8.0  # with all tries
WRITE_SECONDS = 5.0
PAUSE_SECONDS = 0.1  # between tries
MOST = 1 << 40
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses more than one in five seconds
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_LEADER = ("hasleader", "true")  # a watch of a member that is cut off ends


class Gone(Exception):
    """etcd has compacted the revision that was asked for."""


class Member:
    """One member, and what it can be asked."""

    def __init__(self, endpoint: str, tls: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        if tls is None:
            self.channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(endpoint, tls, options=OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.watching = rpc.WatchStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)


class Connection:
    """To be made within a running loop. All methods raise StorageError."""

    def __init__(self, place: EtcdPlace) -> None:
        self.place = place
        tls = _credentials(place.tls) if place.tls else None
        self._password = _password(place)
        self._members = [Member(endpoint, tls) for endpoint in place.endpoints]
        self._at = 0
        self._token = ""

    @property
    def member(self) -> Member:
        return self._members[self._at]

    def leave(self, member: Member) -> None:
        """It does not answer: the next one is asked from now on."""
        if member is self.member:
            self._at = (self._at + 1) % len(self._members)

    async def close(self) -> None:
        for member in self._members:
            await member.channel.close()

    async def read(self, ask: Callable[[Member], Any], request: Any) -> Any:
        """The answer of any member. Gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READ_SECONDS
        while True:
            member = self.member
            try:
                return await self._call(ask, member, request, TRY_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    raise Gone(error.details()) from error
                if not _passing(error) or loop.time() >= until:
                    raise self.failure(error, "read") from error
            self.leave(member)
            await asyncio.sleep(PAUSE_SECONDS)

    async def write(self, ask: Callable[[Member], Any], request: Any) -> Any:
        """Sent once. Gone."""
        member = self.member
        try:
            return await self._call(ask, member, request, WRITE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise Gone(error.details()) from error
            if _passing(error):
                self.leave(member)
            raise self.failure(error, "write to") from error

    async def watch(self, member: Member, request: Any) -> Any:
        """A stream of WatchResponse that `member` feeds; grpc.aio.AioRpcError when it ends."""
        metadata = (*await self._metadata(member), _LEADER)
        call = member.watching.Watch(metadata=metadata)
        await call.write(rpc.WatchRequest(create_request=request))
        return call

    def ended(self, error: grpc.aio.AioRpcError) -> None:
        """A watch ended with it: forget the token if that is why."""
        if _stale(error):
            self._token = ""

    async def _call(
        self, ask: Callable[[Member], Any], member: Member, request: Any, seconds: float
    ) -> Any:
        try:
            metadata = await self._metadata(member)
            return await ask(member)(request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if not self.place.user or not _stale(error):
                raise
        self._token = ""  # nothing of the request was done: the token has ended
        metadata = await self._metadata(member)
        return await ask(member)(request, timeout=seconds, metadata=metadata)

    async def _metadata(self, member: Member) -> tuple[tuple[str, str], ...]:
        if not self.place.user:
            return ()
        if not self._token:
            asked = rpc.AuthenticateRequest(name=self.place.user, password=self._password)
            self._token = (await member.auth.Authenticate(asked, timeout=TRY_SECONDS)).token
        return (("token", self._token),)

    def failure(self, error: grpc.aio.AioRpcError, doing: str) -> StorageError:
        """It, as our own."""
        said = error.details() or error.code().name.lower()
        full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in said
        return StorageError(f"cannot {doing} the store, {self.place}: {said}", full=full)


async def settled(awaitable: Awaitable[T]) -> None:
    """Wait for its end, whatever it is."""
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await awaitable


def _passing(error: grpc.aio.AioRpcError) -> bool:
    """Another member, or the same one soon, may answer."""
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    )


def _stale(error: grpc.aio.AioRpcError) -> bool:
    said = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or "auth store is old" in said


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    files = {"storeCA": tls.ca, "storeCertificate": tls.certificate, "storeKey": tls.key}
    held: dict[str, bytes | None] = dict.fromkeys(files)
    problems = []
    for name, path in files.items():
        try:
            held[name] = path.read_bytes() if path else None
        except OSError as error:
            problems.append(Cause(name, f"cannot read {path}: {error.strerror}"))
    if problems:
        raise ConfigError("the store's TLS files", problems)
    ca, certificate, key = held.values()
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _password(place: EtcdPlace) -> str:
    if not place.user:
        return ""
    path = place.password_file
    assert path is not None
    try:
        if path.stat().st_mode & 0o077:
            problem = f"{path} can be read by others than its owner: chmod 600 it"
            raise ConfigError("the store's password", [Cause("storePasswordFile", problem)])
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read {path}: {error}"
        raise ConfigError("the store's password", [Cause("storePasswordFile", problem)]) from error
