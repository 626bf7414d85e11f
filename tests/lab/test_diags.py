"""`routectl diags` in a lab with planted secrets: what is in the archive, and what is not."""

from __future__ import annotations

import json
import tarfile

import pytest
from support.labs import Workloads

from api.auth import kubeconfig
from routed.ctl.diags import without_secrets
from routed.lab.fabric import inside
from routed.lab.lab import Lab

pytestmark = pytest.mark.lab

KEY = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"


def test_an_archive_without_secrets(lab: Lab, workloads: Workloads) -> None:
    _, address = workloads.attach("host1", "seen")
    home = lab.directory / "host1"
    secrets = [
        kubeconfig.read(lab.admin).token,
        kubeconfig.read(home / "node.kubeconfig").key.decode(),
    ]
    log = lab.directory / "planted.log"
    log.write_bytes(
        b"token=" + secrets[0].encode() + b"\nsaid " + secrets[1].encode() + b" once\n"
        b"password: hunter2-of-nobody\nAuthorization: Bearer abc.def\n" + KEY + b"\nkept line\n"
    )
    archive = lab.directory / "diags.tar.gz"
    words = lab.ctl("--kubeconfig", str(lab.admin), "diags", "--to", str(archive))
    words += ["--config", str(home / "agent.yaml"), "--log", str(log)]
    said = inside(f"{lab.top.name}-host1", *words, timeout=60)
    assert str(archive) in said
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        held = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        texts = {name: file.read() for name, file in held.items() if file is not None}
    whole = b"\n".join(texts.values())
    for secret in [*(one.encode() for one in secrets), b"hunter2", b"abc.def", b"MIGHAgEAMBM"]:
        assert secret not in whole
    assert b"kept line" in texts["routed-diags/files/planted.log"]
    attachments = json.loads(texts["routed-diags/agent/attachments.json"])["items"]
    assert address in attachments[0]["addresses"]
    assert address.encode() in texts["routed-diags/host/ip-route.txt"]
    assert b"chain antispoof" in texts["routed-diags/host/nft.txt"]
    workloads_held = json.loads(texts["routed-diags/objects/workloads.json"])
    assert "seen.host1" in [one["metadata"]["name"] for one in workloads_held]


def test_what_is_no_secret_stays() -> None:
    text = b'{"name": "web", "addresses": ["10.65.0.1"], "state": "Established"}'
    assert without_secrets(text, [b"never"]) == text
