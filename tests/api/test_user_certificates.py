"""People with certificates: the real programs on a real service."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.service import Service, running_service

from api.auth import bootstrap, ca, certificates, kubeconfig
from api.auth.certificates import Authority
from api.auth.identity import Identity
from api.auth.kubeconfig import Access
from api.client import Client, Unreachable, join
from api.resources.errors import Unauthorized


def ctl(config: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routed.ctl.main", "--kubeconfig", str(config), *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def done(config: Path, *words: str, given: str = "") -> str:
    ran = ctl(config, *words, given=given)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def person(service: Service, directory: Path, name: str, role: str) -> Path:
    """The kubeconfig of somebody with a certificate."""
    key, request = certificates.key_and_request()
    with service.http() as admin:
        body = {"request": request, "role": role}
        answer = admin.post(f"/users/{name}/certificate", json=body)
    assert answer.status_code == 201, answer.text
    access = replace(kubeconfig.read(service.admin), user=name, token="", key=key)
    access = replace(access, certificate=answer.json()["certificate"].encode())
    made = directory / f"{name}.kubeconfig"
    made.touch(0o600)
    made.write_text(kubeconfig.render(access))
    return made


def by_hand(service: Service, directory: Path, name: str, role: str) -> Path:
    """The same, as the documentation says."""
    key, made = directory / f"{name}.key", directory / f"{name}.kubeconfig"
    request = done(Path("none"), "user", "request", "--key", str(key))
    words = ["user", "certificate", name, "--role", role, "--request", "-"]
    signed = directory / f"{name}.signed"
    signed.write_text(done(service.admin, *words, given=request))
    accepting = ["user", "accept", str(signed), "--key", str(key), "--to", str(made)]
    done(Path("none"), *accepting)
    return made


def code(service: Service, access: Access, path: str = "/ippools") -> int:
    with service.http(access) as api:
        return api.get(path).status_code


def test_a_person_gets_a_certificate_for_a_key_that_stays_where_it_is(
    service: Service, tmp_path: Path
) -> None:
    made = by_hand(service, tmp_path, "ann", "viewer")
    key, signed = tmp_path / "ann.key", tmp_path / "ann.signed"
    assert (made.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o600, 0o600)
    access = kubeconfig.read(made)
    assert access.key == key.read_bytes()
    assert kubeconfig.read(signed).key == b"", "the administrator never had it"
    kept = b"".join(path.read_bytes() for path in service.directory.glob("routed.db*"))
    assert access.key not in kept
    life = certificates.life_of(access.certificate)
    assert life.expires - life.issued == 90 * 86_400
    with service.http(made) as api:
        assert api.get("/ippools").status_code == 200
        body = {"metadata": {"name": "p"}, "spec": {"cidr": "10.65.0.0/16"}}
        refused = api.post("/ippools", json=body)
        assert refused.status_code == 403
        assert "role viewer of ann" in refused.json()["message"]
    assert "ann: good until 20" in done(made, "user", "show")
    listed = done(service.admin, "token", "list")
    assert [line.split() for line in listed.splitlines() if "ann" in line] == [
        ["ann", "viewer", "0"]
    ]


def test_stock_kubectl_works_with_it(service: Service, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    made = person(service, tmp_path, "kube", "operator")
    kubectl = ["kubectl", "--kubeconfig", str(made), "--cache-dir", str(tmp_path / "cache")]

    def said(*words: str, given: str = "") -> str:
        ran = subprocess.run(
            [*kubectl, *words], input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    tier = {"apiVersion": "routed.dev/v1", "kind": "Tier", "metadata": {"name": "mine"}, "spec": {}}
    assert said("apply", "-f", "-", given=json.dumps(tier)) == "tier.routed.dev/mine created\n"
    assert said("get", "tiers.routed.dev", "-o", "name") == "tier.routed.dev/mine\n"
    assert said("auth", "can-i", "delete", "tiers.routed.dev") == "yes\n"
    assert said("delete", "tiers.routed.dev", "mine").startswith('tier.routed.dev "mine" deleted')


def test_its_holder_renews_it_in_place_and_revoking_ends_all(
    service: Service, tmp_path: Path
) -> None:
    made = person(service, tmp_path, "bea", "viewer")
    first = kubeconfig.read(made)
    assert "bea: good until 20" in done(made, "user", "renew")
    second = kubeconfig.read(made)
    assert made.stat().st_mode & 0o777 == 0o600
    assert (second.key == first.key, second.certificate == first.certificate) == (False, False)
    assert [code(service, one) for one in (first, second)] == [200, 200], "the same identity"
    with service.http(second) as api:
        query = {"watch": "1", "allowWatchBookmarks": "1"}
        with api.stream("GET", "/ippools", params=query) as answer:
            lines = answer.iter_lines()
            while "BOOKMARK" not in next(lines):
                pass
            done(service.admin, "token", "revoke", "--user", "bea")
            assert [line for line in lines if "BOOKMARK" not in line] == []
    assert [code(service, one) for one in (first, second)] == [401, 401]
    refused = ctl(made, "user", "renew")
    assert refused.returncode == 1
    assert "not valid any more" in refused.stderr
    assert kubeconfig.read(made) == second, "nothing is lost by trying"


def test_what_is_made_later_ends_what_was_before(service: Service, tmp_path: Path) -> None:
    first = kubeconfig.read(person(service, tmp_path, "cal", "viewer"))
    words = ["token", "create", "--user", "cal", "--role", "viewer", "--to"]
    done(service.admin, *words, str(tmp_path / "token"))
    token = kubeconfig.read(tmp_path / "token")
    assert (code(service, first), code(service, token)) == (401, 200)
    second = kubeconfig.read(person(service, tmp_path, "cal", "operator"))
    assert (code(service, token), code(service, second)) == (401, 200)


def test_rights_come_from_the_store_and_not_from_the_certificate(
    service: Service, tmp_path: Path
) -> None:
    """Whatever our own CA has signed: its group has to be that of the identity it is of."""
    access = kubeconfig.read(person(service, tmp_path, "dan", "viewer"))
    ours = ca.Certificates(*(service.directory / name for name in ("ca.crt", "ca.key", "x", "x")))
    authority = Authority(*ca.authority(ours), 60)
    public = certificates.key_of_request(certificates.request_of(access.key))
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_pem_x509_certificate(access.certificate).subject
    uid = str(subject.get_attributes_for_oid(NameOID.USER_ID)[0].value)
    dan = Identity("dan", "viewer", "", uid)
    for identity, expected in (
        (dan, 200),
        (replace(dan, role="admin"), 401),
        (replace(dan, role="operator"), 401),
        (replace(dan, user="admin"), 401),
        (replace(dan, uid=""), 401),
    ):
        forged = replace(access, certificate=authority.sign(public, identity).encode())
        assert code(service, forged) == expected, identity
    assert (
        code(service, replace(access, certificate=authority.sign(public, dan).encode()), "/users")
        == 403
    )


def test_whose_certificate_it_is_that_is_renewed(service: Service, tmp_path: Path) -> None:
    """Everybody who is a person: his own, and nothing but the next of the same identity."""
    _, request = certificates.key_and_request()
    rule = {"kinds": ["Tier"], "verbs": ["get"]}
    with service.http() as admin:
        body = {"metadata": {"name": "blue"}, "spec": {"rules": [rule]}}
        assert admin.post("/roles", json=body).status_code == 201
        token = admin.post("/nodes/h1/bootstrap").json()["token"]
        node = asyncio.run(join(bootstrap.parse(token), "h1"))
        invited = admin.post("/nodes/h1/bootstrap").json()["token"]
        secret = bootstrap.parse(invited).secret

        def asked(api: httpx.Client, user: str, **more: str) -> int:
            body = {"request": request, **more}
            return api.post(f"/users/{user}/certificate", json=body).status_code

        for role in ("admin", "operator", "viewer", "blue"):
            with service.http(person(service, tmp_path, f"e-{role}", role)) as api:
                assert asked(api, f"e-{role}") == 201
                expected = 422 if role == "admin" else 403  # which role, for another?
                assert asked(api, "bea") == expected
                assert asked(api, f"e-{role}", role="admin") == (201 if role == "admin" else 403)
        for client in (service.http(node), service.http(token=secret)):
            with client as api:
                for user in ("h1", "system:node:h1", "e-viewer"):
                    assert asked(api, user) == 403, user
        with service.http(token="") as nobody:
            assert asked(nobody, "e-viewer") == 401
        with service.http(person(service, tmp_path, "e-gone", "blue")) as api:
            assert admin.delete("/roles/blue").status_code == 200
            assert asked(api, "e-gone") == 403, "whose role is gone may do nothing"
        for wrong in ("frog", "node", "bootstrap", ""):
            assert asked(admin, "someone", role=wrong) == 422


def test_a_request_and_a_key_have_to_fit(service: Service, tmp_path: Path) -> None:
    by_hand(service, tmp_path, "fay", "viewer")
    other, to = tmp_path / "other.key", tmp_path / "wrong"
    done(Path("none"), "user", "request", "--key", str(other))
    words = ["user", "accept", str(tmp_path / "fay.signed"), "--key", str(other), "--to", str(to)]
    ran = ctl(Path("none"), *words)
    assert (ran.returncode, to.exists()) == (2, False)
    assert "is of another key" in ran.stderr
    with service.http() as admin:
        answer = admin.post("/users/gil/certificate", json={"request": "x", "role": "viewer"})
        assert answer.status_code == 400
        assert "is no certificate request" in answer.json()["message"]
    assert "it has a token" in ctl(service.admin, "user", "renew").stderr
    again = [done(Path("none"), "user", "request", "--key", str(other)) for _ in range(2)]
    keys = [certificates.key_of_request(one) for one in again]
    assert keys[0] == keys[1], "a key that is there is kept"


def test_it_ends_when_it_says_so(tmp_path: Path) -> None:
    with running_service(tmp_path, userCertificateSeconds=10) as service:
        made = person(service, tmp_path, "hal", "viewer")
        access = kubeconfig.read(made)
        ends = certificates.life_of(access.certificate).expires

        async def renewed() -> bytes:
            client = Client(access)
            try:
                return await client.user_certificate("hal", certificates.key_and_request()[1])
            finally:
                await client.close()

        newer = replace(access, certificate=asyncio.run(renewed()))
        assert certificates.life_of(newer.certificate).expires >= ends
        with service.http(access) as api:
            query = {"watch": "1", "allowWatchBookmarks": "1"}
            with api.stream("GET", "/ippools", params=query) as answer:
                for _ in answer.iter_lines():
                    assert time.time() < ends + 3
            assert ends - 0.5 < time.time() < ends + 3
            deadline = time.monotonic() + 5
            while api.get("/ippools").status_code != 401:
                assert time.monotonic() < deadline
        with pytest.raises((Unauthorized, Unreachable)):  # TLS itself refuses what has ended
            asyncio.run(renewed())
