"""The audit log of a real service, and its file at its bounds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.service import Service, process

from api.auth.identity import Identity
from api.service.audit import AuditLog, Deed, Outcome
from routed.lab.processes import free_port


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.log").read_text().splitlines()]


def test_every_write_is_there_and_no_secret(service: Service) -> None:
    with service.http() as admin:
        body = {"metadata": {"name": "a"}, "spec": {"peerIP": "192.0.2.1", "asNumber": 65001}}
        made = admin.post("/bgppeers", json=body).json()
        admin.post("/bgppeers", json=body)
        status = admin.put("/bgppeers/a/status", json=made)
        made["spec"]["holdTime"] = 3
        changed = admin.put("/bgppeers/a", json=made).json()
        text = admin.post("/users/carol/credentials", json={"role": "viewer"}).text
        token = text.partition("token: ")[2].split()[0]
        bootstrap = admin.post("/nodes/n/bootstrap", json={}).json()["token"]
        with service.http(token=token) as carol:
            carol.delete("/bgppeers/a")
            carol.get("/bgppeers")
        with service.http(token="rt-stranger") as nobody:
            nobody.delete("/bgppeers/a")
        admin.delete("/bgppeers/a")
        port = admin.get("/bgppeers").request.url.port
    first, last = made["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]
    assert status.status_code == 200
    found = lines(service.directory)
    assert [
        (one["user"], one["verb"], one["resource"], one["name"], one["resourceVersion"],
         one["outcome"], one["code"]) for one in found
    ] == [
        ("admin", "create", "bgppeers", "a", first, "done", 201),
        ("admin", "create", "bgppeers", "a", "", "refused", 409),
        ("admin", "update", "bgppeers/status", "a", first, "done", 200),
        ("admin", "update", "bgppeers", "a", last, "done", 200),
        ("admin", "create", "users/credentials", "carol", "", "done", 201),
        ("admin", "create", "nodes/bootstrap", "n", "", "done", 201),
        ("carol", "delete", "bgppeers", "a", "", "forbidden", 403),
        ("admin", "delete", "bgppeers", "a", last, "done", 200),
    ]  # fmt: skip
    assert found[1]["reason"] == "AlreadyExists"
    assert found[6]["role"] == "viewer"
    assert all(one["source"].startswith("127.0.0.1 ") for one in found)
    assert f"127.0.0.1 {port}" not in [one["source"] for one in found], "the client's, not ours"
    assert all(one["time"].startswith("20") and one["time"].endswith("Z") for one in found)
    path = service.directory / "audit.log"
    assert path.stat().st_mode & 0o777 == 0o600
    for secret in (token, bootstrap.partition(".")[0]):
        assert secret not in path.read_text()


def test_a_dry_run_is_there_as_one_and_a_review_is_not(service: Service) -> None:
    """Whoever calls a write a dry run, or half so, hides nothing."""
    before = len(lines(service.directory))

    def body(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"peerIP": "192.0.2.1", "asNumber": 65001}}

    with service.http() as admin:
        made = admin.post("/bgppeers", json=body("dry"), params={"dryRun": "All"})
        assert made.status_code == 201
        assert admin.get("/bgppeers/dry").status_code == 404
        made = admin.post("/bgppeers", json=body("wet"), params={"dryRun": ""})
        assert made.status_code == 201
        assert admin.get("/bgppeers/wet").status_code == 200
        gone = admin.request("DELETE", "/bgppeers/wet", json={"dryRun": ["All"]})
        assert gone.status_code == 200
        refused = admin.post("/nodes/n/bootstrap", json={}, params={"dryRun": "All"})
        assert refused.status_code == 400
        root = str(admin.base_url).partition("/apis/")[0]
        asked = {"kind": "SelfSubjectAccessReview", "spec": {}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert admin.post(f"{root}{path}", json=asked).status_code == 201
        assert admin.delete("/bgppeers/wet").status_code == 200
    found = lines(service.directory)[before:]
    assert [(one["verb"], one["name"], one["dryRun"], one["code"]) for one in found] == [
        ("create", "dry", True, 201),
        ("create", "wet", False, 201),
        ("delete", "wet", True, 200),
        ("create", "n", True, 400),
        ("delete", "wet", False, 200),
    ]


def test_what_a_deletion_by_selector_deleted_has_a_line_each(service: Service) -> None:
    before = len(lines(service.directory))
    with service.http() as admin:
        for name, label in (("one", "x"), ("two", "x"), ("three", "y")):
            metadata = {"name": name, "labels": {"of": label}}
            peer = {"metadata": metadata, "spec": {"peerIP": "192.0.2.1", "asNumber": 65001}}
            assert admin.post("/bgppeers", json=peer).status_code == 201
        admin.delete("/bgppeers", params={"labelSelector": "of=x", "dryRun": "All"})
        admin.delete("/bgppeers", params={"labelSelector": "of=x"})
        admin.delete("/bgppeers", params={"labelSelector": "none=of"})
        admin.delete("/bgppeers/three")
    found = lines(service.directory)[before + 3 :]
    assert [(one["verb"], one["name"], one["dryRun"]) for one in found] == [
        ("deletecollection", "", True),
        ("delete", "one", False),
        ("delete", "two", False),
        ("deletecollection", "", False),
        ("deletecollection", "", False),
        ("delete", "three", False),
    ]
    assert all(one["resourceVersion"] for one in found if one["verb"] == "delete")


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    port, admin = free_port(), tmp_path / "data" / "admin.kubeconfig"
    settings = tmp_path / "server.yaml"
    settings.write_text("auditLog: false\n")
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(admin.parent)]
    words += ["--config", str(settings), "--listen", f"127.0.0.1:{port}"]
    with process(words, admin, port, tmp_path / "log") as pid:
        with Service(admin.parent, admin, pid).http() as api:
            assert api.post("/nodes", json={"metadata": {"name": "x"}}).status_code == 201
        assert not (admin.parent / "audit.log").exists()


def deed(name: str) -> Deed:
    who = Identity("u", "admin")
    return Deed(who, "create", "nodes", name, Outcome(201, "", name, "1"), "192.0.2.1 1")


def test_it_is_bounded_and_nothing_is_torn(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", most=2000, kept=2)
    for number in range(60):
        log.write(deed(f"n{number}"))
        if number == 30:
            log.close()
            log = AuditLog(tmp_path / "audit.log", most=2000, kept=2)  # a restart goes on
    log.close()
    paths = [tmp_path / name for name in ("audit.log.2", "audit.log.1", "audit.log")]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    names = []
    for path in paths:
        assert 0 < path.stat().st_size <= 2000
        assert path.stat().st_mode & 0o777 == 0o600
        names += [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert names == [f"n{number}" for number in range(60 - len(names), 60)]
    assert log.lost == 0


def test_a_line_that_could_not_be_written_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(tmp_path / "none" / "audit.log")
    log.write(deed("a"))
    log.write(deed("b"))
    assert log.lost == 2
    assert len(caplog.records) == 1
    (tmp_path / "none").mkdir()
    log.write(deed("c"))
    assert [one["name"] for one in lines(tmp_path / "none")] == ["c"]
    log.close()


def test_half_a_line_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that becomes full in the middle of one."""
    log, write = AuditLog(tmp_path / "audit.log"), os.write
    monkeypatch.setattr("api.lines.os.write", lambda fd, data: write(fd, data[:20]))
    log.write(deed("torn"))
    monkeypatch.undo()
    log.write(deed("whole"))
    log.close()
    assert log.lost == 1
    torn, whole = (tmp_path / "audit.log").read_text().splitlines()
    assert len(torn) == 20
    assert json.loads(whole)["name"] == "whole"
