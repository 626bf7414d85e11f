"""A real etcd on loopback, of one member or three, each a process that can be killed or stopped."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from api.store.etcd.place import EtcdPlace
from routed.lab.processes import free_port
from support.child import Child
from support.histories.net import Host


def program() -> str:
    found = shutil.which("etcd")
    if found is None:
        pytest.skip("needs etcd (Debian: etcd-server)")
    return found


@dataclass
class Member(Child):
    name: str
    words: list[str]
    url: str
    log: Path
    tls: ssl.SSLContext | None = None

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            return bool(self._ask("health").json()["health"] == "true")
        return False

    def leads(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return "\netcd_server_is_leader 1\n" in self._ask("metrics").text
        return False

    def _ask(self, what: str) -> httpx.Response:
        return httpx.get(f"{self.url}/{what}", timeout=1, verify=self.tls or False)


@dataclass
class Cluster:
    members: list[Member] = field(default_factory=list)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.url.partition("//")[2] for member in self.members)

    @property
    def url(self) -> str:
        return f"etcd://{','.join(self.endpoints)}"

    def place(self, prefix: str = "/routed") -> EtcdPlace:
        return EtcdPlace(self.endpoints, prefix)

    def leader(self) -> Member:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            for member in self.members:
                if member.child is not None and member.leads():
                    return member
            time.sleep(0.05)
        raise AssertionError("no leader")

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        for member in self.members:
            while not member.healthy():
                assert time.monotonic() < deadline, member.log.read_text()[-3000:]
                time.sleep(0.05)


@contextlib.contextmanager
def cluster(
    directory: Path,
    size: int = 1,
    *flags: str,
    tls: ssl.SSLContext | None = None,
    hosts: Sequence[Host] = (),
) -> Iterator[Cluster]:
    """Run until the block ends; `tls`: what its members are asked with. Without `hosts`, one for
    each member, they are on loopback."""
    etcd = program()
    names = [f"m{number}" for number in range(size)]
    places = [(host.address, host.words) for host in hosts] or [("127.0.0.1", [])] * size
    clients, peers = ([free_port() for _ in names] for _ in "cp")
    told_by = {
        name: f"http://{address}:{port}"
        for name, (address, _), port in zip(names, places, peers, strict=True)
    }
    initial = ",".join(f"{name}={url}" for name, url in told_by.items())
    made = Cluster()
    for name, client, (address, prefix) in zip(names, clients, places, strict=True):
        own, told = f"{'https' if tls else 'http'}://{address}:{client}", told_by[name]
        words = [*prefix, etcd, "--name", name, "--data-dir", str(directory / name)]
        words += ["--listen-client-urls", own, "--advertise-client-urls", own]
        words += ["--listen-peer-urls", told, "--initial-advertise-peer-urls", told]
        words += ["--initial-cluster", initial, "--logger", "zap", "--log-level", "warn"]
        words += ["--heartbeat-interval", "50", "--election-timeout", "500", *flags]
        made.members.append(Member(name, words, own, directory / f"{name}.log", tls))
    try:
        for member in made.members:
            member.start()
        made.wait()
        yield made
    finally:
        for member in made.members:
            member.kill()
