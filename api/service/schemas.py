"""The kinds' schemas as the clients of the Kubernetes API read them: OpenAPI 3.0, from the models.

Pure. What pydantic says is JSON Schema 2020-12, which is OpenAPI 3.1; kubectl knows 3.0 and 2.0, so
it is lowered: nothing may be null, a constant is an enumeration of one, a reference has no
neighbours, and unknown fields are refused without being said.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from api.resources.event import CORE_VERSION, EVENTS
from api.resources.meta import API_GROUP, API_VERSION
from api.resources.registry import KINDS, Kind

Schema = dict[str, Any]
VERSION = API_VERSION.partition("/")[2]
PREFIX = f"{'.'.join(reversed(API_GROUP.split('.')))}.{VERSION}."  # dev.routed.v1.
REF = "#/components/schemas/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."  # of what is not ours
DELETE_OPTIONS, STATUS = f"{META}DeleteOptions", f"{META}Status"
_DROPPED = {"title", "const", "anyOf", "$defs"}


def of(kind: Kind) -> str:
    """The name of the kind's schema."""
    return f"{PREFIX}{kind.kind}"


def reference(name: str) -> Schema:
    return {"$ref": f"{REF}{name}"}


def gvk(kind: str) -> dict[str, str]:
    """What ties an operation or a schema to a kind."""
    if kind in (EVENTS.kind, f"{EVENTS.kind}List"):
        return {"group": "", "kind": kind, "version": CORE_VERSION}
    return {"group": API_GROUP, "kind": kind, "version": VERSION}


@cache
def components() -> dict[str, Schema]:
    """Every schema by its name: the kinds, their lists, and what they are made of."""
    kinds = (*KINDS.values(), EVENTS)
    wanted = [(kind.model, "validation") for kind in kinds]
    _, whole = models_json_schema(wanted, by_alias=True, ref_template=f"{REF}{PREFIX}{{model}}")  # type: ignore[arg-type]
    found = {f"{PREFIX}{name}": lowered(held) for name, held in whole["$defs"].items()}
    for kind in kinds:
        held = found[of(kind)]
        held["x-kubernetes-group-version-kind"] = [gvk(kind.kind)]
        version = CORE_VERSION if kind is EVENTS else API_VERSION
        for name, said in (("apiVersion", version), ("kind", kind.kind)):
            held["properties"][name] = {"type": "string", "description": said, "enum": [said]}
        found[f"{of(kind)}List"] = _list(kind)
    metadata = found[f"{PREFIX}ObjectMeta"]
    del metadata["required"]  # a name can be made
    described = "The service makes a name that begins so, where there is none."
    metadata["properties"]["generateName"] = {"type": "string", "description": described}
    text: Schema = {"type": "string"}
    number: Schema = {"type": "integer", "format": "int32"}
    names = {"kind": text, "apiVersion": text}
    status = {**names, "status": text, "reason": text, "message": text, "code": number}
    none: Schema = {"nullable": True}
    versions = {name: {**text, **none} for name in ("uid", "resourceVersion")}
    options = {name: {**text, **none} for name in (*names, "propagationPolicy")}
    options["gracePeriodSeconds"] = {**number, **none, "format": "int64"}
    options["preconditions"] = {"type": "object", "properties": versions, **none}
    found[STATUS] = {"type": "object", "properties": status}
    found[DELETE_OPTIONS] = {"type": "object", "properties": options}
    return dict(sorted(found.items()))


def _list(kind: Kind) -> Schema:
    text = {"type": "string"}
    metadata = {"resourceVersion": text, "continue": text}
    return {
        "type": "object",
        "description": f"A list of {kind.kind} objects.",
        "required": ["items"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object", "properties": metadata},
            "items": {"type": "array", "items": reference(of(kind))},
        },
        "x-kubernetes-group-version-kind": [gvk(f"{kind.kind}List")],
    }


def lowered(held: Any) -> Any:
    """A schema of JSON Schema 2020-12 as one of OpenAPI 3.0."""
    if isinstance(held, list):
        return [lowered(one) for one in held]
    if not isinstance(held, dict):
        return held
    if "properties" in held and isinstance(held["properties"], dict):
        held = {**held, "properties": {k: lowered(v) for k, v in held["properties"].items()}}
    made: Schema = {
        key: value if key == "properties" else lowered(value)
        for key, value in held.items()
        if key not in _DROPPED
    }
    if "const" in held:
        made["enum"] = [held["const"]]
    if "anyOf" in held:
        made = {**_one_of(held["anyOf"]), **made}
    if isinstance(made.get("additionalProperties"), bool):
        del made["additionalProperties"]
    if made.get("default", 0) is None:
        del made["default"]
    if "$ref" in made and len(made) > 1:
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made


def _one_of(choices: list[Schema]) -> Schema:
    """Of several only what is common: null is left out, texts stay texts."""
    left = [lowered(one) for one in choices if one.get("type") != "null"]
    if len(left) == 1:
        return dict(left[0])
    types = {one.get("type") for one in left}
    return {"type": types.pop()} if len(types) == 1 and None not in types else {}
