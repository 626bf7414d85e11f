"""What a PATCH makes of an object, by its media type. Pure, on documents.

Of the tags that a strategic merge patch goes by, our kinds have one: conditions are a map by their
`type` (Kubernetes API conventions, "Typical status properties"), so those that it does not name
stay. Everything else of it is a merge patch.
"""

from __future__ import annotations

import json
from typing import Any

import jsonpatch
import yaml
from jsonpointer import JsonPointerException

from api.resources.decode import parse_body
from api.resources.errors import BadRequest, Cause, Invalid
from api.resources.media import APPLY, JSON_PATCH, MERGE, STRATEGIC

Document = dict[str, Any]

YAML_MOST = 64 << 10  # bytes
OPERATIONS_MOST = 1000
COPIES_MOST = 8  # each may double the object
KNOWN = (JSON_PATCH, MERGE, STRATEGIC, APPLY)


def patched(media_type: str, held: Document, change: Any) -> Document:
    """`held` after `change`. BadRequest if the patch is none, Invalid if it does not apply."""
    if media_type == JSON_PATCH:
        return _json(held, change)
    if not isinstance(change, dict):
        raise BadRequest("cannot patch: a merge patch is an object")
    made: Document = merge(held, change)
    if media_type == STRATEGIC:
        before, named = _conditions(held), _conditions(change)
        if before is not None and named is not None:
            by_type = {one["type"]: merge(before.get(one["type"]), one) for one in named.values()}
            made["status"]["conditions"] = list({**before, **by_type}.values())
    return made


def _conditions(document: Document) -> Document | None:
    """By their type; None if there are none, or they are no such list."""
    status = document.get("status")
    found = status.get("conditions") if isinstance(status, dict) else None
    if not isinstance(found, list):
        return None
    try:
        by_type = {one["type"]: one for one in found}
    except (TypeError, KeyError):
        return None
    return by_type if len(by_type) == len(found) else None


def yaml_document(body: bytes) -> Any:
    """What is to be applied: JSON, or YAML without anchors. BadRequest."""
    try:
        return parse_body(body)
    except BadRequest:
        pass
    if len(body) > YAML_MOST:
        raise BadRequest(f"cannot read the request: YAML of more than {YAML_MOST} bytes; say JSON")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(body, yaml.CSafeLoader)):
            raise BadRequest("cannot read the request: YAML with anchors is not taken")
        document = yaml.load(body, yaml.CSafeLoader)
        return parse_body(json.dumps(document).encode())
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadRequest(f"cannot read the request: it is no YAML ({error})") from error


def merge(held: Any, change: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(change, dict):
        return change
    base = dict(held) if isinstance(held, dict) else {}
    for name, value in change.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = merge(base.get(name), value)
    return base


def _json(held: Document, change: Any) -> Document:
    """RFC 6902."""
    if not isinstance(change, list) or not all(isinstance(one, dict) for one in change):
        raise BadRequest("cannot patch: a JSON patch is a list of operations")
    copies = sum(one.get("op") == "copy" for one in change)
    if len(change) > OPERATIONS_MOST or copies > COPIES_MOST:
        raise BadRequest(
            f"cannot patch: at most {OPERATIONS_MOST} operations, of which {COPIES_MOST} copy"
        )
    try:
        made = jsonpatch.JsonPatch(change).apply(held)
    except jsonpatch.InvalidJsonPatch as error:
        raise BadRequest(f"cannot patch: it is no JSON patch ({error})") from error
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        said = f"the patch does not apply: {error}"
        raise Invalid(f"cannot patch: {said}", causes=[Cause("patch", said)]) from error
    if not isinstance(made, dict):
        raise BadRequest("cannot patch: what it makes is no object")
    return made
