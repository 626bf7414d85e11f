"""login and logout against a real service: what is believed, what is said, what is written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.ctl import Ctl, ok
from support.kubectls import kubectl
from support.shells import terminal

from api.auth import certificates, kubeconfig

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OTHERS = """
apiVersion: v1
kind: Config
clusters:
- {name: prod, cluster: {server: "https://prod:6443", extensions: [{name: x, extension: {y: 1}}]}}
users:
- {name: me, user: {token: of-prod}}
contexts:
- {name: prod, context: {cluster: prod, user: me}}
current-context: prod
"""


@pytest.fixture(scope="module")
def server(admin: Path) -> str:
    return kubeconfig.read(admin).server


@pytest.fixture(scope="module")
def pin(admin: Path) -> str:
    return certificates.pin(kubeconfig.read(admin).ca)


@pytest.fixture
def token(ctl: Ctl, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    ok(
        ctl(
            "token",
            "create",
            "--user",
            "carol",
            "--role",
            "viewer",
            "-o",
            "token",
            "--to",
            str(path),
        )
    )
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".kube" / "config"
    path.parent.mkdir(parents=True)
    path.write_text(OTHERS)
    return path


@pytest.fixture
def run(home: Path) -> Run:
    """routectl as a user with a home and no other settings."""

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "routed.ctl.main", *words], env=settings(home), input=stdin,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    return run


def settings(home: Path) -> dict[str, str]:
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    return {**paths, "HOME": str(home.parents[1])}


def test_a_context_is_written_beside_the_others(
    run: Run, home: Path, server: str, pin: str, token: Path
) -> None:
    said = ok(run("login", server, "--ca-pin", f"sha256:{pin}", "--token-file", str(token)))
    place = server.removeprefix("https://")
    assert f"as carol; context carol@{place} in {home}" in said
    assert home.stat().st_mode & 0o777 == 0o600
    held = yaml.safe_load(home.read_text())
    before = yaml.safe_load(OTHERS)
    for plural in ("clusters", "users", "contexts"):
        assert held[plural][0] == before[plural][0]
        assert len(held[plural]) == 2
    assert token.read_text().strip() not in said
    assert ok(run("get", "pools", "-o", "name")) == ""
    assert "carol" in ok(run("auth", "whoami"))
    program = kubectl("path")
    if not isinstance(program, str):
        words = [program, "get", "pools"]
        done = subprocess.run(
            words, env=settings(home), capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
    assert f"*         carol@{place}" in ok(run("config", "get-contexts"))
    shown = ok(run("config", "view"))
    assert token.read_text().strip() not in shown
    assert "of-prod" not in shown
    assert 'Switched to context "prod"' in ok(run("config", "use-context", "prod"))
    assert ok(run("config", "current-context")) == "prod\n"
    assert "carol" in ok(run("auth", "whoami", "--context", f"carol@{place}"))
    assert "token revoke" in ok(run("logout", f"carol@{place}"))
    assert yaml.safe_load(home.read_text()) == before


def test_a_token_on_stdin_and_a_known_server(
    run: Run, home: Path, server: str, pin: str, token: Path
) -> None:
    secret = token.read_text()
    ok(run("login", server, "--ca-pin", pin, "--name", "mine", stdin=secret))
    ok(run("login", server, "--name", "again", stdin=secret))  # its CA is known now
    assert ok(run("config", "get-contexts", "-o", "name")).split() == ["prod", "mine", "again"]
    ok(run("logout"))
    held = yaml.safe_load(home.read_text())
    assert [entry["name"] for entry in held["users"]] == ["me", f"carol@{server[8:]}"]
    assert held["current-context"] == ""
    ok(run("logout", "mine"))
    assert yaml.safe_load(home.read_text())["users"] == yaml.safe_load(OTHERS)["users"]


def test_nothing_is_written_of_what_is_not_believed(
    run: Run, home: Path, server: str, pin: str, token: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.crt"
    (tmp_path / "ca").mkdir()
    from api.auth.ca import ensure

    stranger.write_bytes(ensure(tmp_path / "ca", ["localhost"]).ca.read_bytes())
    open_file = tmp_path / "open"
    open_file.write_text(token.read_text())
    open_file.chmod(0o644)
    good = ["--ca-pin", pin, "--token-file", str(token)]
    for words, stdin, code, says in (
        (
            [server, "--ca-pin", "0" * 64],
            token.read_text(),
            2,
            "another service, or somebody",
        ),
        ([server, "--ca-pin", "x"], token.read_text(), 2, "64 hexadecimal digits"),
        ([server], token.read_text(), 2, "is not known yet"),
        ([server, "--certificate-authority", str(stranger)], token.read_text(), 1, "cannot reach"),
        ([server, "--ca-pin", pin, "--token-file", str(open_file)], "", 2, "chmod 0600"),
        ([server, "--ca-pin", pin], "rt-wrong\n", 1, "not valid"),
        ([server, "--ca-pin", pin], "\n", 2, "one word"),
        ([server.replace("https", "http"), *good], "", 2, "without TLS"),
        (["https://127.0.0.1:1", *good], "", 1, "cannot reach"),
        ([server, "--ca-pin", pin, "--token", "rt-x"], "", 2, "--token-file"),
    ):
        done = run("login", *words, stdin=stdin)
        assert done.returncode == code, (words, done.stderr)
        assert says in done.stderr, (words, done.stderr)
        assert token.read_text().strip() not in done.stderr
        assert home.read_text() == OTHERS, words


def test_on_a_terminal_it_asks(home: Path, server: str, pin: str, token: Path) -> None:
    words = [sys.executable, "-m", "routed.ctl.main", "login", server]
    with terminal(words, settings(home)) as screen:
        screen.until(f"sha256:{pin}")
        screen.until("[y/N]")
        screen.type("n\n")
        screen.until("Aborted")
        assert screen.child.wait(20) == 1
    assert home.read_text() == OTHERS
    with terminal(words, settings(home)) as screen:
        screen.until("[y/N]")
        screen.type("y\n")
        screen.until("Token: ")
        screen.type(token.read_text())
        shown = screen.until("logged in")
        assert token.read_text().strip() not in shown
        assert screen.child.wait(20) == 0


def test_a_server_and_a_token_file_are_enough(
    run: Run, home: Path, server: str, admin: Path, token: Path, tmp_path: Path
) -> None:
    home.unlink()
    ca = tmp_path / "ca.crt"
    ca.write_bytes(kubeconfig.read(admin).ca)
    words = ["-s", server, "--token-file", str(token), "--certificate-authority", str(ca)]
    assert "carol" in ok(run("auth", "whoami", *words))
    assert "cannot reach" in run("auth", "whoami", *words[:4]).stderr  # the system's CAs do not
    refused = run("get", "pools", "--insecure-skip-tls-verify", *words)
    assert refused.returncode == 2
    assert "--certificate-authority" in refused.stderr
