"""A systemd-networkd of one's own inside a network namespace: with a /run and a bus of its own, and
a /sys that cannot be written, as in a container, where it waits for no udev. Where it waits all
the same (255), it finds that udev has seen the links."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from routed.lab.fabric import prefix
from routed.lab.processes import wait_for
from support.docker import program

DAEMON = Path("/lib/systemd/systemd-networkd")
START = """
mount --make-rprivate / && mount -t tmpfs none /run && mount -t sysfs -o ro none /sys
mkdir -p /run/dbus /run/systemd
cp -r "$1"/* /run/systemd/
mkdir -p /run/udev/data
for link in /sys/class/net/*/ifindex; do echo I:1 > "/run/udev/data/n$(cat "$link")"; done
dbus-daemon --system --nofork --nopidfile &
echo $! > /run/bus.pid
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
exec "$2"
"""


class Networkd:
    """The daemon of `namespace`; `configure` waits until a link has been made anew."""

    def __init__(self, namespace: str, pid: int) -> None:
        self.namespace, self.pid = namespace, pid

    def networkctl(self, *words: str, check: bool = True) -> str:
        whole = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--root",
            "--net",
            "--",
            "networkctl",
        ]
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
    program("dbus-daemon", "dbus-daemon")
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        for name, content in files.items():
            (place / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            (place / name).write_text(content)
        words = [*prefix(namespace), "unshare", "--mount", "--"]
        log = place / "log"
        with log.open("wb") as out, subprocess.Popen(
            [*words, "sh", "-c", START, "sh", str(place), str(DAEMON)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={"PATH": os.environ["PATH"], "SYSTEMD_LOG_TARGET": "console"},
        ) as child:  # fmt: skip
            found = Networkd(namespace, child.pid)
            try:
                wait_for("networkd answering", lambda: bool(found.networkctl("list", check=False)))
                yield found
            except BaseException:
                print(log.read_text()[-3000:])
                raise
            finally:
                with contextlib.suppress(OSError, ValueError):  # it came to nothing
                    own = Path(f"/proc/{child.pid}/root")
                    bus = (own / "run/bus.pid").read_text(encoding="ascii")
                    os.kill(int(bus), signal.SIGTERM)
                child.terminate()
