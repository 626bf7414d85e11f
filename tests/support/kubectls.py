"""The kubectls that can be had here: the one on the PATH, others that are installed beside it (some
distributions bring one for each minor version), and Debian's, which is of 2020."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "kubernetes-client"
NAMES = ("path", "debian")  # the new and the old, where all would take too long


@functools.cache
def kubectl(name: str) -> Path | str:
    """The program, or why there is none."""
    found = shutil.which("kubectl")
    if name == "path":
        return Path(found) if found else "there is no kubectl on the PATH"
    if name != "debian":
        assert found is not None
        return Path(found).resolve().with_name(name)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"{PACKAGE} cannot be downloaded here: apt-get and root are needed"
    directory = Path(tempfile.mkdtemp(prefix="kubectl-"))  # for as long as the tests run
    directory.chmod(0o755)
    done = subprocess.run(
        ["apt-get", "download", PACKAGE], cwd=directory, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    packages = list(directory.glob("*.deb"))
    if done.returncode != 0 or not packages:
        shutil.rmtree(directory)
        return f"{PACKAGE} cannot be downloaded: {done.stderr.strip()[-200:]}"
    subprocess.run(["dpkg-deb", "-x", packages[0], directory], timeout=60, check=True)
    return directory / "usr" / "bin" / "kubectl"


def names() -> list[str]:
    """What `kubectl` is asked for: each once."""
    found = shutil.which("kubectl")
    if found is None:
        return ["path", "debian"]
    beside = sorted(Path(found).resolve().parent.glob("kubectl.1.[0-9]*"))
    own = minor(Path(found)) if beside else 0
    others = [one.name for one in beside if one.suffix != f".{own}"]
    return ["path", *others, "debian"]


def minor(program: Path) -> int:
    """The 20 of v1.20.2."""
    said = subprocess.run(
        [program, "version", "--client", "-o", "json"], capture_output=True, text=True,
        timeout=20, check=True,
    ).stdout  # fmt: skip
    match = re.search(r'"gitVersion": "v1\.(\d+)', said)
    assert match, said
    return int(match[1])
