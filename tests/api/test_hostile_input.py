"""Whatever somebody sends: schemathesis asks a real service by its own OpenAPI document, as an
administrator, a viewer and a node. With ``--faults=full`` every combination that it knows of every
field, and longer.

All its checks but one are asked for. Not asked: `positive_data_acceptance`, as what is right is
more than a schema of OpenAPI 3.0 says (an address lies in its pool, a selector has a grammar, a
name is one of DNS): such requests are refused with 400 or 422, which the document has.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hostile
from support.service import Service, running_service

from api.auth import bootstrap, kubeconfig
from api.auth.kubeconfig import Access
from api.client import join
from api.service.openapi import BASE

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
ROLES = ("admin", "viewer", "node")
OPERATIONS = 150  # at least


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that lets one ask as often as he can."""
    rates = dict.fromkeys(("requestsPerSecond", "strangerRequestsPerSecond"), 100_000)
    bursts = dict.fromkeys(("requestBurst", "strangerRequestBurst"), 100_000)
    with running_service(tmp_path_factory.mktemp("hostile"), **rates, **bursts) as found:
        yield found


def access_of(service: Service, role: str) -> Access:
    with service.http() as admin:
        if role == "node":
            token = admin.post("/nodes/s1/bootstrap").json()["token"]
            return asyncio.run(join(bootstrap.parse(token), "s1"))
        if role == "viewer":
            path = service.directory / "viewer.kubeconfig"
            path.write_text(admin.post("/users/v/credentials", json={"role": "viewer"}).text)
            return kubeconfig.read(path)
    return kubeconfig.read(service.admin)


def configured(service: Service, access: Access, directory: Path) -> Path:
    """The settings of schemathesis: secrets are in files of its own, not in its arguments."""
    lines = [
        f"hooks = {json.dumps(str(Path(hostile.__file__).name))}",
        f"tls-verify = {json.dumps(str(service.directory / 'ca.crt'))}",
        "seed = 1",
        "color = false",
        "request-timeout = 20.0",
        "[cache]",
        "enabled = false",
    ]
    if access.token:
        lines.insert(0, f'headers = {{ Authorization = "Bearer {access.token}" }}')
    else:
        pair = directory / "client.pem"
        pair.touch(0o600)
        pair.write_bytes(access.certificate + b"\n" + access.key)
        lines.insert(0, f"request-cert = {json.dumps(str(pair))}")
    path = directory / "schemathesis.toml"
    path.touch(0o600)
    path.write_text("\n".join(lines))
    (directory / Path(hostile.__file__).name).write_text(Path(hostile.__file__).read_text())
    return path


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ROLES)
def test_nothing_that_is_sent_breaks_the_service_or_its_word(
    patient: Service, tmp_path: Path, role: str, full: bool
) -> None:
    access = access_of(patient, role)
    phases = "fuzzing,stateful" if role == "admin" else "fuzzing"
    ran = subprocess.run(
        [
            str(SCHEMATHESIS), "--config-file", str(configured(patient, access, tmp_path)),
            "run", f"{access.server}/openapi/v3{BASE}", "--url", access.server,
            "--checks", "all", "--exclude-checks", "positive_data_acceptance",
            "--phases", f"examples,coverage,{phases}" if full else phases,
            "--max-examples", "50" if full else "1",
            "--continue-on-failure", "--no-shrink", "--warnings", "off",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    log = (patient.directory / "log").read_text()
    assert "Traceback" not in log, log[-3000:]
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    generated = int(ran.stdout.partition("Test cases:")[2].split()[0])
    assert generated >= OPERATIONS, ran.stdout[-2000:]
    with patient.http() as admin:
        assert admin.get("/nodes").status_code == 200


@pytest.mark.parametrize("field", ["a\r\nx-evil: 1", 'q"\\', "é", "中", "\x00"])
def test_a_warning_is_one_line_whatever_the_field_is_called(patient: Service, field: str) -> None:
    body = {"metadata": {"name": "w"}, "spec": {}, field: 1}
    query = {"fieldValidation": "Warn", "dryRun": "All"}
    with patient.http() as admin:
        answer = admin.post("/tiers", json=body, params=query)
    assert answer.status_code == 201, answer.text
    assert "x-evil" not in answer.headers
    assert answer.headers["warning"].startswith('299 - "unknown field ')


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/nodes", "DELETE, GET, POST"),
        ("OPTIONS", "/nodes/a", "DELETE, GET, PATCH, PUT"),
        ("DELETE", "/nodes/a/status", "GET, PATCH, PUT"),
        ("GET", "/users/a/certificate", "POST"),
    ],
)
def test_a_method_that_a_path_does_not_know(
    patient: Service, method: str, path: str, allow: str
) -> None:
    with patient.http() as admin:
        answer = admin.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert (answer.json()["kind"], answer.json()["reason"]) == ("Status", "MethodNotAllowed")


@pytest.mark.parametrize(
    "query",
    [{"watch": "maybe"}, {"timeoutSeconds": "-1"}, {"resourceVersion": "x"}, {"limit": "1.5"}],
)
def test_parameters_are_of_their_type(patient: Service, query: dict[str, str]) -> None:
    with patient.http() as admin:
        answer = admin.get("/nodes", params=query)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert next(iter(query)) in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"preconditions": []}, {"preconditions": {"uid": 7}}, {"kind": 1}, {"dryRun": {}},
        {"preconditions": {"resourceVersion": {}}}, {"gracePeriodSeconds": "0"}, {"dryRun": [1]},
    ],
)  # fmt: skip
def test_options_of_a_deletion_are_of_their_type(patient: Service, body: dict[str, object]) -> None:
    with patient.http() as admin:
        for path in ("/tiers", "/tiers/none"):
            assert admin.request("DELETE", path, json=body).status_code == 400
