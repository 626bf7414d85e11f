"""Every command of the README's section on real hosts, run as it stands there.

It runs in a network and a mount namespace of its own, with /run, /var/lib/routed and /etc/routed
as empty file systems, so that the machine's own are not touched.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("routed server", "routed speaker", "routed agent")
READY = {
    "routed server": "test -s /var/lib/routed/admin.kubeconfig && "
    "curl -sk --max-time 1 https://192.0.2.1:6780/readyz",
    "routed speaker": "test -S /run/routed/speaker.sock",
    "routed agent": "curl -sf --max-time 1 --unix-socket /run/routed/agent.sock "
    "http://agent/readyz",
}
HEAD = """
set -eu
mount -t tmpfs t /run
mkdir -p /run/netns
mount -t tmpfs t /var/lib/routed
mount -t tmpfs t /etc/routed
ip link set lo up
ip link add up0 type veth peer name up1
ip addr add 192.0.2.1/24 dev up0
ip link set up0 up
ip link set up1 up
pids=""
trap 'kill $pids; wait' EXIT
await() {
    for i in $(seq 300); do
        if sh -c "$1" > /dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    echo "not ready: $1" >&2
    return 1
}
"""


def commands() -> list[str]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## On real hosts")[2]
    section = section.partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, flags=re.S)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture
def places() -> Iterator[None]:
    """Mount points for the test's own file systems."""
    made = [path for path in map(Path, ("/var/lib/routed", "/etc/routed")) if not path.exists()]
    for path in made:
        path.mkdir()
    yield
    for path in made:
        path.rmdir()


@pytest.mark.usefixtures("places")
def test_the_commands_for_real_hosts_work_as_they_stand(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("routed", "routed.main"), ("routectl", "routed.ctl.main")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    found = commands()
    assert len(found) >= 14
    lines = [f'PATH="{programs}:$PATH"', f'export PYTHONPATH="{ROOT}"']
    for one in found:
        service = next((name for name in SERVICES if one.startswith(name)), None)
        if service is None:
            lines.append(one)
        else:
            lines.append(f"{one} & pids=\"$pids $!\"\nawait '{READY[service]}'")
    script = tmp_path / "script"
    script.write_text(HEAD + "\n".join(lines) + "\n")
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-x", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("attached: 10.65.0.0", "inet 10.65.0.0/32", "tor1", "detached", "main 10.65.0.0"):
        assert part in done.stdout, part + done.stdout
