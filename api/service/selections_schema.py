"""What the OpenAPI document says of selections, which are of no kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.resources.media import LINES
from api.resources.selectors import MAX_LENGTH, SUBJECTS_MOST
from api.service import schemas
from api.service.schemas import Schema, reference
from api.service.subjects import PORT_NAME_MOST, VERSION_MOST

JSON = "application/json"


def paths(base: str, errors: Mapping[str, str], always: tuple[str, ...]) -> dict[str, Any]:
    """The path below `base`; `errors` has what each status means, `always` those of every path."""
    told = {code: (errors[code], reference(schemas.STATUS)) for code in (*always, "413", "422")}
    answers = {"200": ("lines of JSON, without end", _line()), **told}
    operation = {
        "operationId": "followSelections",
        "tags": ["Selections"],
        "description": "What selectors and named ports stand for, and how that changes.",
        "parameters": [
            {
                "name": "timeoutSeconds",
                "in": "query",
                "description": "end after so many",
                "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
            }
        ],
        "requestBody": {"content": {JSON: {"schema": _asked()}}, "required": True},
        "responses": {
            code: {
                "description": said,
                "content": {LINES if code == "200" else JSON: {"schema": schema}},
            }
            for code, (said, schema) in sorted(answers.items())
        },
    }
    return {f"{base}/selections": {"post": operation}}


def _asked() -> Schema:
    version = _text("that of the last line about it: it is not told again", VERSION_MOST)
    selector = _text("in the language of policies", MAX_LENGTH)
    name = {**_text("of a port", PORT_NAME_MOST), "minLength": 1}
    selectors = _object({"selector": selector, "version": version}, ["selector"])
    ports = _object({"name": name, "selector": selector, "version": version}, ["name"])
    return _object(
        {
            "selectors": {**_list(selectors, "what to follow"), "maxItems": SUBJECTS_MOST},
            "ports": {
                **_list(ports, "names of ports"),
                "maxItems": SUBJECTS_MOST,
            },
        },
        [],
    )


def _line() -> Schema:
    entries = "an address, a prefix, or ADDRESS,PROTOCOL:PORT of a port"
    kind = {"type": "string", "enum": ["WHOLE", "DELTA", "BOOKMARK", "HEARTBEAT"]}
    return _object(
        {
            "type": {**kind, "description": "what the line says"},
            "selector": _text("what it is about"),
            "port": _text("of a port: its name"),
            "version": _text("names what the selector stands for now"),
            "revision": _text("of the store"),
            "add": _list({"type": "string"}, entries),
            "remove": _list({"type": "string"}, entries),
        },
        ["type"],
    )


def _text(said: str, most: int | None = None) -> Schema:
    return {"type": "string", "description": said, **({"maxLength": most} if most else {})}


def _list(items: Schema, said: str) -> Schema:
    return {"type": "array", "items": items, "description": said}


def _object(properties: Schema, required: list[str]) -> Schema:
    held: Schema = {"type": "object", "properties": properties}
    return held | ({"required": required} if required else {})
