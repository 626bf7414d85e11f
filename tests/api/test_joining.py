"""How a host becomes a node, and what ends that: the real programs on a real service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service import Service

from api.auth import bootstrap, ca, certificates, kubeconfig
from api.auth.bootstrap import Bootstrap, Invitation
from api.auth.credentials import Credentials, Token
from api.auth.kubeconfig import Access
from api.client import Client, Unreachable, join
from api.resources.errors import ConfigError, Forbidden, Unauthorized


def run(module: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def invite(service: Service, node: str, **body: Any) -> Invitation:
    with service.http() as admin:
        made = admin.post(f"/nodes/{node}/bootstrap", json=body)
    assert made.status_code == 201, made.text
    return bootstrap.parse(made.json()["token"])


def joined(service: Service, node: str) -> Access:
    return asyncio.run(join(invite(service, node), node))


def register(service: Service, access: Access, node: str) -> None:
    with service.http(access) as api:
        assert api.post("/nodes", json={"metadata": {"name": node}}).status_code == 201


def test_one_command_on_the_host_and_stock_kubectl_reads_what_it_wrote(
    service: Service, tmp_path: Path
) -> None:
    ctl = ["--kubeconfig", str(service.admin), "token", "create", "--node", "j1"]
    printed = run("routed.ctl.main", *ctl)
    assert printed.returncode == 0, printed.stderr
    config = tmp_path / "etc" / "node.kubeconfig"
    words = ["join", "--node", "j1", "--kubeconfig", str(config)]
    done = run("routed.main", *words, given=printed.stdout)
    assert done.returncode == 0, done.stderr
    assert "node j1 has joined https://127.0.0.1:" in done.stdout
    assert config.stat().st_mode & 0o777 == 0o600
    register(service, kubeconfig.read(config), "j1")
    again = run("routed.main", *words, given=printed.stdout)
    assert again.returncode == 1
    assert "has been used already, at 20" in again.stderr
    assert printed.stdout.partition(".")[0] not in again.stderr
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    kubectl = [
        "kubectl",
        "--kubeconfig",
        str(config),
        "get",
        "nodes.routed.dev",
        "j1",
        "-o",
        "name",
    ]
    said = subprocess.run(kubectl, capture_output=True, text=True, timeout=30, check=False)
    assert said.stdout == "node.routed.dev/j1\n", said.stderr


def test_the_token_comes_from_a_file_of_its_owner_or_stdin(
    service: Service, tmp_path: Path
) -> None:
    token, config = tmp_path / "token", tmp_path / "node.kubeconfig"
    ctl = ["--kubeconfig", str(service.admin), "token", "create", "--node", "j2"]
    assert run("routed.ctl.main", *ctl, "--to", str(token)).returncode == 0
    assert token.stat().st_mode & 0o777 == 0o600
    words = ["join", "--node", "j2", "--kubeconfig", str(config), "--token-file", str(token)]
    token.chmod(0o640)
    open_to_others = run("routed.main", *words)
    assert open_to_others.returncode == 2
    assert "has mode 0640" in open_to_others.stderr
    token.chmod(0o600)
    assert run("routed.main", *words).returncode == 0
    argument = run("routed.main", "join", token.read_text().strip())
    assert argument.returncode == 2
    nonsense = run("routed.main", *words[:-2], given="rtb-abc\n")
    assert nonsense.returncode == 2
    assert "bootstrap token" in nonsense.stderr
    assert "rtb-abc" not in nonsense.stderr


def test_only_the_hash_is_kept(service: Service) -> None:
    invitation, access = invite(service, "j3"), joined(service, "j4")
    kept = b"".join(path.read_bytes() for path in service.directory.glob("routed.db*"))
    assert bootstrap.Bootstrap("", "j3", 0.0).node.encode() in kept, "it looks at the right files"
    assert invitation.secret.encode() not in kept
    assert access.key not in kept


@pytest.mark.parametrize("asked", [901, 0, -1, "900", True, 1e9])
def test_nobody_gets_a_long_token(service: Service, asked: object) -> None:
    with service.http() as admin:
        answer = admin.post("/nodes/j5/bootstrap", json={"ttlSeconds": asked})
    assert answer.status_code == 422
    assert "must be 1 to 900 seconds" in answer.json()["message"]
    words = ["--kubeconfig", str(service.admin), "token", "create", "--node", "j5", "--ttl", "16m"]
    assert "must be 1 to 900 seconds, not 960" in run("routed.ctl.main", *words).stderr


def test_an_expired_token_is_refused(service: Service) -> None:
    invitation = invite(service, "j6", ttlSeconds=1)
    until = time.time() + 1.05
    while time.time() < until:
        time.sleep(0.05)
    with pytest.raises(Unauthorized, match="of node j6 expired at 20"):
        asyncio.run(join(invitation, "j6"))


def test_a_token_is_for_one_node_and_for_joining_alone(service: Service) -> None:
    invitation = invite(service, "j7")
    with pytest.raises(Forbidden, match="cannot join as node j8: this bootstrap token is for node"):
        asyncio.run(join(invitation, "j8"))
    with service.http(token=invitation.secret) as api:
        for answer in (api.get("/nodes"), api.get("/nodes/j7"), api.post("/nodes", json={})):
            assert answer.status_code == 403
    asyncio.run(join(invitation, "j7"))
    unknown = replace(invitation, secret=bootstrap.new_secret())
    with pytest.raises(Unauthorized, match="is not known here"):
        asyncio.run(join(unknown, "j7"))


def test_a_newer_token_takes_the_place_of_the_one_before(service: Service) -> None:
    first, second = invite(service, "j9"), invite(service, "j9")
    with pytest.raises(Unauthorized, match="is not known here"):
        asyncio.run(join(first, "j9"))
    asyncio.run(join(second, "j9"))


def test_of_many_at_once_one_joins(service: Service) -> None:
    """Using it is one commit: whoever comes second finds it used."""
    _, request = certificates.key_and_request()

    async def race(secret: str) -> list[int]:
        access = replace(kubeconfig.read(service.admin), token=secret)
        clients = [Client(access) for _ in range(12)]
        try:
            outcomes = await asyncio.gather(
                *(client.certificate("race", request) for client in clients),
                return_exceptions=True,
            )
        finally:
            for client in clients:
                await client.close()
        assert all(isinstance(one, bytes | Unauthorized) for one in outcomes), outcomes
        return [1 for one in outcomes if isinstance(one, bytes)]

    for _ in range(5):
        assert asyncio.run(race(invite(service, "race").secret)) == [1]


def test_of_many_credentials_made_at_once_one_is_good(service: Service) -> None:
    async def made(path: str) -> list[str]:
        client = Client.from_kubeconfig(service.admin)
        try:
            return await asyncio.gather(
                *(client.credentials(path, {"role": "viewer"}) for _ in range(8))
            )
        finally:
            await client.close()

    for path in ("nodes/many", "users/many"):
        codes = []
        for text in asyncio.run(made(path)):
            token = text.partition("token: ")[2].split()[0]
            with service.http(token=token) as api:
                codes.append(api.get("/ippools").status_code)
        assert sorted(codes) == [200, *[401] * 7]


def test_joining_again_keeps_the_node_and_its_blocks(service: Service) -> None:
    first = joined(service, "again")
    register(service, first, "again")
    with service.http() as admin:
        admin.post("/ippools", json={"metadata": {"name": "j"}, "spec": {"cidr": "10.99.0.0/24"}})
    claim = {"spec": {"node": "again", "pool": "j"}}
    with service.http(first) as api:
        block = api.post("/ipblocks", json=claim).json()
        node = api.get("/nodes/again").json()
    second = joined(service, "again")
    with service.http(first) as api:
        refused = api.get("/nodes/again")
        assert refused.status_code == 401
        assert "has joined anew since" in refused.json()["message"]
    with service.http(second) as api:
        assert api.get("/nodes/again").json() == node
        assert api.get("/ipblocks").json()["items"] == [block]
        assert api.delete(f"/ipblocks/{block['metadata']['name']}").status_code == 200


def test_a_deleted_node_is_nobody_and_its_watches_end(service: Service) -> None:
    access = joined(service, "gone")
    register(service, access, "gone")
    pending = invite(service, "gone")
    with service.http() as admin:
        bearer = admin.post("/nodes/gone/credentials").text.partition("token: ")[2].split()[0]
    access, pending = joined(service, "gone"), invite(service, "gone")
    with service.http() as admin, service.http(access) as api:
        with api.stream("GET", "/ippools", params={"watch": "1", "allowWatchBookmarks": "1"}) as w:
            lines = w.iter_lines()
            while "BOOKMARK" not in next(lines):
                pass
            began = time.monotonic()
            assert admin.delete("/nodes/gone").status_code == 200
            for line in lines:
                assert "BOOKMARK" in line
            assert time.monotonic() - began < 3
        assert api.get("/ippools").status_code == 401
    with service.http(token=bearer) as api:
        assert api.get("/ippools").status_code == 401
    with pytest.raises(Unauthorized, match="is not known here"):
        asyncio.run(join(pending, "gone"))


def test_revoked_is_at_once(service: Service) -> None:
    access = joined(service, "revoked")
    words = ["--kubeconfig", str(service.admin), "token"]
    with service.http(access) as api:
        assert api.get("/ippools").status_code == 200
        assert "revoked" in run("routed.ctl.main", *words, "list").stdout
        assert run("routed.ctl.main", *words, "revoke", "--node", "revoked").returncode == 0
        assert api.get("/ippools").status_code == 401
    again = run("routed.ctl.main", *words, "revoke", "--node", "revoked")
    assert again.returncode == 1
    assert "has no credentials" in again.stderr


def test_a_certificate_renews_itself_as_the_same_identity(service: Service) -> None:
    access = joined(service, "renews")
    key, request = certificates.key_and_request()

    async def renewed(node: str) -> Access:
        client = Client(access)
        try:
            return replace(access, certificate=await client.certificate(node, request), key=key)
        finally:
            await client.close()

    newer = asyncio.run(renewed("renews"))
    for one in (access, newer):
        with service.http(one) as api:
            assert api.get("/ippools").status_code == 200
    with pytest.raises(Forbidden):
        asyncio.run(renewed("other"))


def test_a_request_is_only_for_a_key_that_signed_it(service: Service) -> None:
    access, (_, good) = joined(service, "asks"), certificates.key_and_request()
    der = bytearray(base64.b64decode("".join(good.splitlines()[1:-1])))
    der[-1] ^= 1
    forged = "-----BEGIN CERTIFICATE REQUEST-----\n%s\n-----END CERTIFICATE REQUEST-----\n"
    with service.http(access) as api:
        for wrong in (None, 7, "", "x", forged % base64.b64encode(der).decode()):
            answer = api.post("/nodes/asks/certificate", json={"request": wrong})
            assert answer.status_code == 400, wrong
            assert "cannot sign: request is no certificate request" in answer.json()["message"]


def test_a_node_with_a_long_name(service: Service) -> None:
    """Longer than a common name may be: the identity is known by its uid."""
    name = ".".join(["a" * 60] * 4)
    access = joined(service, name)
    register(service, access, name)
    other = joined(service, name[:-1] + "b")
    with service.http(other) as api:
        assert api.get(f"/nodes/{name}").status_code == 403


def test_certificates_of_others_are_nobodys(service: Service, tmp_path: Path) -> None:
    """Of another CA: TLS ends. Of ours but for no identity that there is: 401."""
    access = joined(service, "real")
    made = ca.ensure(tmp_path, ["localhost"])
    key, request = certificates.key_and_request()
    public = certificates.key_of_request(request)
    real = next(item for item in _identities(service) if item["user"] == "system:node:real")
    from api.auth.identity import of_document

    identity = of_document(real)
    foreign = certificates.Authority(*ca.authority(made), 60).sign(public, identity)
    stolen = replace(access, certificate=foreign.encode(), key=key)
    with service.http(stolen) as api, pytest.raises(httpx.HTTPError):
        api.get("/ippools")
    ours = ca.Certificates(*(service.directory / name for name in ("ca.crt", "ca.key", "x", "x")))
    authority = certificates.Authority(*ca.authority(ours), 60)
    for other in (
        replace(identity, uid="0" * 32),
        replace(identity, user="system:node:other"),
        replace(identity, role="admin"),
    ):
        wrong = replace(access, certificate=authority.sign(public, other).encode(), key=key)
        with service.http(wrong) as api:
            assert api.get("/ippools").status_code == 401
    right = replace(access, certificate=authority.sign(public, identity).encode(), key=key)
    with service.http(right) as api:
        assert api.get("/ippools").status_code == 200
    servers = replace(
        access,
        certificate=(service.directory / "server.crt").read_bytes(),
        key=(service.directory / "server.key").read_bytes(),
    )
    with service.http(servers) as api, pytest.raises(httpx.HTTPError):
        api.get("/ippools")


def _identities(service: Service) -> list[dict[str, Any]]:
    import sqlite3

    with contextlib.closing(sqlite3.connect(service.directory / "routed.db")) as database:
        rows = database.execute(
            "SELECT l.value FROM head h JOIN log l USING (rev) WHERE h.key LIKE '/identities/%'"
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


@contextlib.contextmanager
def in_between(directory: Path, answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server that answers everything with `answer`; what was said to it."""
    made = ca.ensure(directory, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    heard: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as one:
                heard.append(one.recv(65_536))
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                one.sendall(head % len(answer) + answer)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", heard
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        serving.join(10)


def test_whoever_is_in_between_hears_no_secret(service: Service, tmp_path: Path) -> None:
    invitation = invite(service, "careful")
    theirs = ca.ensure(tmp_path, ["127.0.0.1"]).ca.read_bytes()
    ours = (service.directory / "ca.crt").read_bytes()
    for answer, error in (
        (theirs, ConfigError),
        (ours, Unreachable),
        (ours + theirs, Unreachable),
        (theirs + ours, ConfigError),
        (b"no certificate", Unreachable),
        (b"x" * (1 << 20), Unreachable),
    ):
        with in_between(tmp_path, answer) as (url, heard), pytest.raises(error) as caught:
            asyncio.run(join(invitation, "careful", url))
        assert b"GET /ca.crt" in heard[0], "it was asked"
        assert invitation.secret.encode() not in b"".join(heard)
        if error is ConfigError:
            assert "somebody is in between" in str(caught.value)
    asyncio.run(join(invitation, "careful"))


def test_tokens_long_over_are_forgotten_and_the_index_is_what_the_store_says() -> None:
    """What was told change by change, and what is read anew, know the same."""
    known, anew, now = Credentials(), Credentials(), 1e9
    held = {f"h{n}": Bootstrap("", f"n{n % 5}", now - n * 3600) for n in range(90)}
    for name, one in held.items():
        known.put("bootstraps", name, one)
        known.put("tokens", name, Token(f"u{one.node}", "uid"))
    assert known.bootstraps_of("n3") == sorted(n for n, one in held.items() if one.node == "n3")
    over = known.long_over(now)
    assert len(over) == 50
    assert all(held[name].expires < now - bootstrap.KEPT_SECONDS for name in over)
    for name in over:
        known.put("bootstraps", name, None)
        known.put("tokens", name, None)
    for name in sorted(held.keys() - set(over), reverse=True):
        anew.put("bootstraps", name, held[name])
        anew.put("tokens", name, Token(f"u{held[name].node}", "uid"))
    assert known == anew
    assert len(known.long_over(now)) == 15
    assert known.tokens_of("un1") == known.bootstraps_of("n1") != []
