"""The Swagger 2.0 document as protobuf (openapi.v2.Document, gnostic's OpenAPIv2.proto): the only
form that kubectl before 1.27 takes.

Pure. A message is written from a table of its fields: number, and how its value is written. What a
table does not have is left out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

# asked for with an @ in place of the last dots, which is no media type that Go can read
MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

Writer = Callable[[int, Any], bytes]  # the field's number and its value
Fields = Mapping[str, tuple[int, Writer]]


def document(held: dict[str, Any]) -> bytes:
    """The bytes of a Swagger 2.0 document."""
    return _message(held, _DOCUMENT)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _message(held: Mapping[str, Any], fields: Fields, extensions: int = 0) -> bytes:
    made = b""
    for name, (field, write) in fields.items():
        if name in held:
            made += write(field, held[name])
    for name, value in held.items() if extensions else ():
        if name.startswith("x-"):
            made += _bytes(extensions, _text(1, name) + _bytes(2, _any(value)))
    return made


def _any(value: Any) -> bytes:
    """openapi.v2.Any: as YAML, of which JSON is a part."""
    return _text(2, json.dumps(value))


def _text(field: int, value: Any) -> bytes:
    return _bytes(field, str(value).encode())


def _texts(field: int, values: Any) -> bytes:
    return b"".join(_text(field, value) for value in values)


def _flag(field: int, value: Any) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _double(field: int, value: Any) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _anything(field: int, value: Any) -> bytes:
    return _bytes(field, _any(value))


def _anythings(field: int, values: Any) -> bytes:
    return b"".join(_anything(field, value) for value in values)


def _schema(field: int, value: Any) -> bytes:
    return _bytes(field, _message(value, _SCHEMA, 31))


def _schemas(field: int, values: Any) -> bytes:
    return b"".join(_schema(field, value) for value in values)


def _named(field: int, values: Any) -> bytes:
    """A message of NamedSchema."""
    inside = b"".join(_bytes(1, _text(1, name) + _schema(2, one)) for name, one in values.items())
    return _bytes(field, inside)


def _in(write: Writer) -> Writer:
    """What is alone, as field 1, in a message of its own."""
    return lambda field, value: _bytes(field, write(1, value))


def _paths(field: int, values: Any) -> bytes:
    items = b""
    for path, item in values.items():
        item_fields = {word: (number, _operation) for word, number in _WORDS.items()}
        items += _bytes(2, _text(1, path) + _bytes(2, _message(item, item_fields)))
    return _bytes(field, items)


def _operation(field: int, value: Any) -> bytes:
    return _bytes(field, _message(value, _OPERATION, 13))


def _parameters(field: int, values: Any) -> bytes:
    """ParametersItem of Parameter of BodyParameter, or of NonBodyParameter."""
    made = b""
    for one in values:
        if one["in"] == "body":
            inside = _bytes(1, _message(one, _BODY))
        else:
            query = one["in"] == "query"
            placed = _message(one, _IN_QUERY if query else _IN_PATH)
            inside = _bytes(2, _bytes(3 if query else 4, placed))
        made += _bytes(field, _bytes(1, inside))
    return made


def _responses(field: int, values: Any) -> bytes:
    made = b""
    for code, one in values.items():
        answer = _text(1, one["description"]) + _bytes(2, _schema(1, one["schema"]))
        made += _bytes(1, _text(1, code) + _bytes(2, _bytes(1, answer)))
    return _bytes(field, made)


_WORDS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_SCHEMA: Fields = {
    "$ref": (1, _text), "format": (2, _text), "title": (3, _text), "description": (4, _text),
    "default": (5, _anything), "maximum": (7, _double), "minimum": (9, _double),
    "maxLength": (11, _flag), "minLength": (12, _flag), "pattern": (13, _text),
    "maxItems": (14, _flag), "minItems": (15, _flag), "required": (19, _texts),
    "enum": (20, _anythings), "additionalProperties": (21, _in(_schema)), "type": (22, _in(_text)),
    "items": (23, _in(_schema)), "allOf": (24, _schemas), "properties": (25, _named),
}  # fmt: skip
_BODY: Fields = {
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _flag),
    "schema": (5, _schema),
}
_IN_PATH: Fields = {
    "required": (1, _flag), "in": (2, _text), "description": (3, _text), "name": (4, _text),
    "type": (5, _text),
}  # fmt: skip
_IN_QUERY: Fields = {**_IN_PATH, "type": (6, _text)}
_OPERATION: Fields = {
    "tags": (1, _texts), "operationId": (5, _text), "produces": (6, _texts),
    "consumes": (7, _texts), "parameters": (8, _parameters), "responses": (9, _responses),
}  # fmt: skip
_INFO: Fields = {"title": (1, _text), "version": (2, _text)}
_DOCUMENT: Fields = {
    "swagger": (1, _text),
    "info": (2, lambda field, value: _bytes(field, _message(value, _INFO))),
    "paths": (8, _paths),
    "definitions": (9, _named),
}
