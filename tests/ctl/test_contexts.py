"""kubeconfig files: merged as kubectl merges them, written without losing anything."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kubectls import NAMES, kubectl

from api.auth import kubeconfig
from api.auth.ca import ensure
from api.resources.errors import ConfigError
from routed.ctl import contexts
from routed.ctl.connection import Connection
from routed.ctl.contexts import Entry, Kubeconfig, NoContext, places
from routed.ctl.execplugin import PluginFailed

CA = base64.b64encode(b"the CA").decode()
FIRST = """
apiVersion: v1
kind: Config
preferences: {colors: true}
current-context: ""
clusters:
- {name: c1, cluster: {server: "https://one:1", certificate-authority-data: %(ca)s}}
users:
- {name: u, user: {token: first}}
contexts:
- {name: x1, context: {cluster: c1, user: u, namespace: kept}}
"""
SECOND = """
apiVersion: v1
kind: Config
current-context: x2
clusters:
- {name: c1, cluster: {server: "https://hidden:1", certificate-authority-data: %(ca)s}}
- {name: c2, cluster: {server: "https://two:2", certificate-authority: ca.crt}}
users:
- {name: u, user: {token: second}}
- {name: files, user: {client-certificate: pem/u.crt, client-key: pem/u.key}}
- {name: said, user: {tokenFile: token}}
contexts:
- {name: x2, context: {cluster: c2, user: u}}
- {name: x3, context: {cluster: c2, user: files}}
- {name: x4, context: {cluster: c2, user: said}}
"""


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "first", tmp_path / "deep" / "second"]
    (tmp_path / "deep" / "pem").mkdir(parents=True)
    for name in ("ca.crt", "pem/u.crt", "pem/u.key"):
        (tmp_path / "deep" / name).write_text(f"in {name}")
    (tmp_path / "deep" / "token").write_text("out of a file\n")
    for path, text in zip(paths, (FIRST, SECOND), strict=True):
        path.write_text(text % {"ca": CA})
        path.chmod(0o600)
    return paths


def access(paths: list[Path], name: str = "") -> kubeconfig.Access:
    files = Kubeconfig(paths)
    files.context(name)
    return kubeconfig.access_of(files.whole, name, files.source)


def test_the_first_that_says_something_counts(two: list[Path]) -> None:
    found = access([two[0], two[0].with_name("missing"), two[1]])
    assert (found.server, found.ca, found.token) == ("https://two:2", b"in ca.crt", "first")
    assert access(two, "x1").server == "https://one:1"
    assert access(two[::-1], "x1").server == "https://hidden:1"
    assert access(two[::-1]).token == "second"


def test_paths_are_relative_to_the_file_that_has_them(two: list[Path]) -> None:
    found = access(two, "x3")
    assert (found.certificate, found.key) == (b"in pem/u.crt", b"in pem/u.key")
    assert access(two, "x4").token == "out of a file"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turned", [False, True])
def test_kubectl_merges_the_same(two: list[Path], name: str, turned: bool) -> None:
    program = kubectl(name)
    if isinstance(program, str):
        pytest.skip(program)
    paths = two[::-1] if turned else two
    said = subprocess.run(
        [program, "config", "view", "--raw", "-o", "json"],
        env={"KUBECONFIG": os.pathsep.join(map(str, paths)), "HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    theirs, ours = json.loads(said), Kubeconfig(paths).whole
    assert theirs["current-context"] == ours["current-context"]
    for plural, (inside, _) in kubeconfig.ENTRIES.items():
        by_name = {entry["name"]: entry[inside] for entry in theirs[plural]}
        mine = {entry["name"]: entry[inside] for entry in ours[plural]}
        assert set(by_name) == set(mine)
        for each, entry in by_name.items():
            for key, value in entry.items():
                assert Path(mine[each][key]) == (two[1].parent / value).resolve() or (
                    mine[each][key] == value
                ), (each, key)


def test_a_change_is_made_where_the_entry_is_and_the_rest_stays(two: list[Path]) -> None:
    files = Kubeconfig(two)
    files.change([Entry("users", "files", {"token": "new"}), Entry("contexts", "mine", {})], "mine")
    first, second = (yaml.safe_load(path.read_text()) for path in two)
    assert first["preferences"] == {"colors": True}
    assert first["contexts"][0]["context"]["namespace"] == "kept"
    assert [entry["name"] for entry in first["contexts"]] == ["x1", "mine"]
    assert [entry["name"] for entry in second["users"]] == ["u", "files", "said"]
    assert second["users"][1]["user"] == {"token": "new"}
    assert second["users"][2]["user"] == {"tokenFile": "token"}  # as it stood there
    assert files.whole["current-context"] == "mine"
    files.change([Entry("contexts", "mine"), Entry("users", "nobody")], "")
    assert "current-context" not in files.whole or not files.whole["current-context"]
    assert [path.stat().st_mode & 0o777 for path in two] == [0o600, 0o600]


def test_a_link_stays_a_link_and_a_new_file_is_for_its_owner(tmp_path: Path) -> None:
    link, real = tmp_path / "config", tmp_path / "real"
    real.write_text("{}")
    link.symlink_to(real)
    Kubeconfig([link]).change([Entry("users", "u", {"token": "t"})])
    assert link.is_symlink()
    assert "token: t" in real.read_text()
    new = tmp_path / "home" / ".kube" / "config"
    Kubeconfig([new]).change([Entry("users", "u", {"token": "t"})])
    assert new.stat().st_mode & 0o777 == 0o600
    assert new.parent.stat().st_mode & 0o777 == 0o700


def test_who_writes_at_the_same_time_is_not_overwritten(two: list[Path]) -> None:
    lock = two[0].with_name("first.lock")
    lock.touch()
    before = two[0].read_text()
    with pytest.raises(ConfigError, match="somebody is writing it"):
        Kubeconfig(two[:1]).change([], "x1")
    assert two[0].read_text() == before
    lock.unlink()
    files = Kubeconfig(two[:1])
    two[0].write_text(before.replace("namespace: kept", "namespace: written-meanwhile"))
    files.change([], "x1")
    assert "written-meanwhile" in two[0].read_text()
    assert not lock.exists()


def test_which_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "SYSTEM", tmp_path / "system")
    users = tmp_path / ".kube" / "config"
    assert places(Path("a"), [Path("b")], tmp_path) == [Path("a")]
    assert places(None, [Path("b"), Path("c")], tmp_path) == [Path("b"), Path("c")]
    assert places(None, [], tmp_path) == [users]
    (tmp_path / "system").touch()
    assert places(None, [], tmp_path) == [tmp_path / "system"]
    assert places(None, [], tmp_path, new=True) == [users]
    assert places(None, [], None) == [tmp_path / "system"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("server: ", "insecure-skip-tls-verify: true, server: ", "insecure-skip-tls-verify"),
        ("server: ", "proxy-url: http://p, server: ", "proxy-url"),
        ("{token: first}", "{username: u, password: p}", "username"),
        ("{token: first}", "{}", "lacks 'token'"),
        ("cluster: c1, user", "cluster: c9, user", "lacks 'c9'"),
        ("{token: first}", "{tokenFile: /no/such}", "cannot read /no/such"),
        ("certificate-authority-data: ", "certificate-authority-data: '*' #", "is no kubeconfig"),
        ("users:", "users: 7\nothers:", "is no kubeconfig"),
    ],
)
def test_what_we_cannot_do_is_said_not_passed_over(
    two: list[Path], old: str, new: str, says: str
) -> None:
    text = two[0].read_text()
    assert old in text
    two[0].write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=says.replace("*", "[*]")):
        access(two[:1], "x1")


def test_an_absent_context_is_named(two: list[Path]) -> None:
    with pytest.raises(NoContext, match="no context 'x9'; it has: x1, x2, x3, x4"):
        Kubeconfig(two).context("x9")
    with pytest.raises(NoContext, match="no current context"):
        Kubeconfig(two[:1]).context()
    with pytest.raises(NoContext, match="there is none"):
        Kubeconfig([two[0].with_name("missing")]).context()
    with pytest.raises(ConfigError, match="cannot read it"):
        Kubeconfig([two[0].with_name("missing")], must=True)


PLUGIN = """#!{python}
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential", info
assert info["spec"]["cluster"]["server"] == "https://one:1", info
assert "token" not in json.dumps(info), info
print(json.dumps({{"apiVersion": info["apiVersion"], "kind": "ExecCredential",
                  "status": {status}}}))
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def plugged(tmp_path: Path) -> Callable[..., Connection]:
    """A kubeconfig whose user is known by a program beside it."""

    def made(status: dict[str, Any], code: str = "0", **spec: Any) -> Connection:
        program = tmp_path / "bin" / "who"
        program.parent.mkdir(exist_ok=True)
        program.write_text(PLUGIN.format(python=sys.executable, status=repr(status)))
        program.chmod(0o755)
        execution = {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "bin/who",
            "args": ["--role", "x"], "env": [{"name": "CODE", "value": code}],
            "provideClusterInfo": True, "interactiveMode": "Never", **spec,
        }  # fmt: skip
        text = FIRST.replace("{token: first}", json.dumps({"exec": execution}))
        path = tmp_path / "config"
        path.write_text(text % {"ca": CA})
        return Connection(path, "x1")

    return made


