"""A daemon of one's own inside a network namespace, with a mount namespace and a system bus of its
own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from routed.lab.fabric import prefix
from support.docker import program

# of a script, once /run is its own
BUS = """
mkdir -p /run/dbus
dbus-daemon --system --nofork --nopidfile &
echo $! > /run/bus.pid
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
"""


@contextmanager
def bused(
    namespace: str, script: str, place: Path, daemon: str, **environment: str
) -> Iterator[int]:
    """The pid of `script`, which ends by being the daemon and has BUS in it; it gets `place` and
    `daemon` as $1 and $2, and runs inside the block. What it has said is printed where the block
    fails. The test is skipped where there is no dbus-daemon."""
    program("dbus-daemon", "dbus-daemon")
    words = [*prefix(namespace), "unshare", "--mount", "--", "sh", "-c", script, "sh"]
    log = place / "log"
    with log.open("wb") as out, subprocess.Popen(
        [*words, str(place), daemon], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        env={"PATH": os.environ["PATH"], **environment},
    ) as child:  # fmt: skip
        try:
            yield child.pid
        except BaseException:
            print(log.read_text()[-3000:])
            raise
        finally:
            with contextlib.suppress(OSError, ValueError):  # it came to nothing
                own = Path(f"/proc/{child.pid}/root")
                bus = (own / "run/bus.pid").read_text(encoding="ascii")
                os.kill(int(bus), signal.SIGTERM)
            child.terminate()


def inside(pid: int) -> list[str]:
    """The words that put a command where the daemon runs."""
    return ["nsenter", "--target", str(pid), "--mount", "--root", "--net", "--"]
