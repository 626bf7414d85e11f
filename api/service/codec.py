"""Between objects and what the store keeps: keys, stored bytes, and documents on the wire.

What is stored is the object's wire form without `resourceVersion`, which is the key's revision.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from api.resources.meta import Resource
from api.resources.registry import by_kind
from api.store import Item

R = TypeVar("R", bound=Resource)


def prefix_of(model: type[Resource]) -> str:
    kind = by_kind(model.KIND)
    assert kind is not None
    return f"/{kind.plural}/"


def key_of(plural: str, name: str) -> str:
    return f"/{plural}/{name}"


def stored(held: Resource) -> bytes:
    """The bytes to keep."""
    document = held.wire()
    document["metadata"].pop("resourceVersion", None)
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def document_of(value: bytes, revision: int) -> dict[str, Any]:
    """The wire document of stored bytes."""
    document: dict[str, Any] = json.loads(value)
    document["metadata"]["resourceVersion"] = str(revision)
    return document


def kept(model: type[R], item: Item) -> R:
    """The typed object of a stored item."""
    return model.model_validate(document_of(item.value, item.revision))
