"""What systemd does to start a unit, by hand: for where there is no systemd.

Directories, user, capabilities, umask and the command are the unit's own; its sandbox is not made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from routed.lab.fabric import LabError, prefix
from routed.lab.processes import wait_for

ROOTS = {"RuntimeDirectory": "run", "StateDirectory": "var/lib"}


class Unit:
    """A unit that is installed under `root`, run in the network `namespace`."""

    def __init__(self, root: Path, name: str, namespace: str) -> None:
        self.root, self.name, self.namespace = root, name, namespace
        path = root / f"usr/lib/systemd/system/{name}.service"
        lines = path.read_text(encoding="utf-8").splitlines()
        self.settings = dict(line.split("=", 1) for line in lines if line[:1].isalpha())
        self.log = root.parent / f"{name}.log"
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """systemd.exec(5): directories first, then rights, then the program."""
        uid, gid = self._user()
        for setting, top in ROOTS.items():
            self._directory(setting, top, uid, gid)
        held = self.settings.get("CapabilityBoundingSet", "").lower().replace("cap_", "+").split()
        words = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        words += ["--no-new-privs", f"--bounding-set={','.join(['-all', *held])}"]
        inside = ["chroot", str(self.root), *words, *self.settings["ExecStart"].split()]
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [*prefix(self.namespace), *inside], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, umask=int(self.settings.get("UMask", "0022"), 8), cwd="/",
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )  # fmt: skip

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until `condition`; what it logged is said if that does not come."""
        try:
            wait_for(what, condition, 30)
        except LabError as error:
            said = self.log.read_text(encoding="utf-8")[-3000:]
            raise AssertionError(f"{error}; {self.name}: {said}") from error

    def stop(self) -> None:
        if self.child is not None:
            self.child.terminate()
            self.child.wait(15)
            self.child = None

    def _user(self) -> tuple[int, int]:
        name = self.settings.get("User", "root")
        for line in (self.root / "etc/passwd").read_text(encoding="utf-8").splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return int(fields[2]), int(fields[3])
        raise AssertionError(f"{self.name} runs as {name}, which is no user")

    def _directory(self, setting: str, top: str, uid: int, gid: int) -> None:
        """Parents are root's, the last one is the unit's."""
        if setting in self.settings:
            path = self.root / top / self.settings[setting]
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.mkdir(exist_ok=True)
            path.chmod(int(self.settings.get(f"{setting}Mode", "0755"), 8))
            if path.stat().st_uid != uid:
                shutil.chown(path, uid, gid)
                for below in path.rglob("*"):
                    os.chown(below, uid, gid, follow_symlinks=False)
