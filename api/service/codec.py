"""Between objects and what the store keeps: keys, stored bytes, and documents on the wire.

What is stored is the object's wire form without `resourceVersion`, which is the key's revision.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from api.resources.errors import StorageError
from api.resources.meta import Resource
from api.resources.reading import Unreadable, read
from api.store import Item

R = TypeVar("R", bound=Resource)
# keys that every decision about more than one object compares and writes: they exclude each other
ADDRESSES_GUARD = "/guard/addresses"
NODES_GUARD = "/guard/nodes"
_ENCODER = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def key_of(plural: str, name: str) -> str:
    return f"/{plural}/{name}"


def stored(held: Resource) -> dict[str, Any]:
    """The document to keep."""
    document = held.wire()
    document["metadata"].pop("resourceVersion", None)
    if not document["metadata"]["managedFields"]:
        del document["metadata"]["managedFields"]
    return document


def encoded(document: dict[str, Any]) -> bytes:
    """The bytes to keep: `wire` and the comparison for a no-op rest on this one form."""
    return _ENCODER.encode(document).encode()


def compact(document: Any) -> bytes:
    """A document as JSON, without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def wire(item: Item) -> bytes:
    """The wire form of a stored object, without decoding it.

    `encoded` sorts the keys, and neither apiVersion nor kind, which come before metadata, can hold
    what is looked for here.
    """
    version = b'"metadata":{"resourceVersion":"%d",' % item.revision
    return item.value.replace(b'"metadata":{', version, 1)


def line(kind: str, wired: bytes) -> bytes:
    """A line of a watch; `kind` is ADDED, MODIFIED, ..."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), wired)


def document_of(value: bytes, revision: int) -> dict[str, Any]:
    """The wire document of stored bytes."""
    document: dict[str, Any] = json.loads(value)
    document["metadata"]["resourceVersion"] = str(revision)
    return document


def kept(model: type[R], item: Item) -> R:
    """The typed object of a stored item; StorageError if a newer replica wrote what we cannot
    read."""
    return understood(model, document_of(item.value, item.revision))[0]


def understood(model: type[R], document: dict[str, Any]) -> tuple[R, bool]:
    """The object of a stored document, and whether there is more in that than this release knows:
    a newer replica wrote it. StorageError if it cannot be read at all."""
    try:
        return model.model_validate(document), False
    except ValidationError:
        pass
    try:
        return read(model, document), True
    except Unreadable as error:
        raise StorageError(
            f"cannot change {model.KIND} {document['metadata']['name']}: {error}; a newer control "
            "plane wrote it, ask that one"
        ) from error
