"""What the agent writes down: attachment records in /run, and small JSON documents.

Every write is atomic (a temporary file in the same directory, then rename) and mode 0600: a
reader sees the old or the new content, never a part. A document that must survive power loss is
fsynced, file and directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from api.resources.errors import AlreadyExists, Cause, Conflict
from routed.agent.attachment import Attachment, Step


def write_atomic(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace `path` by `data`, all or nothing, mode 0600. OSError goes through."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).rename(path)
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


def write_json(path: Path, document: Any, *, durable: bool = False) -> None:
    """`write_atomic` of a JSON document."""
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    write_atomic(path, data, durable=durable)


def read_json(path: Path) -> Any | None:
    """The document, or None where there is none or it is not JSON (a torn disk)."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


class Records:
    """The attachment records of one node: a directory, a file per attachment, a copy in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unreadable: list[Path] = []
        self._held: dict[str, Attachment] = {}

    def load(self) -> None:
        """Read every record; files that cannot be read are kept aside in `unreadable`."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held.clear()
        self.unreadable.clear()
        for path in sorted(self.directory.glob("*.json")):
            try:
                record = Attachment.model_validate_json(path.read_bytes())
            except ValidationError:
                self.unreadable.append(path)
                continue
            self._held[record.id] = record

    def put(self, record: Attachment) -> None:
        """Write `record` down; it is held only once it is on the file system."""
        write_atomic(
            self._path(record.id), record.model_dump_json(by_alias=True).encode(), durable=False
        )
        self._held[record.id] = record

    def remove(self, attachment_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(attachment_id).unlink()
        self._held.pop(attachment_id, None)

    def get(self, attachment_id: str) -> Attachment | None:
        return self._held.get(attachment_id)

    def all(self) -> dict[str, Attachment]:
        return dict(self._held)

    def by_container(self, container_id: str, if_name: str) -> Attachment | None:
        """The attachment of (containerID, ifName): the idempotency key of attach."""
        if not container_id:
            return None
        for record in self._held.values():
            if record.container_id == container_id and record.if_name == if_name:
                return record
        return None

    def _path(self, attachment_id: str) -> Path:
        return self.directory / f"{attachment_id}.json"


def existing(records: Records, wanted: Attachment) -> Attachment | None:
    """The attachment that `wanted` already is; AlreadyExists or Conflict if in its way."""
    held = records.by_container(wanted.container_id, wanted.if_name)
    if held is not None and held.step is not Step.DETACHING:
        return held
    held = records.get(wanted.id)
    if held is not None and held.step is not Step.DETACHING:
        if (held.netns_id, held.if_name, held.container_id) == (
            wanted.netns_id,
            wanted.if_name,
            wanted.container_id,
        ):
            return _same_addresses(held, wanted)
        raise AlreadyExists(
            f"cannot attach {wanted.name}: {held.id} is attached to {held.netns or 'a link'} "
            f"as {held.if_name}; detach it first, or take another name",
            kind="Workload",
            name=held.id,
        )
    for other in records.all().values():
        if other.id == wanted.id:
            continue
        if wanted.netns_id and (other.netns_id, other.if_name) == (
            wanted.netns_id,
            wanted.if_name,
        ):
            raise Conflict(
                f"cannot attach {wanted.name}: {wanted.if_name} in {wanted.netns} belongs to "
                f"{other.id}; take another ifName",
                causes=[Cause("ifName", f"is taken by {other.id}", "FieldValueDuplicate")],
            )
    return None


def _same_addresses(held: Attachment, wanted: Attachment) -> Attachment:
    """`held`, unless other addresses than its own are asked for now."""
    if wanted.requested and set(wanted.requested) != set(held.addresses):
        has = ", ".join(map(str, held.addresses))
        raise AlreadyExists(
            f"cannot attach {wanted.name}: {held.id} is attached with {has}; detach it first",
            kind="Workload",
            name=held.id,
        )
    return held
