"""What schemathesis is told about our document (its hooks file): a program of its own loads this.

Links say which operation uses what another has made, so that it also asks for what is gone. The
names of new objects are made good ones now and then, or hardly anything would ever be made.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import schemathesis

_number = count()


@schemathesis.hook
def before_load_schema(context: Any, schema: dict[str, Any]) -> None:
    made = {"name": "$response.body#/metadata/name"}
    gone = {"name": "$request.path.name"}
    for item in schema["paths"].values():
        post, delete = item.get("post"), item.get("delete")
        if post is not None and "201" in post["responses"]:
            kind = post["operationId"].removeprefix("create")
            post["responses"]["201"]["links"] = {
                verb: {"operationId": f"{verb}{kind}", "parameters": made}
                for verb in ("read", "delete", "replace", "patch", "readStatusOf")
            }
        elif delete is not None:
            kind = delete["operationId"].removeprefix("delete")
            delete["responses"]["200"]["links"] = {
                "read": {"operationId": f"read{kind}", "parameters": gone}
            }


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if context.operation.method == "post" and isinstance(body, dict):
        metadata, number = body.get("metadata"), next(_number)
        if isinstance(metadata, dict) and number % 2:
            metadata["name"] = f"s{number}"
    return body


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A watch is a stream without end, which OpenAPI 3.0 has no word for (test_watches.py), and so
    are selections (test_selections.py)."""
    if case.path.endswith("/selections"):
        case.query = {**(case.query or {}), "timeoutSeconds": "1"}
    if case.query and str(case.query.get("watch")).lower() in ("true", "1"):
        case.query["watch"] = "false"
