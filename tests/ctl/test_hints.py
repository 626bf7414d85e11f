"""An error says what to do next, by commands that exist."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ctl import Ctl, ok

from api.client import Unreachable
from api.resources.errors import Cause, Conflict, Forbidden, NotFound, Unauthorized
from routed.ctl import completion, help
from routed.ctl.contexts import NoContext
from routed.ctl.execplugin import PluginFailed
from routed.ctl.hints import hints
from routed.ctl.local import AgentForbidden, AgentUnreachable
from routed.ctl.reading import TimedOut
from routed.ctl.targets import NothingFound, UnknownKind

ROOT = completion.root()
TAKEN = Cause("spec.x", "conflict", "FieldManagerConflict")
ERRORS = {
    "config get-contexts": NoContext("kubeconfig", [Cause("", "there is none")]),
    "api-resources": UnknownKind("frog"),
    "get pool": UnknownKind("pol"),
    "api-resources ": NothingFound.of("say KIND"),
    "login": Unauthorized("cannot"),
    "auth whoami": Forbidden("cannot"),
    "auth can-i": Forbidden("cannot"),
    "get ippools": NotFound("not found", kind="IPPool", name="x"),
    "apply --server-side": Conflict("cannot", causes=[TAKEN]),
    "config view": Unreachable("cannot"),
    "config view ": PluginFailed("cannot"),
    "routed doctor": AgentUnreachable("cannot"),
    "adduser": AgentForbidden("cannot"),
    "--timeout": TimedOut("cannot"),
}


@pytest.mark.parametrize("wanted", ERRORS)
def test_every_error_that_has_a_next_step_says_it(wanted: str) -> None:
    said = "\n".join(hints(ERRORS[wanted]))
    assert wanted.strip() in said
    for words in re.findall(rf"{help.NAME} ([a-z-]+)(?: ([a-z-]+))?", said):
        command = ROOT.commands[words[0]]
        if hasattr(command, "commands"):
            assert words[1] in command.commands, words
    for option in re.findall(r"--[a-z][a-z-]+", said):
        assert option in KNOWN, option


def options() -> Iterator[str]:
    left = [ROOT]
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        for one in command.params:
            yield from one.opts


KNOWN = set(options())


def test_an_error_without_a_next_step_has_none() -> None:
    assert hints(Conflict("cannot drain")) == []
    assert hints(NotFound("not found", kind="Sheep", name="dolly")) == []


def test_they_are_said(ctl: Ctl, admin: Path, tmp_path: Path) -> None:
    path = tmp_path / "viewer"
    ok(ctl("token", "create", "--user", "eve", "--role", "viewer", "--to", str(path)))
    for words, code, says in (
        (["get", "pol"], 2, "did you mean 'pool'?\n  perhaps: routectl get pool\n"),
        (["gett", "pools"], 2, "Did you mean 'get'?"),
        (["get", "pool", "nosuch"], 1, "what there is: routectl get ippools"),
        (["--context", "other", "get", "pools"], 2, "no context 'other'; it has: routed"),
        (["--kubeconfig", str(path), "delete", "pool", "x"], 1, "routectl auth can-i --list"),
        (["-s", "https://127.0.0.1:1", "get", "pools"], 1, "systemctl status routed-server"),
        (["bgp", "status", "--agent", "/no/sock"], 1, "systemctl status routed-agent"),
    ):
        done = ctl(*words)
        assert done.returncode == code, done.stderr
        assert says in done.stderr, done.stderr
        assert done.stdout == ""
    ok(ctl("token", "revoke", "--user", "eve"))
    assert "routectl login SERVER" in ctl("--kubeconfig", str(path), "get", "pools").stderr


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Path]:
    """A socket that only its owner may use, in a directory that everybody may look into."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        for directory in (tmp_path, *tmp_path.parents):
            if directory.stat().st_uid == os.getuid() and len(directory.parts) > 2:
                directory.chmod(0o755)
        yield path


@pytest.mark.root
def test_a_socket_that_refuses_names_the_group(refusing: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    # once as root, so that all is imported that somebody else may not be able to read
    code = (
        "import sys, os, contextlib; sys.path[:0] = {path!r}\n"
        "from routed.ctl.main import main\n"
        "sys.argv[1:] = {words!r} + ['/nowhere/agent.sock']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "os.setgid(65534); os.setgroups([]); os.setuid(65534)\n"
        "sys.argv[-1] = {refusing!r}; main()\n"
    ).format(path=sys.path, words=["bgp", "status", "--agent"], refusing=str(refusing))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "for root and members of its group" in done.stderr
    assert "adduser NAME routed" in done.stderr
