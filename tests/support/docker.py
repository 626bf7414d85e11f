"""A dockerd of one's own inside a network namespace, and images that come from no registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routed.lab.fabric import LabError, prefix
from routed.lab.processes import wait_for

START_SECONDS = 30.0
STOP_SECONDS = 30.0
APPLETS = ("sh", "sleep", "ping", "ip")


def program(name: str, package: str) -> str:
    """Its path; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return found


class Docker:
    """A dockerd whose host is `namespace`; `words` are more options of it.

    Its files are in a short path, for the sockets of its children (unix(7): 108 bytes).
    """

    def __init__(self, namespace: str, directory: Path, words: Sequence[str] = ()) -> None:
        self.namespace, self.directory = namespace, directory
        self.words = list(words)
        self._daemon = program("dockerd", "docker.io")
        self._client = program("docker", "docker.io")
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        place = self.directory
        words = [self._daemon, "--data-root", f"{place}/root", "--exec-root", f"{place}/exec"]
        words += ["-H", f"unix://{place}/sock", "--pidfile", f"{place}/pid"]
        words += ["--storage-driver", "overlay2", *self.words]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*prefix(self.namespace), *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for("dockerd answering", self._answers, START_SECONDS)
        except LabError as error:
            self.stop()
            pytest.fail(f"{error}\n{self.log.read_text()[-3000:]}", pytrace=False)

    def stop(self) -> None:
        """End it, and with it its containerd."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait(STOP_SECONDS)
            self._child = None

    def run(
        self, *words: str, check: bool = True, timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """The client's command; it must succeed if `check`."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory),
            "DOCKER_HOST": f"unix://{self.directory}/sock",
        }  # fmt: skip
        done = subprocess.run(
            [self._client, *words], capture_output=True, text=True, timeout=timeout,
            env=environment, check=False, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"docker {words}: {done.stdout}{done.stderr}"
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.run("inspect", name).stdout)
        return found[0]

    def import_root(self, root: Path, tag: str) -> None:
        """An image out of a directory."""
        packer = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        with packer:
            self.run("import", "-", tag, stdin=packer.stdout)
        assert packer.returncode == 0

    def import_busybox(self, tag: str = "busybox") -> None:
        """An image of busybox alone."""
        root = self.directory / "busybox"
        (root / "bin").mkdir(parents=True)
        shutil.copy(program("busybox", "busybox-static"), root / "bin" / "busybox")
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        self.import_root(root, tag)

    def _answers(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            pytest.fail(f"dockerd ended: {self.log.read_text()[-3000:]}", pytrace=False)
        return self.run("version", check=False).returncode == 0


@contextmanager
def dockerd(namespace: str, *words: str) -> Iterator[Docker]:
    """A dockerd that runs inside the block; its containers and files go with it."""
    directory = Path(tempfile.mkdtemp(prefix="rtd"))
    found = Docker(namespace, directory, words)
    try:
        found.start()
        yield found
        if left := found.run("ps", "-aq").stdout.split():
            found.run("rm", "-f", *left)
    finally:
        found.stop()
        for place in reversed(mounted_under(directory)):
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(directory)


def mounted_under(directory: Path) -> list[str]:
    """What a dockerd that ended leaves mounted, such as the network namespace of its host."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [place for line in lines if (place := line.split()[4]).startswith(f"{directory}/")]
