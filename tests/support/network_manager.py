"""A NetworkManager of one's own inside a network namespace: with a /run, a bus, a configuration and
a state of its own, and a /sys that cannot be written, as in a container, where it asks no udev."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from routed.lab.processes import wait_for
from support.bused import BUS, bused, inside
from support.docker import program

# /run/routed-lab stays what it is: what runs beside it there has its sockets in it
START = f"""
set -e
mount --make-rprivate / && mount -t sysfs -o ro none /sys
mkdir -p "$1/run/routed-lab" && mount -t tmpfs none "$1/run" && mkdir -p "$1/run/routed-lab"
[ ! -d /run/routed-lab ] || mount --rbind /run/routed-lab "$1/run/routed-lab"
mount --rbind "$1/run" /run
for each in /etc/NetworkManager /var/lib/NetworkManager /usr/lib/NetworkManager/conf.d; do
    mkdir -p "$each" && mount -t tmpfs none "$each"
done
mkdir -p /run/NetworkManager /etc/NetworkManager/conf.d
cp -r "$1/etc/." /etc/NetworkManager/
chmod 600 /etc/NetworkManager/system-connections/*
{BUS}exec "$2" --debug
"""
MAIN = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
auth-polkit=false
"""


class NetworkManager:
    """The daemon of `namespace`."""

    def __init__(self, namespace: str, pid: int) -> None:
        self.namespace, self.pid = namespace, pid

    @property
    def prefix(self) -> list[str]:
        """The words that put a command where it runs."""
        return inside(self.pid)

    def nmcli(self, *words: str, check: bool = True) -> str:
        whole = [*self.prefix, "nmcli", "--terse", *words]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"nmcli {words}: {done.stderr}"
        return done.stdout

    def links(self) -> dict[str, tuple[str, str]]:
        """Of each link its state and the connection that it has."""
        lines = self.nmcli(
            "--fields", "DEVICE,STATE,CONNECTION", "device", check=False
        ).splitlines()
        rows = [line.split(":") for line in lines]
        return {row[0]: (row[1], row[2]) for row in rows}


@contextmanager
def network_manager(
    namespace: str, connections: Mapping[str, str], drop_in: str = ""
) -> Iterator[NetworkManager]:
    """It runs inside the block; `connections` are its profiles by their names, `drop_in` a file of
    its conf.d. The test is skipped where it is not installed."""
    daemon = program("NetworkManager", "network-manager")
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        for name in ("system-connections", "conf.d"):
            (place / "etc" / name).mkdir(parents=True)
        (place / "etc/NetworkManager.conf").write_text(MAIN)
        (place / "etc/conf.d/routed.conf").write_text(drop_in)
        for name, content in connections.items():
            path = place / f"etc/system-connections/{name}.nmconnection"
            path.write_text(f"[connection]\nid={name}\n{content}")
        with bused(namespace, START, place, daemon) as pid:
            found = NetworkManager(namespace, pid)
            wait_for("NetworkManager having looked at its links", lambda: bool(found.links()))
            yield found
