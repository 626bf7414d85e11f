"""What selectors and names of ports in policies stand for, as the service told it last.

It comes by one stream (`api.client.selections`), the whole of each subject first and then what
changes, for what this host needs now. The copy on disk (``<stateDir>/members.json``, 0600) is what
an agent works from that starts while the service is out of reach; each subject is in it with its
version, so the service tells an agent that comes back only what has changed meanwhile. What was
never told is missing, which is not the same as having no members.

What is not needed any more is followed for some minutes still: workloads come and go, and the next
one with such labels is to find its policies known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import Client
from api.client.selections import (
    DELTA,
    LOST,
    SYNCED,
    WHOLE,
    Entries,
    PortMember,
    Selections,
    Subject,
    Told,
)
from api.resources.errors import RoutedError
from api.resources.net import IPAddress, parse_address, parse_cidr
from api.resources.selectors import SUBJECTS_MOST
from policies.model import Needs
from routed.agent.encoded import Encoded
from routed.agent.records import write_atomic

log = logging.getLogger("routed.control")

GATHER_SECONDS = 1.0  # of changes to what is known already, until they are written down
LINGER_SECONDS = 600.0  # that something is followed after it was needed last
RETRY_SECONDS = 5.0  # after a refusal


Member = IPAddress | PortMember


@dataclass(frozen=True, slots=True)
class Known:
    """The members of a subject, and the name of just these."""

    entries: Entries
    version: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What has come, and what has gone: of a selector addresses, of a port's name what it is."""

    add: frozenset[Member]
    gone: frozenset[Member]

    def then(self, other: Delta) -> Delta:
        """Both, one after the other."""
        return Delta((self.add - other.gone) | other.add, (self.gone - other.add) | other.gone)


class Members:
    """`known` has what was told of each subject, whenever that was; `changes` what has changed of
    each since these were taken last, None where nets have, or all is new. `problem` says why
    nothing can be told now, `refused` why the service will not. `told` counts what it has said,
    whole or changes."""

    def __init__(self, path: Path, node: str, client: Client | None) -> None:
        self.path = path
        self.node = node
        self.known: dict[Subject, Known] = {}
        self.changes: dict[Subject, Delta | None] = {}
        self.problem = self.refused = ""
        self.revision = 0
        self.told = 0
        self._client = client
        self._needed: dict[Subject, float] = {}  # when it was needed last
        self._selections: Selections | None = None
        self._encoder = Encoder()  # for the thread that writes
        self._outdated = asyncio.Event()
        self._urgent = asyncio.Event()

    def load(self) -> None:
        """What an earlier agent was told; an unreadable copy is moved aside."""
        try:
            found = json.loads(self.path.read_bytes())
            known = {_subject(one): _known(one) for one in found["members"]}
            if found["nodeName"] == self.node:
                self.known, self.revision = known, int(found["revision"])
                self._needed = dict.fromkeys(known, time.monotonic())  # or given up in time
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            log.error("members unreadable path=%s: %s", self.path, error)
            self.path.rename(self.path.with_suffix(".json.bad"))

    def need(self, needs: Needs) -> None:
        """From now on these are followed."""
        now = time.monotonic()
        self._needed.update(dict.fromkeys((*needs.selectors, *needs.ports), now))
        for one, last in list(self._needed.items()):
            if now - last > LINGER_SECONDS:
                self._forget(one)
        self._make_room(now)
        if self._selections is not None:
            self._selections.need(self._needed)

    def _make_room(self, now: float) -> None:
        """What only lingers is given up, oldest first, before all would be refused."""
        beyond = len(self._needed) - SUBJECTS_MOST
        if beyond > 0:
            lingering = [one for one, last in self._needed.items() if last < now]
            for one in sorted(lingering, key=self._needed.__getitem__)[:beyond]:
                self._forget(one)

    def _forget(self, subject: Subject) -> None:
        del self._needed[subject]
        if self.known.pop(subject, None) is not None:
            self._outdated.set()

    async def serve(self, changed: Callable[[], None]) -> None:
        """Follow what is needed, and keep the copy; `changed` is called with whatever changes."""
        if self._client is None:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self._client, changed))
            tasks.create_task(self._write())

    async def _follow(self, client: Client, changed: Callable[[], None]) -> None:
        while True:
            versions = {one: held.version for one, held in self.known.items()}
            selections = self._selections = Selections(client, versions)
            selections.need(self._needed)
            try:
                async with contextlib.aclosing(selections.follow()) as told:
                    async for one in told:
                        if self._take(one):
                            changed()
            except RoutedError as error:  # asking for the same again will be no better
                self.refused = f"{error} ({len(self._needed)} are needed here)"
                if self._failed(error):
                    changed()
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _take(self, told: Told) -> bool:
        """Whether that changed anything."""
        if told.type == LOST:
            return self._failed(told.why)
        recovered, self.problem, self.refused = bool(self.problem), "", ""
        if told.type == SYNCED:
            self.revision = max(self.revision, told.revision)
            return recovered
        self.told += 1
        if told.type not in (WHOLE, DELTA) or told.of not in self._needed:
            return recovered
        before = self.known.get(told.of)
        entries = told.add
        if told.type == DELTA:
            if before is None:  # of what was given up meanwhile
                return recovered
            entries = _changed(before.entries, told)
        self.known[told.of] = Known(entries, told.version)
        self._note(told.of, before.entries if before is not None else None, entries)
        self._outdated.set()
        if before is None:  # the next agent is not to begin without any
            self._urgent.set()
        return recovered or before is None or before.entries != entries

    def take_changes(self) -> dict[Subject, Delta | None]:
        """Of each subject that changed since the last call."""
        found, self.changes = self.changes, {}
        return found

    def _note(self, subject: Subject, before: Entries | None, after: Entries) -> None:
        if before == after:
            return
        if before is None or before.nets != after.nets:
            self.changes[subject] = None
            return
        delta = Delta(_members(after) - _members(before), _members(before) - _members(after))
        if subject in self.changes:
            earlier = self.changes[subject]
            self.changes[subject] = earlier.then(delta) if earlier is not None else None
        else:
            self.changes[subject] = delta

    def _failed(self, why: RoutedError | None) -> bool:
        """Whether that was not known before."""
        if new := not self.problem:
            log.warning("members not told why=%s", why)
        self.problem = str(why)
        return new

    async def _write(self) -> None:
        while True:
            await self._outdated.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._urgent.wait()
            self._outdated.clear()
            self._urgent.clear()
            held, revision = dict(self.known), self.revision
            job = asyncio.ensure_future(asyncio.to_thread(self._save, held, revision))
            try:
                await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait([job])  # whoever is next must not meet this one
                raise
            except OSError as error:
                log.error("members not saved path=%s: %s", self.path, error)
                self._outdated.set()
                await asyncio.sleep(RETRY_SECONDS)

    def _save(self, known: Mapping[Subject, Known], revision: int) -> None:
        """Write the copy; OSError."""
        data = self._encoder.encode(self.node, known, revision)
        write_atomic(self.path, data, durable=True)


class Encoder:
    """The members of all subjects as the bytes of the copy."""

    def __init__(self) -> None:
        self._texts: Encoded[Subject, Known] = Encoded(_text)

    def encode(self, node: str, known: Mapping[Subject, Known], revision: int) -> bytes:
        members = b",".join(self._texts.all(known.items()))
        head = json.dumps({"nodeName": node, "revision": revision}).encode()
        return b'%b, "members": [%b]}' % (head.removesuffix(b"}"), members)


def _text(subject: Subject, known: Known) -> bytes:
    return json.dumps(_wire(subject, known)).encode()


def _changed(entries: Entries, told: Told) -> Entries:
    add, remove = told.add, told.remove
    return Entries(
        (entries.addresses - remove.addresses) | add.addresses,
        (entries.nets - remove.nets) | add.nets,
        (entries.ports - remove.ports) | add.ports,
    )


def _wire(subject: Subject, known: Known) -> dict[str, Any]:
    entries = known.entries
    if isinstance(subject, str):
        held = {"addresses": _texts(entries.addresses), "nets": _texts(entries.nets)}
        return {"selector": subject, "version": known.version, **held}
    port, selector = subject
    ports = [[str(address), *rest] for address, *rest in entries.ports]
    return {"port": port, "selector": selector, "version": known.version, "ports": ports}


def address_of(member: Member) -> IPAddress:
    return member[0] if isinstance(member, tuple) else member


def _members(entries: Entries) -> frozenset[Member]:
    """Those that are no nets."""
    return entries.addresses | entries.ports


def _texts(held: Iterable[object]) -> list[str]:
    return [str(one) for one in held]


def _subject(wire: Mapping[str, Any]) -> Subject:
    return (wire["port"], wire["selector"]) if "port" in wire else wire["selector"]


def _known(wire: Mapping[str, Any]) -> Known:
    entries = Entries(
        frozenset(map(parse_address, wire.get("addresses", ()))),
        frozenset(map(parse_cidr, wire.get("nets", ()))),
        frozenset((parse_address(one), int(p), int(n)) for one, p, n in wire.get("ports", ())),
    )
    return Known(entries, wire["version"])
