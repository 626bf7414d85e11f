"""What the agent writes down: attachment records in /run.

Every write is atomic (a temporary file in the same directory, then rename) and mode 0600: a
reader sees the old or the new content, never a part. A document that must survive power loss is
fsynced, file and directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from api.resources.errors import AlreadyExists, Cause, Conflict
from routed.agent.attachment import Attachment, Step
from routed.agent.interfaces import ALONE
from routed.agent.ports import MappedPorts

COMPARED = ("mode", "bandwidth", "mtu", "default_route", "routes")  # if asked for again


def write_atomic(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace `path` by `data`, all or nothing, mode 0600. OSError goes through.

    A path has one writer at a time; what a dead one left half written is written anew.
    """
    temporary = f"{path.parent}/.{path.name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)  # noqa: PTH104 - on the way of every attach
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Records:
    """The attachment records of one node: a directory, a file per attachment, a copy in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unreadable: list[Path] = []
        self._held: dict[str, Attachment] = {}
        self._containers: dict[tuple[str, str], str] = {}  # containerID, ifName
        self.ports = MappedPorts()
        self._spaces: dict[tuple[int, int], set[str]] = {}
        self._interfaces: dict[tuple[tuple[int, int], str], str] = {}  # namespace, ifName
        self.sharers: dict[str, set[str]] = {}  # who shares a namespace, by its holder
        self._parents: dict[str, set[str]] = {}  # who is on it

    def __len__(self) -> int:
        return len(self._held)

    def load(self) -> None:
        """Read every record, a newer agent's as well; files that cannot be read are kept aside in
        `unreadable`."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held.clear()
        self._containers.clear()
        self._interfaces.clear()
        self.sharers.clear()
        self._parents.clear()
        self._spaces.clear()
        self.ports = MappedPorts()
        self.unreadable.clear()
        for path in sorted(self.directory.glob("*.json")):
            try:
                record = Attachment.model_validate_json(path.read_bytes(), extra="ignore")
            except ValidationError:
                self.unreadable.append(path)
                continue
            self.hold(record)

    def put(self, record: Attachment) -> None:
        """Write `record` down; it is held only once it is on the file system."""
        write_atomic(self._path(record.id), record.model_dump_json(by_alias=True).encode(),
                     durable=False)  # fmt: skip
        self.hold(record)

    def hold(self, record: Attachment) -> None:
        """Without writing it down."""
        if (before := self._held.get(record.id)) is not None:
            self._off(before)
        self._held[record.id] = record
        if record.ports:
            self.ports.keep(record)
        if record.shared_with:
            self.sharers.setdefault(record.shared_with, set()).add(record.id)
        if record.parent:
            self._parents.setdefault(record.parent, set()).add(record.id)
        if record.container_id:
            self._containers[record.container_id, record.if_name] = record.id
        if record.netns_id is not None:
            self._interfaces[record.netns_id, record.if_name] = record.id
            self._spaces.setdefault(record.netns_id, set()).add(record.id)

    def remove(self, attachment_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(attachment_id).unlink()
        held = self._held.pop(attachment_id, None)
        if held is None:
            return
        self.ports.drop(held)
        if held.shared_with:
            self.sharers[held.shared_with].discard(held.id)
            if not self.sharers[held.shared_with]:
                del self.sharers[held.shared_with]
        self._off(held)
        container = (held.container_id, held.if_name)
        if self._containers.get(container) == attachment_id:
            del self._containers[container]
        if held.netns_id is not None:
            interface = (held.netns_id, held.if_name)
            if self._interfaces.get(interface) == attachment_id:
                del self._interfaces[interface]
            beside = self._spaces.get(held.netns_id, set())
            beside.discard(attachment_id)
            if not beside:
                self._spaces.pop(held.netns_id, None)

    def _off(self, record: Attachment) -> None:
        """Its parent has one less."""
        some = self._parents.get(record.parent, set())
        some.discard(record.id)
        if not some:
            self._parents.pop(record.parent, None)

    def get(self, attachment_id: str) -> Attachment | None:
        return self._held.get(attachment_id)

    @property
    def held(self) -> Mapping[str, Attachment]:
        """All of them by id, as they are from moment to moment."""
        return self._held

    def all(self) -> dict[str, Attachment]:
        """All of them by id, as they are now."""
        return dict(self._held)

    def by_container(self, container_id: str, if_name: str) -> Attachment | None:
        """The attachment of (containerID, ifName): the idempotency key of attach."""
        return self._held.get(self._containers.get((container_id, if_name), ""))

    def by_interface(self, netns_id: tuple[int, int], if_name: str) -> Attachment | None:
        """The attachment that the interface of that name in that namespace is."""
        return self._held.get(self._interfaces.get((netns_id, if_name), ""))

    def in_namespace(self, netns_id: tuple[int, int] | None) -> list[Attachment]:
        """The attachments that are interfaces of that namespace."""
        return [self._held[name] for name in self._spaces.get(netns_id, ())] if netns_id else []

    def on_parent(self, name: str) -> Collection[str]:
        """The attachments that are slaves of that link."""
        return self._parents.get(name, ())

    def _path(self, attachment_id: str) -> Path:
        return self.directory / f"{attachment_id}.json"


def existing(records: Records, wanted: Attachment) -> Attachment | None:
    """The attachment that `wanted` already is; AlreadyExists or Conflict if in its way."""
    held = records.by_container(wanted.container_id, wanted.if_name)
    if held is not None and held.step is not Step.DETACHING:
        return _same(held, wanted)
    held = records.get(wanted.id)
    if held is not None and held.step is not Step.DETACHING:
        if (held.netns_id, held.if_name, held.container_id, held.shared_with) == (
            wanted.netns_id,
            wanted.if_name,
            wanted.container_id,
            wanted.shared_with,
        ):
            return _same(held, wanted)
        raise AlreadyExists(
            f"cannot attach {wanted.name}: {held.id} is attached to {held.netns or 'a link'} "
            f"as {held.if_name}; detach it first, or take another name",
            kind="Workload",
            name=held.id,
        )
    other = records.by_interface(wanted.netns_id, wanted.if_name) if wanted.netns_id else None
    if other is not None and other.id != wanted.id and ALONE.isdisjoint((wanted.mode, other.mode)):
        raise Conflict(
            f"cannot attach {wanted.name}: {wanted.if_name} in {wanted.netns} belongs to "
            f"{other.id}; take another ifName",
            causes=[Cause("ifName", f"is taken by {other.id}", "FieldValueDuplicate")],
        )
    return None


def _same(held: Attachment, wanted: Attachment) -> Attachment:
    """`held`, unless something else than it has is asked for now."""
    if wanted.requested and set(wanted.requested) != set(held.addresses):
        has = ", ".join(map(str, held.addresses))
        raise AlreadyExists(
            f"cannot attach {wanted.name}: {held.id} is attached with {has}; detach it first",
            kind="Workload",
            name=held.id,
        )
    if wanted.ports != held.ports:
        raise AlreadyExists(
            f"cannot attach {wanted.name}: {held.id} is attached with other ports; detach it first",
            kind="Workload",
            name=held.id,
        )
    for field in COMPARED:
        asked, has = getattr(wanted, field), getattr(held, field)
        said_so = field in wanted.model_fields_set and (field, asked) != ("mtu", 0)
        if said_so and asked != has:
            said = f"{held.id} is attached with another {to_camel(field)}"
            raise Conflict(
                f"cannot attach {wanted.name}: {said}; detach it first",
                causes=[Cause(to_camel(field), said)],
            )
    return held