def test_a_program_says_who_one_is(plugged: Callable[..., Connection], tmp_path: Path) -> None:
    assert plugged({"token": "out of it"}).access().token == "out of it"
    paths = ensure(tmp_path / "ca", ["localhost"]) if (tmp_path / "ca").mkdir() is None else None
    assert paths is not None
    pair = (paths.certificate.read_text(), paths.key.read_text())
    status = {"clientCertificateData": pair[0], "clientKeyData": pair[1]}
    found = plugged(status).access()
    assert (found.certificate.decode(), found.key.decode()) == pair
    assert not found.token


def test_a_program_that_gives_nothing_is_named(plugged: Callable[..., Connection]) -> None:
    with pytest.raises(PluginFailed, match=r"bin/who ended with 3"):
        plugged({"token": "t"}, "3").access()
    with pytest.raises(PluginFailed, match="no ExecCredential: lacks 'token'"):
        plugged({}).access()
    with pytest.raises(PluginFailed, match=r"cannot run nowhere-to-be-found: .*; install it so"):
        plugged({}, command="nowhere-to-be-found", installHint="install it so").access()
    with pytest.raises(PluginFailed, match="needs a terminal"):
        plugged({"token": "t"}, interactiveMode="Always").access()
    with pytest.raises(ConfigError, match="exec needs"):
        plugged({}, apiVersion="v0").access()
