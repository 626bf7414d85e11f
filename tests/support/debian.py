"""A minimal Debian, made by debootstrap: what the image is built on, and what the package is
installed in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.docker import program

SUITE = "bookworm"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # those that this machine trusts
APT = 'Acquire::http::Pipeline-Depth "0";\nAcquire::Languages "none";\n'


def bootstrap(root: Path) -> None:
    """Make it at `root`; the test is skipped where that cannot be done."""
    words = [program("debootstrap", "debootstrap"), "--variant=minbase", SUITE, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"debootstrap cannot make {SUITE}: {done.stdout[-500:]}{done.stderr[-500:]}")
    root.chmod(0o755)
    (root / "etc/dpkg/dpkg.cfg.d/90test").write_text("force-unsafe-io\n")
    (root / "etc/apt/apt.conf.d/90test").write_text(APT)
    if AUTHORITIES.exists():  # under a name that no package writes to
        shutil.copy(AUTHORITIES, root / "etc/authorities.pem")
        (root / "etc/pip.conf").write_text("[global]\ncert = /etc/authorities.pem\n")
