"""The body of a request, read no further than it may be long."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from api.resources.decode import parse_body
from api.resources.errors import BadRequest, TooLarge

BODY_LIMIT = 1 << 20  # bytes


async def body_of(request: Request, empty: Any = None, *, array: bool = False) -> Any:
    """The JSON body; an object, or with `array` an array too."""
    body = await bytes_of(request)
    if not body and empty is not None:
        return empty
    return parse_body(body, array=array)


async def bytes_of(request: Request) -> bytes:
    """The body; refused past BODY_LIMIT before it is held."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > BODY_LIMIT:
                said = f"its body is larger than {BODY_LIMIT} bytes"
                raise TooLarge(f"cannot read the request: {said}")
            parts.append(part)
    except ClientDisconnect:
        raise BadRequest("cannot read the request: the client left before its end") from None
    return b"".join(parts)
