"""A systemd-networkd of one's own inside a network namespace: with a /run and a bus of its own, and
a /sys that cannot be written, as in a container, where it waits for no udev. Where it waits all
the same (255), it finds that udev has seen the links."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from routed.lab.processes import wait_for
from support.bused import BUS, bused, inside

DAEMON = Path("/lib/systemd/systemd-networkd")
START = f"""
mount --make-rprivate / && mount -t tmpfs none /run && mount -t sysfs -o ro none /sys
mkdir -p /run/systemd
cp -r "$1"/* /run/systemd/
mkdir -p /run/udev/data
for link in /sys/class/net/*/ifindex; do echo I:1 > "/run/udev/data/n$(cat "$link")"; done
{BUS}exec "$2"
"""


class Networkd:
    """The daemon of `namespace`; `configure` waits until a link has been made anew."""

    def __init__(self, namespace: str, pid: int) -> None:
        self.namespace, self.pid = namespace, pid

    def networkctl(self, *words: str, check: bool = True) -> str:
        whole = [*inside(self.pid), "networkctl"]
        done = subprocess.run([*whole, *words], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"networkctl {words}: {done.stderr}"
        return done.stdout

    @property
    def release(self) -> int:
        return int(self.networkctl("--version").split()[1])

    def configured(self, link: str) -> bool:
        lines = self.networkctl("--no-legend", "list", link, check=False).split()
        return lines[-1:] == ["configured"]

    def reconfigure(self, link: str) -> None:
        self.networkctl("reconfigure", link)


@contextmanager
def networkd(namespace: str, files: Mapping[str, str]) -> Iterator[Networkd]:
    """It runs inside the block; `files` are those of /run/systemd, by their paths there. The test
    is skipped where it is not installed."""
    if not DAEMON.exists():
        pytest.skip("systemd-networkd is not installed (package systemd)")
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        for name, content in files.items():
            (place / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            (place / name).write_text(content)
        with bused(namespace, START, place, str(DAEMON), SYSTEMD_LOG_TARGET="console") as pid:
            found = Networkd(namespace, pid)
            wait_for("networkd answering", lambda: bool(found.networkctl("list", check=False)))
            yield found
