"""Answers as they go over the wire."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from api.service.codec import compact, wire
from api.service.options import Options
from api.store import Item

WARNINGS_MOST = 2048  # characters in one answer


class Written(Response):
    """The answer to a write: of which object, at which revision."""

    def __init__(self, body: bytes, code: int, name: str, revision: str) -> None:
        super().__init__(body, code, media_type="application/json")
        self.name = name
        self.revision = revision


def object_answer(item: Item, code: int = 200) -> Response:
    return Written(wire(item), code, item.key.rpartition("/")[2], str(item.revision))


def json_answer(document: Any, code: int = 200) -> Response:
    return answer(compact(document), code)


def answer(data: bytes, code: int = 200) -> Response:
    return Response(data, code, media_type="application/json")


def warned(response: Response, how: Options) -> Response:
    """With a Warning header (RFC 7234, section 5.5) for each field that is not known, as long as
    there is room: clients bound what they read of headers."""
    left, size = len(how.warnings), 0
    for text in how.warnings:
        size += len(text)
        if size > WARNINGS_MOST:
            response.headers.append("warning", f'299 - "{left} more unknown field(s)"')
            break
        quoted = _plain(text).replace("\\", "\\\\").replace('"', '\\"')
        response.headers.append("warning", f'299 - "{quoted}"')
        left -= 1
    return response


def _plain(text: str) -> str:
    """What a header can carry."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
