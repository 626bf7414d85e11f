"""Requests that kubectl sends as protobuf whatever it is answered: access reviews, since 1.32.

Pure. The envelope is `runtime.Unknown` behind four bytes of magic; of the reviews only what is
asked is read (k8s.io/api, authorization/v1/generated.proto).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.resources.errors import BadRequest

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
_RESOURCE = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource",
             6: "subresource", 7: "name"}  # fmt: skip
_PATH = {1: "path", 2: "verb"}


def document(body: bytes) -> dict[str, Any]:
    """The review in `body` as its JSON would be; BadRequest."""
    try:
        if not body.startswith(MAGIC):
            raise ValueError("its first bytes are not those of the Kubernetes API")
        outer = _fields(body[len(MAGIC) :])
        names = _texts(_fields(outer.get(1, b"")), {1: "apiVersion", 2: "kind"})
        spec = _fields(_fields(outer.get(2, b"")).get(2, b""))
        return {**names, "spec": _asked(names.get("kind", ""), spec)}
    except (ValueError, IndexError) as error:
        raise BadRequest(f"cannot read the request: it is no protobuf ({error})") from error


def _asked(kind: str, spec: Mapping[int, bytes]) -> dict[str, Any]:
    if kind == "SelfSubjectAccessReview":
        asked: dict[str, Any] = {}
        for number, name, known in (
            (1, "resourceAttributes", _RESOURCE),
            (2, "nonResourceAttributes", _PATH),
        ):
            if number in spec:
                asked[name] = _texts(_fields(spec[number]), known)
        return asked
    return dict(_texts(spec, {1: "namespace"}))


def _texts(held: Mapping[int, bytes], names: Mapping[int, str]) -> dict[str, str]:
    return {name: held[number].decode() for number, name in names.items() if held.get(number)}


def _fields(data: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message by number, the last of each; others are passed
    over (protobuf.dev, "Encoding")."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field ends beyond its message")
            found[tag >> 3] = data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind} is not expected")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("a number has more than ten bytes")
