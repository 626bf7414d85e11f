"""Unknown fields, as Kubernetes treats them: who says nothing is warned and the field is dropped,
Strict refuses, Ignore drops in silence. What is wrong is wrong in every mode."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.service import Service

from api.client import Client
from api.resources.decode import decode
from api.resources.errors import BadRequest
from api.resources.registry import by_kind

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "kinds"
SPEC = {"peerIP": "192.0.2.1", "asNumber": 65001}
MEDIA = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@pytest.fixture(scope="module")
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.http() as client:
        yield client


def write(
    admin: httpx.Client, how: str, query: dict[str, str], spec: dict[str, Any]
) -> httpx.Response:
    """Set `spec` of bgppeer `p` in one of the ways there are."""
    document = {"metadata": {"name": "p"}, "spec": {**SPEC, **spec}}
    if how == "create":
        admin.delete("/bgppeers/p")
        return admin.post("/bgppeers", json=document, params=query)
    held = admin.get("/bgppeers/p")
    if held.status_code == 404:
        held = admin.post("/bgppeers", json={**document, "spec": SPEC})
    if how == "replace":
        document["metadata"] = held.json()["metadata"]
        return admin.put("/bgppeers/p", json=document, params=query)
    change: Any = {"spec": spec} if how in ("merge", "strategic") else document
    if how == "json":
        change = [{"op": "add", "path": f"/spec/{k}", "value": v} for k, v in spec.items()]
    if how == "apply":
        query = {**query, "fieldManager": "me", "force": "true"}
    headers = {"content-type": MEDIA[how]}
    return admin.patch("/bgppeers/p", content=json.dumps(change), headers=headers, params=query)


WAYS = ["create", "replace", *MEDIA]


@pytest.mark.parametrize("how", WAYS)
def test_who_says_nothing_is_warned(admin: httpx.Client, how: str) -> None:
    answer = write(admin, how, {}, {"colour": "red", "holdTime": 30})
    assert answer.status_code in (200, 201), answer.text
    assert answer.headers.get_list("warning") == ['299 - "unknown field \\"spec.colour\\""']
    assert "colour" not in answer.text
    assert answer.json()["spec"]["holdTime"] == 30
    same = write(admin, how, {"fieldValidation": "Warn"}, {"colour": "red", "holdTime": 30})
    assert same.headers.get_list("warning") == answer.headers.get_list("warning")
    assert "warning" not in write(admin, how, {}, {"holdTime": 30}).headers


@pytest.mark.parametrize("how", WAYS)
def test_strict_refuses_and_ignore_is_silent(admin: httpx.Client, how: str) -> None:
    wanted = {"colour": "red", "holdTime": 60}
    strict = write(admin, how, {"fieldValidation": "Strict"}, wanted)
    assert (strict.status_code, strict.json()["reason"]) == (400, "BadRequest")
    assert 'unknown field "spec.colour"' in strict.json()["message"]
    silent = write(admin, how, {"fieldValidation": "Ignore"}, wanted)
    assert silent.status_code in (200, 201), silent.text
    assert "warning" not in silent.headers
    assert "colour" not in silent.text
    assert silent.json()["spec"]["holdTime"] == 60


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", ["", "Warn", "Ignore", "Strict"])
def test_what_is_wrong_is_wrong_in_every_mode(admin: httpx.Client, how: str, mode: str) -> None:
    query = {"fieldValidation": mode} if mode else {}
    before = write(admin, "create", {}, {}).json()
    answer = write(admin, how, query, {"colour": "red", "holdTime": "long"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid"), answer.text
    assert "spec.holdTime" in answer.text
    if how != "create":  # that begins anew
        assert admin.get("/bgppeers/p").json() == before
    assert write(admin, how, {"fieldValidation": "Maybe"}, {}).status_code == 400


def test_a_status_is_validated_alike(admin: httpx.Client) -> None:
    assert admin.post("/nodes", json={"metadata": {"name": "n"}}).status_code == 201
    headers = {"content-type": MEDIA["merge"]}
    change = json.dumps({"status": {"versions": {"a": "1"}, "mood": "good"}})
    answer = admin.patch("/nodes/n/status", content=change, headers=headers)
    assert answer.headers["warning"] == '299 - "unknown field \\"status.mood\\""'
    held = {"addresses": [], "conditions": [], "versions": {"a": "1"}}
    assert answer.json()["status"] == held
    strict = {"fieldValidation": "Strict"}
    answer = admin.patch("/nodes/n/status", content=change, headers=headers, params=strict)
    assert answer.status_code == 400


def odd(held: Any) -> Any:
    """`held` with a field that nobody knows in every object in it that has fields of a model."""
    if isinstance(held, list):
        return [odd(one) for one in held]
    if not isinstance(held, dict):
        return held
    return {"aQuirk": {"is": ["odd"]}, **{name: odd(value) for name, value in held.items()}}


def examples() -> list[Any]:
    texts = [path.read_text() for path in sorted(EXAMPLES.iterdir())]
    return [document for text in texts for document in yaml.safe_load_all(text)]


@pytest.mark.parametrize("document", examples(), ids=lambda one: str(one["kind"]))
def test_unknown_fields_at_every_depth_of_every_kind_are_dropped(document: Any) -> None:
    kind = by_kind(document["kind"])
    assert kind is not None
    strange = odd(document)
    for field in ("labels", "annotations"):
        if field in document["metadata"]:  # these are maps: every name is known
            strange["metadata"][field] = document["metadata"][field]
    before = copy.deepcopy(strange)
    told: list[str] = []
    assert decode(kind, strange, told) == decode(kind, document)
    assert strange == before, "what was sent stays as it is"
    assert len(told) == json.dumps(strange).count('"aQuirk"')
    assert {'unknown field "aQuirk"', 'unknown field "metadata.aQuirk"'} <= set(told)
    with pytest.raises(BadRequest, match="strict decoding error"):
        decode(kind, strange)


def test_names_of_python_are_none_on_the_wire(admin: httpx.Client) -> None:
    answer = write(admin, "create", {}, {"hold_time": 3})
    assert answer.headers["warning"] == '299 - "unknown field \\"spec.hold_time\\""'
    assert answer.json()["spec"]["holdTime"] == 9
    filters = {"import_v4": [{"action": "Reject", "colour": "red"}]}
    answer = admin.post("/bgpfilters", json={"metadata": {"name": "f"}, "spec": filters})
    assert answer.status_code == 201, answer.text
    assert answer.headers["warning"] == '299 - "unknown field \\"spec.import_v4\\""'


def test_warnings_are_headers_whatever_a_field_is_called(admin: httpx.Client) -> None:
    strange = {'a"b\\c': 1, "x\r\nset-cookie: y": 2, "größe": 3}
    answer = write(admin, "create", {}, strange)
    assert answer.status_code == 201, answer.text
    assert "set-cookie" not in answer.headers
    assert answer.headers.get_list("warning") == [
        '299 - "unknown field \\"spec.a\\"b\\\\c\\""',
        '299 - "unknown field \\"spec.x??set-cookie: y\\""',
        '299 - "unknown field \\"spec.gr??e\\""',
    ]
    many = write(admin, "create", {}, {f"field{n}": n for n in range(5000)})
    told = many.headers.get_list("warning")
    assert sum(map(len, told)) < 4096
    assert told[-1] == f'299 - "{5000 - len(told) + 1} more unknown field(s)"'


def test_our_own_client_is_strict_unless_told_otherwise(service: Service) -> None:
    document = {"metadata": {"name": "own"}, "spec": {**SPEC, "colour": "red"}}

    async def body() -> None:
        client = Client.from_kubeconfig(service.admin)
        try:
            with pytest.raises(BadRequest, match=r"spec\.colour"):
                await client.raw("POST", "/bgppeers", json=document)
            await client.raw("POST", "/bgppeers", json=document, validation="Ignore")
            change = json.dumps({"spec": {"colour": "blue"}})
            headers = {"content-type": MEDIA["merge"]}
            with pytest.raises(BadRequest, match=r"spec\.colour"):
                await client.raw("PATCH", "/bgppeers/own", content=change, headers=headers)
        finally:
            await client.close()

    asyncio.run(body())
