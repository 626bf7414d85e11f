"""Bars on a terminal, and nothing of them anywhere else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from support.ctl import Ctl, ok
from support.shells import terminal

TIER = "kind: Tier\nmetadata: {name: bar-%s}\nspec: {order: 1}\n"
BAR = "━"


def words(admin: Path, *rest: str) -> list[str]:
    return [sys.executable, "-m", "routed.ctl.main", "--kubeconfig", str(admin), *rest]


def test_a_bar_on_stderr_where_that_is_a_terminal(admin: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "tiers.yaml", tmp_path / "out"
    path.write_text("---\n".join(TIER % number for number in range(5)))
    env = {**os.environ, "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    with (
        out.open("wb") as stdout,
        terminal(words(admin, "apply", "-f", str(path)), env, stdout=stdout.fileno()) as screen,
    ):
        shown = screen.rest()
        assert screen.child.wait(20) == 0
    assert "applying" in shown
    assert "5/5" in shown
    assert BAR in shown
    assert out.read_text().splitlines() == [f"tier.routed.dev/bar-{n} created" for n in range(5)]


def test_lines_do_not_run_into_the_bar(admin: Path, tmp_path: Path) -> None:
    """On a terminal that has both, every line begins where the bar was."""
    path = tmp_path / "tiers.yaml"
    path.write_text("---\n".join(TIER % number for number in range(5)))
    env = {**os.environ, "PYTHONUTF8": "1"}
    for verb, said in (("apply", "tier.routed.dev/bar-"), ("delete", "tier.routed.dev/bar-")):
        with terminal(words(admin, verb, "-f", str(path)), env) as screen:
            shown = screen.rest()
        assert BAR in shown
        for number in range(5):
            before, line, _ = shown.partition(f"{said}{number} ")
            assert line
            assert before.endswith(("\n", "\x1b[2K")), before[-80:]


def test_only_lines_where_it_is_not(ctl: Ctl, admin: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiers.yaml"
    path.write_text("---\n".join(TIER % number for number in range(5)))
    for rest in (
        ["apply", "-f", str(path)],
        ["diff", "-f", str(path)],
        ["wait", "-f", str(path), "--for", "create"],
        ["ipam", "check"],
        ["delete", "-f", str(path)],
    ):
        done = ctl(*rest)
        ok(done)
        assert done.stderr == "", rest


def test_no_bar_for_what_is_over_at_once(admin: Path, tmp_path: Path) -> None:
    path = tmp_path / "tier.yaml"
    path.write_text(TIER % "alone")
    with terminal(words(admin, "apply", "-f", str(path)), os.environ) as screen:
        shown = screen.rest()
    assert "tier.routed.dev/bar-alone created" in shown
    assert BAR not in shown
