"""`kubectl routed ...`: the same program, started by the real kubectl."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.ctl import Ctl, ok
from support.kubectls import NAMES, kubectl, minor

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
POOL = "kind: IPPool\nmetadata: {name: plugged}\nspec: {cidr: 10.121.0.0/24}\n"
SCRIPTS = ("kubectl-routed", "kubectl_complete-routed")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the scripts that pyproject.toml names, as an installation has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in SCRIPTS:
        module, _, function = project["scripts"][name].partition(":")
        code = f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n"
        (directory / name).write_text(code)
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture(params=NAMES)
def plugin(request: pytest.FixtureRequest, programs: Path, admin: Path) -> Run:
    program = kubectl(request.param)
    if isinstance(program, str):
        pytest.skip(program)

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(admin),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        return subprocess.run(
            [program, *words], env=env, capture_output=True, text=True, input=stdin, timeout=60,
            check=False,
        )  # fmt: skip

    return run


def test_kubectl_finds_and_runs_it(plugin: Run, programs: Path) -> None:
    assert str(programs / "kubectl-routed") in ok(plugin("plugin", "list"))
    assert "plugged" in ok(plugin("routed", "apply", "-f", "-", stdin=POOL))
    assert "plugged 10.121.0.0/24" in ok(plugin("routed", "ipam", "show"))
    table = ok(plugin("routed", "get", "pool", "plugged", "--no-headers"))
    assert table.split()[:2] == ok(plugin("get", "pool", "plugged", "--no-headers")).split()[:2]
    refused = plugin("routed", "get", "pol")
    assert refused.returncode == 2
    assert "perhaps: kubectl routed get pool" in refused.stderr
    assert "Usage: kubectl routed drain" in ok(plugin("routed", "drain", "--help"))


def test_kubectl_completes_it(plugin: Run, ctl: Ctl) -> None:
    program = plugin("version", "--client").args[0]
    if minor(program) < 26:
        pytest.skip("kubectl asks plug-ins since 1.26")
    ok(ctl("apply", "-f", "-", stdin=POOL))
    said = ok(plugin("__complete", "routed", "get", "pool", "plug"))
    assert said.splitlines()[0] == "plugged"
    said = ok(plugin("__complete", "routed", "ipam", ""))
    assert [line.partition("\t")[0] for line in said.splitlines()][:3] == [
        "show", "check", "release",
    ]  # fmt: skip
