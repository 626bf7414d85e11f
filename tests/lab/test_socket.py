"""Who may use the agent's socket: asked by processes that really are somebody else."""

from __future__ import annotations

import grp
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routed.agent.callers import Caller
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

NOBODY = 65_534
GROUP = "games"  # of every Debian, and nobody's primary one


@pytest.fixture
def reachable(lab: Lab) -> Iterator[Path]:
    """The socket of host1, its directories open to all: what is left is the socket itself."""
    path = lab.socket("host1")
    before = {one: one.stat().st_mode for one in (path.parent, path.parent.parent)}
    for one in before:
        one.chmod(0o755)
    yield path
    for one, mode in before.items():
        one.chmod(mode)


def restart(lab: Lab, settings: str) -> None:
    path = lab.directory / "host1" / "agent.yaml"
    path.write_text(settings)
    lab.agents["host1"].stop()
    lab.agents["host1"].start()


@pytest.fixture
def with_group(lab: Lab, reachable: Path) -> Iterator[int]:
    """The agent serves GROUP; its number."""
    before = (lab.directory / "host1" / "agent.yaml").read_text()
    reachable.parent.chmod(0o700)  # as a speaker makes it that was first
    restart(lab, f"{before}socketGroup: {GROUP}\n")
    wait_for("the agent being ready", lambda: lab.ready("host1"))
    yield grp.getgrnam(GROUP).gr_gid
    restart(lab, before)
    wait_for("the agent being ready", lambda: lab.ready("host1"))


Ask = Callable[..., str]


@pytest.fixture
def ask(reachable: Path) -> Ask:
    """The answer's code to somebody, or curl's word on why there is none."""

    def call(uid: int, group: int, *more: int) -> str:
        words = ["curl", "-sS", "--unix-socket", str(reachable), "-w", "\n%{http_code}"]
        done = subprocess.run(
            [*words, "http://agent/v1/status"],
            user=uid,
            group=group,
            extra_groups=more,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr

    return call


def test_root_and_members_of_the_group(reachable: Path, with_group: int, ask: Ask) -> None:
    found = reachable.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, 0, with_group)
    assert ask(0, 0) == "200"
    assert ask(NOBODY, with_group) == "200"
    assert ask(NOBODY, NOBODY, 12345, with_group) == "200"
    assert ask(NOBODY, NOBODY) not in ("200", "403"), "the file's mode keeps it out"


def test_the_kernel_is_asked_whatever_the_mode(
    reachable: Path, with_group: int, ask: Ask, lab: Lab
) -> None:
    reachable.chmod(0o666)
    assert ask(NOBODY, NOBODY) == "403"
    many = range(1000, 1255)
    assert ask(NOBODY, NOBODY, *many) == "403"
    assert ask(NOBODY, NOBODY, *many, with_group) == "200"
    assert ask(NOBODY, NOBODY, *many, 2000, with_group) == "403", "too many to look at"
    assert ask(with_group, NOBODY) == "403", "a user of that number is no member"
    assert ask(0, NOBODY) == "200"


def test_without_a_group_it_is_roots_alone(reachable: Path, ask: Ask, lab: Lab) -> None:
    try:
        group = grp.getgrnam("routed").gr_gid
    except KeyError:
        assert reachable.stat().st_mode & 0o777 == 0o600
        reachable.chmod(0o666)
        assert ask(NOBODY, NOBODY) == "403"
        reachable.chmod(0o600)
    else:
        assert reachable.stat().st_mode & 0o777 == 0o660
        assert ask(NOBODY, group) == "200"
    assert ask(0, 0) == "200"


def test_a_group_that_does_not_exist_is_said(lab: Lab) -> None:
    path = lab.directory / "host1" / "agent.yaml"
    before, agent = path.read_text(), lab.agents["host1"]
    try:
        restart(lab, f"{before}socketGroup: none-of-that-name\n")
        wait_for("the agent giving up", lambda: agent.pid is None)
        assert "socketGroup: there is no group 'none-of-that-name'" in agent.log.read_text()
    finally:
        restart(lab, before)
        wait_for("the agent being ready", lambda: lab.ready("host1"))


@pytest.mark.parametrize(
    ("caller", "group", "may"),
    [
        (Caller(1, 0, frozenset()), None, True),
        (Caller(1, 0, frozenset((5,))), 7, True),
        (Caller(1, 1000, frozenset((5,))), None, False),
        (Caller(1, 1000, frozenset((5,))), 7, False),
        (Caller(1, 1000, frozenset((5, 7))), 7, True),
        (Caller(1, 7, frozenset((5,))), 7, False),
    ],
)
def test_the_rule(caller: Caller, group: int | None, may: bool) -> None:
    assert caller.may(group) is may
