"""What `routectl` said."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Ctl = Callable[..., subprocess.CompletedProcess[str]]


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout
